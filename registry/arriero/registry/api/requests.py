"""Requests and limits of transfers in Rucio's REST protocol."""

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.errors import InvalidInput
from arriero.registry.services import requests, transfer_limits
from arriero.registry.states import DIRECTION_LETTERS, TransferDirection

router = APIRouter(prefix="/requests", tags=["requests"])


class LimitKey(BaseModel):
    """Body that names a limit of transfers."""

    model_config = ConfigDict(extra="ignore")

    rse_expression: str
    activity: str | None = None
    direction: str = DIRECTION_LETTERS[TransferDirection.DESTINATION]


class Limit(LimitKey):
    """Body of a limit of transfers; what Rucio counts itself is read over."""

    max_transfers: int = Field(description="Copies at once.")
    volume: int | None = Field(default=None, description="Bytes at once.")
    deadline: int | None = Field(default=None, description="Hours after which what waits goes all the same.")
    strategy: str | None = Field(default=None, description="fifo or grouped_fifo.")


def _direction(text: str) -> TransferDirection:
    letters = {letter: direction for direction, letter in DIRECTION_LETTERS.items()}
    found = letters.get(text.upper()) or TransferDirection.__members__.get(text.upper())
    if found is None:
        raise InvalidInput("direction is S (source) or D (destination)")
    return found


@router.get("/list", summary="Requests, by RSEs or sites and states")
def list_requests(context: ContextDep, actor: ActorDep, request: Request) -> StreamingResponse:
    del actor
    return json_stream(requests.list_requests(context, dict(request.query_params)))


@router.get("/history/list", summary="Attempts that have ended, by RSEs or sites and states")
def list_past_requests(context: ContextDep, actor: ActorDep, request: Request) -> StreamingResponse:
    del actor
    return json_stream(requests.list_past_requests(context, dict(request.query_params)))


@router.get("/transfer_limits", summary="Limits of transfers")
def list_limits(context: ContextDep, actor: ActorDep) -> StreamingResponse:
    del actor
    return json_stream(transfer_limits.list_limits(context))


@router.put(
    "/transfer_limits", status_code=201, summary="Set a limit of transfers", openapi_extra=sends(Limit)
)
def set_limit(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    limit = parse(Limit, body)
    transfer_limits.set_limit(
        context,
        actor,
        limit.rse_expression,
        direction=_direction(limit.direction),
        activity=limit.activity,
        max_transfers=limit.max_transfers,
        volume=limit.volume,
        deadline_h=limit.deadline,
        strategy=limit.strategy,
    )
    return Response(status_code=201)


@router.delete("/transfer_limits", summary="Remove a limit of transfers", openapi_extra=sends(LimitKey))
def delete_limit(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    limit = parse(LimitKey, body)
    transfer_limits.delete_limit(
        context,
        actor,
        limit.rse_expression,
        direction=_direction(limit.direction),
        activity=limit.activity,
    )
    return Response()


@router.get(
    "/history/{scope}/{name:path}/{rse}", summary="The last attempt that has ended for a file at an RSE"
)
def get_past_request(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, rse: PathText
) -> Response:
    del actor
    return json_response(requests.get_request(context, scope, name, rse, past=True))


@router.get("/{scope}/{name:path}/{rse}", summary="The request for a file at an RSE")
def get_request(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, rse: PathText
) -> Response:
    del actor
    return json_response(requests.get_request(context, scope, name, rse))
