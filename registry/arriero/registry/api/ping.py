"""Is anybody there, and which version."""

from importlib.metadata import version

from fastapi import APIRouter
from fastapi.responses import Response

from arriero.registry.api.streams import json_response
from arriero.registry.dependencies import ContextDep
from arriero.registry.services import health

router = APIRouter(tags=["service"])


@router.get("/ping", summary="The version of the service")
async def ping() -> Response:
    return json_response({"version": version("arriero")})


@router.get("/live", summary="Whether the process answers")
async def live() -> Response:
    return json_response({"status": "live"})


@router.get("/ready", summary="Whether the service can do its work")
def ready(context: ContextDep) -> Response:
    health.check_ready(context)
    return json_response({"status": "ready"})
