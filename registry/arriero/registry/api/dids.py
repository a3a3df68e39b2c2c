"""Data identifiers in Rucio's REST protocol.

Names may hold slashes, encoded (as the official client sends them) or bare: routes that end in a word come before the
one that ends in a name.
"""

import re
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from arriero.registry.api import dids_contents, dids_metadata
from arriero.registry.api.dids_bodies import COLLECTION, COLLECTIONS, KEYS, StatusBody
from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.errors import InvalidInput
from arriero.registry.services import did_lists, dids, erasure

router = APIRouter(prefix="/dids", tags=["dids"])

_GUID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


@router.post("", status_code=201, summary="Add datasets and containers", openapi_extra=sends(COLLECTIONS))
def add_dids(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    new = parse(COLLECTIONS, body)
    if not new:
        raise InvalidInput("no DID was sent")
    dids.add_collections(context, actor, [one.as_new(*one.key) for one in new])
    return Response(status_code=201)


@router.post(
    "/resurrect",
    status_code=201,
    summary="Bring erased datasets and containers back",
    openapi_extra=sends(KEYS),
)
def resurrect(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    erasure.resurrect(context, actor, [did.key for did in parse(KEYS, body)])
    return Response(status_code=201)


router.include_router(dids_contents.bulk)
router.include_router(dids_metadata.bulk)


@router.get("/{scope}", summary="A scope from its top, or what one DID of it holds")
def scope_list(
    context: ContextDep, actor: ActorDep, scope: PathText, *, name: str | None = None, recursive: bool = False
) -> StreamingResponse:
    del actor
    return json_stream(did_lists.scope_list(context, scope, name=name, recursive=recursive))


@router.get("/{scope}/dids/search", summary="Find DIDs of a scope")
def search(
    context: ContextDep,
    actor: ActorDep,
    scope: PathText,
    *,
    filters: Annotated[str | None, Query()] = None,
    did_type: Annotated[str, Query(alias="type")] = "collection",
    long: bool = False,
    recursive: bool = False,
    behind: Annotated[str | None, Query(max_length=1000)] = None,
    limit: Annotated[int | None, Query(ge=1, le=10**9)] = None,
) -> StreamingResponse:
    del actor
    found = did_lists.search(
        context,
        scope,
        filters=filters,
        did_type=did_type,
        long=long,
        recursive=recursive,
        behind=behind,
        limit=limit,
    )
    return json_stream(found)


router.include_router(dids_contents.router)
router.include_router(dids_metadata.router)


@router.put(
    "/{scope}/{name:path}/status",
    summary="Open or close a dataset or container",
    openapi_extra=sends(StatusBody),
)
def set_status(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, body: BodyDep
) -> Response:
    sent = parse(StatusBody, body)
    if sent.open is None:
        raise InvalidInput("open is true or false", rucio_class="UnsupportedStatus")
    dids.set_status(context, actor, scope, name, is_open=sent.open)
    return Response()


@router.get("/{scope}/{name:path}", summary="One DID, or the datasets that hold the file of a GUID")
def get_did(
    context: ContextDep,
    actor: ActorDep,
    scope: PathText,
    name: PathText,
    *,
    dynamic_depth: str | None = None,
    dynamic: bool = False,
) -> Response:
    del actor
    if name == "guid" and _GUID.fullmatch(scope):
        # no scope is that long: this is Rucio's /dids/GUID/guid
        return json_stream(did_lists.datasets_of_guid(context, scope))
    totals = dynamic or dynamic_depth is not None
    return json_response(dids.get_did(context, scope, name, with_totals=totals))


@router.post(
    "/{scope}/{name:path}",
    status_code=201,
    summary="Add a dataset or container",
    openapi_extra=sends(COLLECTION),
)
def add_did(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, body: BodyDep) -> Response:
    dids.add_collections(context, actor, [parse(COLLECTION, body).as_new(scope, name)])
    return Response(status_code=201)
