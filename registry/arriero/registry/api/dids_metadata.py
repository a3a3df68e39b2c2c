"""Metadata of DIDs, in Rucio's REST protocol; a part of the routes of `dids`."""

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from arriero.registry.api.dids_bodies import DidsBody, DidsMetaBody, MetaBody, ValueBody
from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.services import metadata

bulk = APIRouter(tags=["dids"])
router = APIRouter(tags=["dids"])


@bulk.post("/bulkmeta", summary="Metadata of several DIDs", openapi_extra=sends(DidsBody))
def bulk_metadata(context: ContextDep, actor: ActorDep, body: BodyDep) -> StreamingResponse:
    del actor
    sent = parse(DidsBody, body)
    keys = [did.key for did in sent.dids]
    found = metadata.get_metadata_bulk(context, keys, plugin=sent.plugin, inherit=sent.inherit)
    return json_stream(found)


@bulk.post(
    "/bulkdidsmeta",
    status_code=201,
    summary="Set metadata of several DIDs",
    openapi_extra=sends(DidsMetaBody),
)
def set_bulk_metadata(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(DidsMetaBody, body)
    changes = [(did.scope, did.name, did.meta) for did in sent.dids]
    metadata.set_metadata(context, actor, changes, recursive=sent.recursive)
    return Response(status_code=201)


@router.get("/{scope}/{name:path}/meta", summary="Metadata of a DID")
def get_metadata(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, plugin: str = "ALL"
) -> Response:
    del actor
    return json_response(metadata.get_metadata(context, scope, name, plugin=plugin))


@router.post(
    "/{scope}/{name:path}/meta",
    status_code=201,
    summary="Set metadata of a DID",
    openapi_extra=sends(MetaBody),
)
def set_metadata(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, body: BodyDep
) -> Response:
    sent = parse(MetaBody, body)
    metadata.set_metadata(context, actor, [(scope, name, sent.meta)], recursive=sent.recursive)
    return Response(status_code=201)


@router.delete("/{scope}/{name:path}/meta", summary="Remove a key of the metadata of a DID")
def delete_metadata(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, key: str
) -> Response:
    metadata.delete_metadata(context, actor, scope, name, key)
    return Response()


@router.post(
    "/{scope}/{name:path}/meta/{key}",
    status_code=201,
    summary="Set one key of the metadata of a DID",
    openapi_extra=sends(ValueBody),
)
def set_metadata_key(
    context: ContextDep,
    actor: ActorDep,
    scope: PathText,
    name: PathText,
    *,
    key: PathText,
    body: BodyDep,
) -> Response:
    sent = parse(ValueBody, body)
    metadata.set_metadata(context, actor, [(scope, name, {key: sent.value})], recursive=sent.recursive)
    return Response(status_code=201)
