"""Data identifiers in Rucio's REST protocol.

Names may hold slashes, encoded (as the official client sends them) or bare: routes that end in a word come before the
one that ends in a name.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from arriero.registry.api.rules import RuleOptions, rule_spec
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.errors import InvalidInput, Unsupported
from arriero.registry.services import contents, dids, metadata, rules
from arriero.registry.services.dids import NewCollection

router = APIRouter(prefix="/dids", tags=["dids"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class DidKey(_Body):
    """A DID by its name."""

    scope: str = Field(max_length=40)
    name: str = Field(max_length=1000)

    @property
    def key(self) -> tuple[str, str]:
        return self.scope, self.name


class ChildBody(DidKey):
    """A DID to attach, and what is said of it."""

    bytes: int | None = Field(default=None, ge=0)
    adler32: str | None = None
    md5: str | None = None
    meta: dict[str, Any] | None = None

    def as_child(self) -> contents.Child:
        return contents.Child(self.scope, self.name, self.bytes, self.adler32, self.md5, self.meta)


class Statuses(_Body):
    """What a new collection is."""

    monotonic: bool = False


class CollectionBody(_Body):
    """A dataset or container to add."""

    type: str = Field(max_length=20)
    statuses: Statuses = Statuses()
    lifetime: float | None = Field(default=None, gt=0, le=10**10)
    meta: dict[str, Any] = Field(default_factory=dict)
    dids: list[ChildBody] = Field(default_factory=list)
    rse: str | None = None
    rules: list[RuleOptions] = Field(default_factory=list)

    def as_new(self, scope: str, name: str) -> NewCollection:
        return NewCollection(
            scope=scope,
            name=name,
            type=self.type.upper(),
            monotonic=self.statuses.monotonic,
            lifetime_s=self.lifetime,
            meta=self.meta,
            children=[child.as_child() for child in self.dids],
            rse=self.rse,
            rules=[rule_spec(rule) for rule in self.rules],
        )


class NamedCollectionBody(CollectionBody, DidKey):
    """A dataset or container to add, with its name."""


class AttachBody(_Body):
    """What to attach or detach."""

    dids: list[ChildBody]
    rse: str | None = None


class AttachmentBody(AttachBody, DidKey):
    """What to attach, and to what."""


class AttachmentsBody(_Body):
    """Many attachments in one call."""

    attachments: list[AttachmentBody]
    ignore_duplicate: bool = False


class DidsBody(_Body):
    """Several DIDs, and which metadata of them."""

    dids: list[DidKey]
    plugin: str = "ALL"
    inherit: bool = False


class MetaBody(_Body):
    """Metadata to set."""

    meta: dict[str, Any]
    recursive: bool = False


class ValueBody(_Body):
    """The value of one key of the metadata."""

    value: Any = None
    recursive: bool = False


class NamedMetaBody(DidKey):
    """Metadata to set, and of what."""

    meta: dict[str, Any]


class DidsMetaBody(_Body):
    """Metadata to set of many DIDs."""

    dids: list[NamedMetaBody]
    recursive: bool = False


class StatusBody(_Body):
    """Open or closed."""

    open: bool | None = None


_COLLECTIONS = TypeAdapter(list[NamedCollectionBody])
_ATTACH = TypeAdapter(AttachBody)
_ATTACHMENTS = TypeAdapter(AttachmentsBody)


@router.post("", status_code=201, summary="Add datasets and containers")
def add_dids(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    new = parse(_COLLECTIONS, body)
    if not new:
        raise InvalidInput("no DID was sent")
    dids.add_collections(context, actor, [one.as_new(*one.key) for one in new])
    return Response(status_code=201)


@router.post("/attachments", status_code=201, summary="Attach DIDs to several datasets or containers")
def attach_many(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(_ATTACHMENTS, body)
    _attach(context, actor, sent.attachments, ignore_duplicate=sent.ignore_duplicate)
    return Response(status_code=201)


def _attach(
    context: ContextDep, actor: ActorDep, sent: Sequence[AttachmentBody], *, ignore_duplicate: bool
) -> None:
    attachments = [
        contents.Attachment(one.scope, one.name, [child.as_child() for child in one.dids], one.rse)
        for one in sent
    ]
    contents.attach(context, actor, attachments, ignore_duplicate=ignore_duplicate)


@router.post("/bulkfiles", summary="Files of several DIDs")
def bulk_files(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    del actor
    keys = [did.key for did in parse(DidsBody, body).dids]
    return json_stream(dids.list_files(context, keys, with_parent=True))


@router.post("/bulkmeta", summary="Metadata of several DIDs")
def bulk_metadata(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    del actor
    sent = parse(DidsBody, body)
    if sent.inherit:
        raise Unsupported("inherited metadata is not in Arriero yet")
    if len(sent.dids) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} DIDs in one call")
    keys = [did.key for did in sent.dids]
    return json_stream(metadata.get_metadata_bulk(context, keys, plugin=sent.plugin))


@router.post("/bulkdidsmeta", status_code=201, summary="Set metadata of several DIDs")
def set_bulk_metadata(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(DidsMetaBody, body)
    changes = [(did.scope, did.name, did.meta) for did in sent.dids]
    metadata.set_metadata(context, actor, changes, recursive=sent.recursive)
    return Response(status_code=201)


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
) -> Response:
    del actor
    found = dids.search(context, scope, filters=filters, did_type=did_type, long=long, recursive=recursive)
    return json_stream(found)


@router.get("/{scope}/{name:path}/dids", summary="What a dataset or container holds")
def list_content(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText) -> Response:
    del actor
    return json_stream(dids.list_content(context, scope, name))


@router.post("/{scope}/{name:path}/dids", status_code=201, summary="Attach DIDs")
def attach(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, body: BodyDep) -> Response:
    sent = parse(_ATTACH, body)
    children = [child.as_child() for child in sent.dids]
    contents.attach(context, actor, [contents.Attachment(scope, name, children, sent.rse)])
    return Response(status_code=201)


@router.delete("/{scope}/{name:path}/dids", summary="Detach DIDs")
def detach(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, body: BodyDep) -> Response:
    sent = parse(_ATTACH, body)
    contents.detach(context, actor, scope, name, [child.as_child() for child in sent.dids])
    return Response()


@router.get("/{scope}/{name:path}/files", summary="Files below a DID")
def list_files(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText) -> Response:
    del actor
    return json_stream(dids.list_files(context, [(scope, name)]))


@router.get("/{scope}/{name:path}/parents", summary="What holds a DID")
def list_parents(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText) -> Response:
    del actor
    return json_stream(dids.list_parents(context, scope, name))


@router.get("/{scope}/{name:path}/rules", summary="Rules on a DID")
def list_rules(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText) -> Response:
    del actor
    return json_stream(rules.list_did_rules(context, scope, name))


@router.get("/{scope}/{name:path}/associated_rules", summary="Rules that hold a file")
def list_associated(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText) -> Response:
    del actor
    return json_stream(rules.list_associated_rules(context, scope, name))


@router.get("/{scope}/{name:path}/meta", summary="Metadata of a DID")
def get_metadata(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, plugin: str = "ALL"
) -> Response:
    del actor
    return json_response(metadata.get_metadata(context, scope, name, plugin=plugin))


@router.post("/{scope}/{name:path}/meta", status_code=201, summary="Set metadata of a DID")
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
    "/{scope}/{name:path}/meta/{key}", status_code=201, summary="Set one key of the metadata of a DID"
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


@router.put("/{scope}/{name:path}/status", summary="Open or close a dataset or container")
def set_status(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, body: BodyDep
) -> Response:
    sent = parse(StatusBody, body)
    if sent.open is None:
        raise InvalidInput("open is true or false", rucio_class="UnsupportedStatus")
    dids.set_status(context, actor, scope, name, is_open=sent.open)
    return Response()


@router.get("/{scope}/{name:path}", summary="One DID")
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
    totals = dynamic or dynamic_depth is not None
    return json_response(dids.get_did(context, scope, name, with_totals=totals))


@router.post("/{scope}/{name:path}", status_code=201, summary="Add a dataset or container")
def add_did(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, body: BodyDep) -> Response:
    dids.add_collections(context, actor, [parse(CollectionBody, body).as_new(scope, name)])
    return Response(status_code=201)
