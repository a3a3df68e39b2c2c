"""What stands between a draft and a transaction: arrivals whose datasets have references and ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from lsst.daf.butler import DatasetRef
from lsst.resources import ResourcePath

from arriero.agent.ingest.butler_records import RecordKey
from arriero.agent.ingest.drafts import Columns, Draft
from arriero.agent.ingest.models import ArrivalFile


@dataclass(frozen=True, slots=True)
class Prepared:
    """A draft with its records by their keys, and the keys of the records that it needs, parents first."""

    draft: Draft
    records: Mapping[RecordKey, Columns]
    needs: tuple[RecordKey, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """One file that is ready: where it is, what it holds, how it is read, its size in bytes if that is known."""

    path: ResourcePath
    uri: str
    refs: tuple[DatasetRef, ...]
    ids: tuple[UUID, ...]
    """Of the datasets: each look at a reference's makes a new one."""
    formatter: type | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An arrival that is ready to be written."""

    prepared: Prepared
    placed: tuple[Placed, ...]
    dataset_id: UUID | None
    """Of its dataset, or of the first of them."""
    datasets: tuple[UUID, ...]
    """All that are in the file itself, where there are several."""

    @property
    def draft(self) -> Draft:
        """What the file says."""
        return self.prepared.draft

    @property
    def records(self) -> Mapping[RecordKey, Columns]:
        """What it brings."""
        return self.prepared.records

    @property
    def file(self) -> ArrivalFile:
        """The arrival."""
        return self.draft.file

    @property
    def refs(self) -> tuple[DatasetRef, ...]:
        """All its datasets."""
        return tuple(ref for placed in self.placed for ref in placed.refs)

    @property
    def ids(self) -> tuple[UUID, ...]:
        """Of all its datasets."""
        return tuple(id_ for placed in self.placed for id_ in placed.ids)


class RecordsDiffer(Exception):
    """The repository has other dimension records than the batch would insert."""

    def __init__(self, differences: Mapping[RecordKey, str]) -> None:
        super().__init__(f"{len(differences)} dimension records differ")
        self.differences = differences
