"""Routes of butlers."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import TypeAdapter

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.arrival_words import ButlerFileFilter, CompleteExposures
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.models import NewButler
from arriero.registry.services import arrival_changes as changes
from arriero.registry.services import butlers

router = APIRouter(prefix="/butlers", tags=["butlers"])

_NEW_BUTLER = TypeAdapter(NewButler)
_COMPLETE = TypeAdapter(CompleteExposures)


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


@router.get(
    "/{name}/files", summary="The files of a butler's ledger by id, with the URIs that its readers open"
)
def list_files(
    context: ContextDep, _actor: ActorDep, name: PathText, chosen: Annotated[ButlerFileFilter, Query()]
) -> Response:
    found = changes.list_files(context, name, chosen)
    return json_stream((file.model_dump(mode="json") for file in found), paged=True)


@router.get("/{name}/status", summary="How the ledger of a butler stands: states, reasons, lag")
def show_status(context: ContextDep, _actor: ActorDep, name: PathText) -> Response:
    return json_response(changes.status(context, name).model_dump(mode="json"))


@router.get(
    "/{name}/prerequisites", summary="What the parked arrivals of a butler wait for, the most wanted first"
)
def list_prerequisites(context: ContextDep, _actor: ActorDep, name: PathText) -> Response:
    return json_response([one.model_dump(mode="json") for one in changes.prerequisites(context, name)])


@router.post(
    "/{name}/complete", summary="Tell of exposures that are whole in a butler", openapi_extra=sends(_COMPLETE)
)
def tell_complete(context: ContextDep, actor: ActorDep, name: PathText, body: BodyDep) -> Response:
    told = changes.tell_complete(context, actor, name, parse(_COMPLETE, body))
    return json_response({"told": told})
