"""Routes of the standing tokens of agents."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import TypeAdapter

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, parse
from arriero.registry.models import NewToken
from arriero.registry.services import tokens

router = APIRouter(prefix="/tokens", tags=["tokens"])

_NEW_TOKEN = TypeAdapter(NewToken)


@router.get("", summary="List tokens, without their secrets")
def list_tokens(context: ContextDep, actor: ActorDep) -> Response:
    return json_stream(token.model_dump(mode="json") for token in tokens.list_tokens(context, actor))


@router.post(
    "",
    status_code=201,
    summary="Make a token; its secret is in this answer only",
    openapi_extra=sends(_NEW_TOKEN),
)
def create_token(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    issued = tokens.create_token(context, actor, parse(_NEW_TOKEN, body))
    return json_response(issued.model_dump(mode="json"), 201)


@router.delete("/{token_id}", summary="Revoke a token")
def revoke_token(
    context: ContextDep, actor: ActorDep, token_id: Annotated[int, Path(ge=1, lt=2**63)]
) -> Response:
    tokens.revoke_token(context, actor, token_id)
    return Response(status_code=200)
