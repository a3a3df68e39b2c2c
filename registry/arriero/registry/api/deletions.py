"""Deletions: what is under way, what would go and what stays, asking for some, stopping all."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.deletion_words import (
    DeleteOrder,
    DeletionFilter,
    DeletionHistoryFilter,
    GoOrder,
    PurgeOrder,
    StopOrder,
)
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, parse
from arriero.registry.operations import plain
from arriero.registry.services import deletions

router = APIRouter(prefix="/deletions", tags=["deletions"])


@router.get("", summary="Replicas that are being deleted, and what each waits for")
def list_deletions(
    context: ContextDep, _actor: ActorDep, chosen: Annotated[DeletionFilter, Query()]
) -> StreamingResponse:
    return json_stream(map(plain, deletions.list_deletions(context, chosen)))


@router.get("/history", summary="Deletions that have ended, the last first")
def list_history(
    context: ContextDep, _actor: ActorDep, chosen: Annotated[DeletionHistoryFilter, Query()]
) -> StreamingResponse:
    return json_stream(map(plain, deletions.list_history(context, chosen)))


@router.get(
    "/sites", summary="How deletion stands with each RSE: what has to go, how fast, and what hinders it"
)
def list_sites(
    context: ContextDep, _actor: ActorDep, expression: Annotated[str | None, Query(max_length=3000)] = None
) -> Response:
    return json_response([plain(one) for one in deletions.list_sites(context, expression)])


@router.get("/stop", summary="Whether deletions are stopped everywhere")
def show_stop(context: ContextDep, _actor: ActorDep) -> Response:
    return json_response(plain(deletions.shown_stop(context)))


@router.post("/stop", summary="Stop all deletions, within seconds", openapi_extra=sends(StopOrder))
def stop(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    return json_response(plain(deletions.stop(context, actor, parse(StopOrder, body))))


@router.post(
    "/go",
    summary="Let deletions go on; of one RSE, forget its failures, and take over the mark on its storage if asked",
    openapi_extra=sends(GoOrder),
)
def go(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    return json_response(plain(deletions.go(context, actor, parse(GoOrder, body))))


@router.post(
    "/plan",
    summary="What would be deleted at an RSE and why, and what stays and why",
    openapi_extra=sends(DeleteOrder),
)
def plan(context: ContextDep, _actor: ActorDep, body: BodyDep) -> StreamingResponse:
    return json_stream(map(plain, deletions.plan(context, parse(DeleteOrder, body))))


@router.post(
    "",
    summary="Have deletion take replicas at once, as far as nothing stands against it",
    openapi_extra=sends(PurgeOrder),
)
def purge(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    return json_response(plain(deletions.purge(context, actor, parse(PurgeOrder, body))))
