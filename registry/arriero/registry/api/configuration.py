"""How this service is set up, read only, in Rucio's REST protocol."""

from fastapi import APIRouter
from fastapi.responses import Response

from arriero.registry.api.streams import json_response
from arriero.registry.dependencies import ActorDep, ContextDep, PathText
from arriero.registry.services import configuration

router = APIRouter(prefix="/config", tags=["service"])


@router.get("", summary="What clients may know of the settings")
def get_configuration(context: ContextDep, actor: ActorDep) -> Response:
    del actor
    return json_response(configuration.get_configuration(context))


@router.get("/{section}", summary="One section of the settings")
def get_section(context: ContextDep, actor: ActorDep, section: PathText) -> Response:
    del actor
    return json_response(configuration.get_section(context, section))


@router.get("/{section}/{option}", summary="One option of the settings")
def get_option(context: ContextDep, actor: ActorDep, section: PathText, option: PathText) -> Response:
    del actor
    return json_response(configuration.get_option(context, section, option))
