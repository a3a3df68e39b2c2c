"""The configuration of all RSEs, out and in, in Rucio's REST protocol."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, parse
from arriero.registry.services import rse_export, rse_import
from arriero.registry.services.rse_import import Sync, SyncMethods

router = APIRouter(tags=["rses"])


class ImportDocument(BaseModel):
    """Body of an import, as an export gives it."""

    model_config = ConfigDict(extra="allow")

    rses: dict[str, dict[str, Any]] | None = None
    distances: dict[str, dict[str, Any]] | None = None


@router.get("/export", summary="Settings, attributes, protocols, limits and distances of all RSEs")
def export_rses(context: ContextDep, actor: ActorDep, distance: bool = True) -> Response:
    del actor
    return json_response(rse_export.export_rses(context, distances=distance))


@router.post(
    "/import",
    status_code=201,
    summary="Bring RSEs and distances in, whole or not at all",
    openapi_extra=sends(ImportDocument),
)
def import_rses(
    context: ContextDep,
    actor: ActorDep,
    body: BodyDep,
    *,
    rse_sync_method: Sync = Sync.EDIT,
    attr_sync_method: Sync = Sync.EDIT,
    protocol_sync_method: Sync = Sync.EDIT,
) -> Response:
    methods = SyncMethods(rse_sync_method, attr_sync_method, protocol_sync_method)
    document = parse(ImportDocument, body).model_dump(exclude_unset=True)
    return json_response(rse_import.import_rses(context, actor, document, methods), 201)
