"""Transfers: what is wanted, under way or given up, and why; trying again, and taking back."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.operations import CancelOrder, RetryOrder, TransferFilter, TransferPage, plain
from arriero.registry.services import transfer_changes, transfers

router = APIRouter(prefix="/transfers", tags=["transfers"])


@router.get("", summary="Transfers that are wanted, under way or given up, and what each waits for")
def list_transfers(
    context: ContextDep, _actor: ActorDep, page: Annotated[TransferPage, Query()]
) -> StreamingResponse:
    return json_stream(map(plain, transfers.list_transfers(context, page)))


@router.get("/totals", summary="How many transfers wait for what, by where they go")
def total_transfers(
    context: ContextDep, _actor: ActorDep, chosen: Annotated[TransferFilter, Query()]
) -> Response:
    return json_response([plain(one) for one in transfers.total_transfers(context, chosen)])


@router.post(
    "/retry",
    summary="Have transfers be due now, with all their attempts; those that were given up begin anew",
    openapi_extra=sends(RetryOrder),
)
def retry(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    return json_response(plain(transfer_changes.retry(context, actor, parse(RetryOrder, body))))


@router.post(
    "/cancel",
    summary="Take transfers back: their locks are STUCK until they are tried again",
    openapi_extra=sends(CancelOrder),
)
def cancel(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    return json_response(plain(transfer_changes.cancel(context, actor, parse(CancelOrder, body))))


@router.get("/{scope}/{name:path}", summary="All that is known of the copies of a file, by where they go")
def show_transfers(
    context: ContextDep,
    _actor: ActorDep,
    scope: PathText,
    name: PathText,
    destination: Annotated[str | None, Query(max_length=255)] = None,
) -> Response:
    return json_response([plain(one) for one in transfers.show_transfers(context, scope, name, destination)])
