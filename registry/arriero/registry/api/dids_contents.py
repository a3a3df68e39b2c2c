"""What DIDs hold and are held by, in Rucio's REST protocol; a part of the routes of `dids`."""

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from arriero.registry.api.dids_bodies import (
    ATTACH,
    ATTACHMENTS,
    DidKeysBody,
    SampleBody,
    attachments_of,
)
from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.services import contents, did_lists, did_samples, rules

bulk = APIRouter(tags=["dids"])
router = APIRouter(tags=["dids"])


@bulk.post(
    "/attachments",
    status_code=201,
    summary="Attach DIDs to several datasets or containers",
    openapi_extra=sends(ATTACHMENTS),
)
def attach_many(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(ATTACHMENTS, body)
    attachments = attachments_of(sent.attachments)
    contents.attach(context, actor, attachments, ignore_duplicate=sent.ignore_duplicate)
    return Response(status_code=201)


@bulk.post("/bulkfiles", summary="Files of several DIDs", openapi_extra=sends(DidKeysBody))
def bulk_files(context: ContextDep, actor: ActorDep, body: BodyDep) -> StreamingResponse:
    del actor
    keys = [did.key for did in parse(DidKeysBody, body).dids]
    return json_stream(did_lists.list_files_of_many(context, keys))


@bulk.post(
    "/sample", status_code=201, summary="A dataset of some files of another", openapi_extra=sends(SampleBody)
)
def create_sample(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(SampleBody, body)
    source, target = (sent.input_scope, sent.input_name), (sent.output_scope, sent.output_name)
    did_samples.create_sample(context, actor, source, target, sent.nbfiles)
    return Response(status_code=201)


@router.get("/{scope}/{name:path}/dids/history", summary="What a dataset or container holds and has held")
def list_content_history(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText
) -> StreamingResponse:
    del actor
    return json_stream(did_lists.list_content_history(context, scope, name))


@router.get("/{scope}/{name:path}/dids", summary="What a dataset or container holds")
def list_content(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText) -> StreamingResponse:
    del actor
    return json_stream(did_lists.list_content(context, scope, name))


@router.post("/{scope}/{name:path}/dids", status_code=201, summary="Attach DIDs", openapi_extra=sends(ATTACH))
def attach(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, body: BodyDep) -> Response:
    sent = parse(ATTACH, body)
    children = [child.as_child() for child in sent.dids]
    contents.attach(context, actor, [contents.Attachment(scope, name, children, sent.rse)])
    return Response(status_code=201)


@router.delete("/{scope}/{name:path}/dids", summary="Detach DIDs", openapi_extra=sends(ATTACH))
def detach(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, body: BodyDep) -> Response:
    sent = parse(ATTACH, body)
    contents.detach(context, actor, scope, name, [child.as_child() for child in sent.dids])
    return Response()


@router.get("/{scope}/{name:path}/files", summary="Files below a DID")
def list_files(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, *, long: bool = False
) -> StreamingResponse:
    del actor
    return json_stream(did_lists.list_files(context, scope, name, long=long))


@router.get("/{scope}/{name:path}/parents", summary="What holds a DID")
def list_parents(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText) -> StreamingResponse:
    del actor
    return json_stream(did_lists.list_parents(context, scope, name))


@router.get("/{scope}/{name:path}/rules", summary="Rules on a DID")
def list_rules(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText) -> StreamingResponse:
    del actor
    return json_stream(rules.list_did_rules(context, scope, name))


@router.get("/{scope}/{name:path}/associated_rules", summary="Rules that hold a file")
def list_associated(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText
) -> StreamingResponse:
    del actor
    return json_stream(rules.list_associated_rules(context, scope, name))
