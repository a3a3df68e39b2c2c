"""Routes of butlers."""

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import TypeAdapter

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.models import NewButler
from arriero.registry.services import butlers

router = APIRouter(prefix="/butlers", tags=["butlers"])

_NEW_BUTLER = TypeAdapter(NewButler)


@router.get("", summary="List butlers")
def list_butlers(context: ContextDep, _actor: ActorDep) -> Response:
    return json_stream(butler.model_dump(mode="json") for butler in butlers.list_butlers(context))


@router.post(
    "",
    status_code=201,
    summary="Add a butler; what is there for it already becomes arrivals",
    openapi_extra=sends(_NEW_BUTLER),
)
def add_butler(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    butler = parse(_NEW_BUTLER, body)
    butlers.add_butler(context, actor, butler)
    return json_response(butlers.get_butler(context, butler.name).model_dump(mode="json"), 201)


@router.get("/{name}", summary="One butler")
def get_butler(context: ContextDep, _actor: ActorDep, name: PathText) -> Response:
    return json_response(butlers.get_butler(context, name).model_dump(mode="json"))
