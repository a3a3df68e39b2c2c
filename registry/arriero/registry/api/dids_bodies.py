"""What the routes of data identifiers read, in Rucio's words; keys that are not known are read over."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from arriero.registry.api.rules import RuleOptions, rule_spec
from arriero.registry.services import contents
from arriero.registry.services.dids import NewCollection


class Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class DidKey(Body):
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


class Statuses(Body):
    """What a new collection is."""

    monotonic: bool = False


class CollectionBody(Body):
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


class AttachBody(Body):
    """What to attach or detach."""

    dids: list[ChildBody]
    rse: str | None = None


class AttachmentBody(AttachBody, DidKey):
    """What to attach, and to what."""


class AttachmentsBody(Body):
    """Many attachments in one call."""

    attachments: list[AttachmentBody]
    ignore_duplicate: bool = False


class DidKeysBody(Body):
    """Several DIDs."""

    dids: list[DidKey]


class DidsBody(DidKeysBody):
    """Several DIDs, and which metadata of them."""

    plugin: str = "ALL"
    inherit: bool = False


class MetaBody(Body):
    """Metadata to set."""

    meta: dict[str, Any]
    recursive: bool = False


class ValueBody(Body):
    """The value of one key of the metadata."""

    value: Any = None
    recursive: bool = False


class NamedMetaBody(DidKey):
    """Metadata to set, and of what."""

    meta: dict[str, Any]


class DidsMetaBody(Body):
    """Metadata to set of many DIDs."""

    dids: list[NamedMetaBody]
    recursive: bool = False


class StatusBody(Body):
    """Open or closed."""

    open: bool | None = None


class SampleBody(Body):
    """A dataset of some files of another."""

    input_scope: str = Field(max_length=40)
    input_name: str = Field(max_length=1000)
    output_scope: str = Field(max_length=40)
    output_name: str = Field(max_length=1000)
    nbfiles: int = Field(ge=1, le=10**12)
    """The official client sends it as text."""


COLLECTION = TypeAdapter(CollectionBody)
COLLECTIONS = TypeAdapter(list[NamedCollectionBody])
ATTACH = TypeAdapter(AttachBody)
ATTACHMENTS = TypeAdapter(AttachmentsBody)
KEYS = TypeAdapter(list[DidKey])


def attachments_of(sent: Sequence[AttachmentBody]) -> list[contents.Attachment]:
    """Give what is to be attached to what."""
    return [
        contents.Attachment(one.scope, one.name, [child.as_child() for child in one.dids], one.rse)
        for one in sent
    ]
