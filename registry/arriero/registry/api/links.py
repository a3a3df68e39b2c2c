"""Links between RSEs, and the health of RSEs: what copies have shown, and what was decided from it."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, ContextDep, PathText
from arriero.registry.operations import plain
from arriero.registry.services import links, rse_health

router = APIRouter(tags=["links"])

RseName = Annotated[str | None, Query(max_length=255)]


@router.get("/links", summary="Links: slots and why, rates, errors, limits, what is under way and waits")
def list_links(
    context: ContextDep, _actor: ActorDep, source: RseName = None, destination: RseName = None
) -> StreamingResponse:
    return json_stream(map(plain, links.list_links(context, source, destination)))


@router.get("/links/{source}/{destination}", summary="A link, with all its attempts by how they ended")
def show_link(context: ContextDep, _actor: ActorDep, source: PathText, destination: PathText) -> Response:
    return json_response(plain(links.show_link(context, source, destination)))


@router.get("/health", summary="Whether RSEs are open and up; those of an expression if one is given")
def list_health(
    context: ContextDep, _actor: ActorDep, expression: Annotated[str | None, Query()] = None
) -> StreamingResponse:
    return json_stream(map(plain, rse_health.list_health(context, expression)))


@router.get("/health/{rse}", summary="Whether an RSE is open and up, since when and why")
def get_health(context: ContextDep, _actor: ActorDep, rse: PathText) -> Response:
    return json_response(plain(rse_health.get_health(context, rse)))


@router.delete("/health/{rse}", summary="Have an RSE count as up, and what waits for it be due now")
def close_breaker(context: ContextDep, actor: ActorDep, rse: PathText) -> Response:
    return json_response(rse_health.close_breaker(context, actor, rse))
