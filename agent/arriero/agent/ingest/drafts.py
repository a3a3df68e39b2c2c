"""What a file says, as the one list of datasets and dimension records that the writer takes from every kind of file.

Why it exists: raws, data products, exports, zips and catalogues tell the same things in different ways. Each kind
has a module that makes a `Draft` of a file; nothing behind it knows the kinds. Plain values, no Butler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any
from uuid import UUID

from arriero.agent.ingest.file_map import DataId
from arriero.agent.ingest.models import ArrivalFile

Columns = Mapping[str, Any]
"""A dimension record: column -> value."""


class Order(IntEnum):
    """What goes before what in a transaction: a file may need the records of those before it."""

    RECORDS = 0
    RAW = 1
    COMPANION = 2
    ARCHIVE = 3
    PRODUCT = 4
    EXPORT = 5


@dataclass(frozen=True, slots=True)
class TypeOfDataset:
    """A dataset type as a file names it; a repository that has one of this name keeps its own."""

    name: str
    dimensions: tuple[str, ...]
    storage_class: str
    is_calibration: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset; without an id of its own it gets one made of type, data ID and run."""

    type: TypeOfDataset
    run: str
    data_id: DataId
    id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file with its datasets.

    Attributes
    ----------
    bytes
        Its verified size, None if nobody has said it.
    formatters
        Formatter by the storage class that the repository has; ``*`` stands for any.
    """

    uri: str
    bytes: int | None
    datasets: tuple[Dataset, ...]
    formatters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Collections:
    """What an export says of collections.

    Attributes
    ----------
    flat
        Name -> ``RUN``, ``TAGGED`` or ``CALIBRATION``.
    chains
        Name -> members in their order.
    tagged
        Collection -> ids of datasets.
    certified
        Collection -> (time span, ids of datasets).
    """

    flat: Mapping[str, str]
    chains: Mapping[str, Sequence[str]]
    tagged: Mapping[str, Sequence[UUID]]
    certified: Mapping[str, Sequence[tuple[Any, Sequence[UUID]]]]


@dataclass(frozen=True, slots=True)
class Draft:
    """What one arrival would put into the Butler.

    Attributes
    ----------
    records
        Element -> records.
    strict
        Whether the records are the file's own, so that it is refused if the repository has others; those of a
        product only say what it needs.
    is_zip
        Whether the file holds its datasets as members.
    """

    file: ArrivalFile
    order: Order
    artifacts: tuple[Artifact, ...]
    records: Mapping[str, Sequence[Columns]]
    strict: bool = True
    is_zip: bool = False
    collections: Collections | None = None
