"""One open Butler: what it has, what it needs first, and one transaction that writes a batch.

Why it exists: the writer decides what to do with a batch and its failures; this knows how a description becomes
a reference and dimension records, and puts both into the Butler in one transaction without asking the storage.
It does not retry and does not split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from lsst.daf.butler import (
    Butler,
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    FileDataset,
    Timespan,
)
from lsst.resources import ResourcePath
from lsst.utils import doImportType

from arriero.agent.ingest import butler_private as private
from arriero.agent.ingest.butler_errors import BUTLER_ERRORS, Failure, classify, sentence
from arriero.agent.ingest.butler_repository import open_repository, register_dataset_type
from arriero.agent.ingest.errors import ButlerUnavailable, UnsuitableRepository
from arriero.agent.ingest.instrument import Description, InstrumentMap, Record
from arriero.agent.ingest.models import ArrivalFile
from arriero.agent.ingest.transforms import TaiSpan, Value

QUERY_CHUNK = 1000
"""Keys per query; each is a bound parameter or a literal, of which databases take tens of thousands."""

RecordKey = tuple[str, str, str | int]
"""Element, instrument, value of the element's own key."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that is ready to be written."""

    file: ArrivalFile
    path: ResourcePath
    ref: DatasetRef
    description: Description
    records: Mapping[RecordKey, Record]


class RecordsDiffer(Exception):
    """The repository has other dimension records than the batch would insert."""

    def __init__(self, differences: Mapping[RecordKey, str]) -> None:
        super().__init__(f"{len(differences)} dimension records differ")
        self.differences = differences


@dataclass
class _Registered:
    """What a repository has registered for one instrument."""

    dataset_type: DatasetType
    formatter: type | None
    detectors: set[int] = field(default_factory=set)
    physical_filters: set[str] = field(default_factory=set)


class Session:
    """A warm Butler of one process.

    Parameters
    ----------
    repository
        URI of the repository.
    transfer
        Butler transfer mode.

    Raises
    ------
    ButlerUnavailable
        If repository or database could not be reached.
    UnsuitableRepository
        If it is another kind of repository than can be written into.
    """

    def __init__(self, repository: str, transfer: str) -> None:
        self._repository = repository
        self._transfer = transfer
        self._registered: dict[str, _Registered] = {}
        try:
            self._butler = open_repository(repository, writeable=True)
        except BUTLER_ERRORS as error:
            if classify(error) is Failure.UNAVAILABLE or isinstance(error, OSError):
                raise ButlerUnavailable(repository, sentence(error)) from error
            raise UnsuitableRepository(repository, sentence(error)) from error
        try:
            private.trust(self._butler)
        except TypeError as error:
            self.close()
            raise UnsuitableRepository(repository, str(error)) from error

    @property
    def butler(self) -> Butler:
        """The Butler itself, for what only reads."""
        return self._butler

    def close(self) -> None:
        """Let go of the database."""
        self._butler.close()

    def missing(self, descriptions: Iterable[Description]) -> list[str | None]:
        """Return, for each description, the prerequisite that the repository lacks, or None.

        What is lacking is looked up once more per call: an operator may just have registered it.
        """
        looked_up: set[str] = set()
        return [self._missing(description, looked_up) for description in descriptions]

    def _missing(self, description: Description, looked_up: set[str]) -> str | None:
        instrument = description.instrument
        name = instrument.name
        lacks = self._lacks(description)
        if lacks is not None and name not in looked_up:
            looked_up.add(name)
            self._look_up(instrument)
            lacks = self._lacks(description)
        return lacks

    def _lacks(self, description: Description) -> str | None:
        name = description.instrument.name
        registered = self._registered.get(name)
        if registered is None:
            return f"instrument={name}"
        if description.data_id["detector"] not in registered.detectors:
            return f"instrument={name},detector={description.data_id['detector']}"
        for record in description.records.values():
            physical_filter = record.get("physical_filter")
            if physical_filter is not None and physical_filter not in registered.physical_filters:
                return f"instrument={name},physical_filter={physical_filter}"
        return None

    def _look_up(self, instrument: InstrumentMap) -> None:
        def known(element: str, **data_id: str) -> list[Any]:
            found = self._butler.query_dimension_records(element, data_id=data_id, explain=False, limit=None)
            return list(found)

        name = instrument.name
        if name not in {record.name for record in known("instrument")}:
            return
        registered = self._registered.get(name)
        if registered is None:
            self._require_columns(instrument)
            dataset_type = register_dataset_type(self._butler, instrument)
            registered = _Registered(dataset_type, self._formatter(instrument, dataset_type))
            self._registered[name] = registered
        registered.detectors = {record.id for record in known("detector", instrument=name)}
        registered.physical_filters = {record.name for record in known("physical_filter", instrument=name)}

    def _require_columns(self, instrument: InstrumentMap) -> None:
        universe = self._butler.dimensions
        if universe.namespace != instrument.universe.namespace:
            cause = f"its universe is {universe.namespace}, the map of {instrument.name} is for another"
            raise UnsuitableRepository(self._repository, cause)
        for element, columns in instrument.records.items():
            known = set(universe[element].RecordClass.fields.names) if element in universe else set()
            if unknown := set(columns) - known:
                cause = f"its universe {universe.version} has no {element}.{', '.join(sorted(unknown))}"
                raise UnsuitableRepository(self._repository, cause)

    def _formatter(self, instrument: InstrumentMap, dataset_type: DatasetType) -> type | None:
        """Return the formatter for the storage class that the repository has; None leaves it to the Butler."""
        name = instrument.dataset_type.formatters.get(dataset_type.storageClass_name)
        if name is None:
            return None
        try:
            formatter: type = doImportType(name)
        except ImportError as error:
            cause = f"{dataset_type.storageClass_name} needs {name}. Install the observatory's package."
            raise UnsuitableRepository(self._repository, cause) from error
        return formatter

    def candidate(self, file: ArrivalFile, description: Description) -> Candidate:
        """Return a file made ready; its prerequisites must be there.

        Raises
        ------
        ValueError
            If its URI is not absolute.
        """
        dataset_type = self._registered[description.instrument.name].dataset_type
        dimensions = dataset_type.dimensions
        values = tuple(description.data_id[dimension] for dimension in dimensions.required)
        data_id = DataCoordinate.from_required_values(dimensions, values)
        ref = DatasetRef(
            dataset_type,
            data_id,
            run=description.instrument.dataset_type.run,
            id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN,
        )
        path = ResourcePath(file.uri, forceAbsolute=False, forceDirectory=False)
        if not path.isabs():
            raise ValueError(f"{file.uri} is not an absolute URI")
        records = {
            (element, str(record["instrument"]), _own_key(record)): record
            for element, record in description.records.items()
        }
        return Candidate(file, path, ref, description, records)

    def stored(self, candidates: Sequence[Candidate]) -> dict[UUID, private.StoredFile]:
        """Return what the datastore has of the candidates' datasets, in one query per few thousand."""
        return private.stored_files(self._butler, [candidate.ref for candidate in candidates])

    def write(self, candidates: Sequence[Candidate]) -> None:
        """Insert the records and ingest the files of a batch, all or nothing.

        Raises
        ------
        RecordsDiffer
            If the repository has other records; nothing was written.
        lsst.daf.butler.registry.ConflictingDefinitionError
            If the datastore has one of them already (`stored` tells what).
        """
        records: dict[RecordKey, Record] = {}
        for candidate in candidates:
            records.update(candidate.records)
        datasets = [
            FileDataset(
                candidate.path,
                [candidate.ref],
                formatter=self._registered[candidate.description.instrument.name].formatter,
            )
            for candidate in candidates
        ]
        sizes = {str(candidate.path): candidate.file.bytes for candidate in candidates}
        with private.known_sizes(sizes), self._butler.transaction():
            self._insert(records)
            if differences := self._differences(records):
                raise RecordsDiffer(differences)
            # Not skip_existing: what another writer has put there meanwhile may be another file.
            self._butler.ingest(*datasets, transfer=self._transfer)

    def _insert(self, records: Mapping[RecordKey, Record]) -> None:
        by_element: dict[str, list[Any]] = {}
        universe = self._butler.dimensions
        # Sorted, so that two writers take the same rows in the same order.
        for key in sorted(records, key=lambda key: (key[1], str(key[2]))):
            element = universe[key[0]]
            by_element.setdefault(key[0], []).append(element.RecordClass(**_butler_values(records[key])))
        for element in universe.sorted(by_element):
            self._butler.registry.insertDimensionData(element, *by_element[element.name], skip_existing=True)

    def _differences(self, records: Mapping[RecordKey, Record]) -> dict[RecordKey, str]:
        """Compare with what the repository now has: an insert that skips hides what differs."""
        differences: dict[RecordKey, str] = {}
        groups: dict[tuple[str, str], list[RecordKey]] = {}
        for key, record in records.items():
            if len(record) > 2:  # more than its own key and the instrument's
                groups.setdefault(key[:2], []).append(key)
        for (element, instrument), keys in groups.items():
            for start in range(0, len(keys), QUERY_CHUNK):
                chunk = [key[2] for key in keys[start : start + QUERY_CHUNK]]
                for found in self._butler.query_dimension_records(
                    element,
                    data_id={"instrument": instrument},
                    where=f"{element} IN (:keys)",
                    bind={"keys": chunk},
                    explain=False,
                    limit=None,
                ):
                    key = (element, instrument, found.dataId[element])
                    if difference := _difference(records[key], found):
                        differences[key] = difference
        return differences


def _own_key(record: Record) -> str | int:
    key = record["id"] if "id" in record else record["name"]
    if not isinstance(key, str | int):
        raise TypeError(f"{key!r} is no key")
    return key


def _butler_values(record: Record) -> dict[str, Any]:
    return {
        column: private.timespan(value) if isinstance(value, TaiSpan) else value
        for column, value in record.items()
    }


def _difference(record: Record, found: Any) -> str | None:
    """Return the columns in which a repository's record is another, as a sentence; None if in none."""
    different = []
    for column, wanted in record.items():
        has: Any = getattr(found, column)
        if isinstance(has, Timespan):
            has = private.tai_span(has)
        if not _same(wanted, has):
            different.append(f"{column} is {has!r}, the file says {wanted!r}")
    return "; ".join(different) or None


def _same(wanted: Value, has: Any) -> bool:
    if isinstance(wanted, float) and isinstance(has, float | int):
        return math.isclose(wanted, has, rel_tol=1e-9, abs_tol=1e-12)
    return bool(wanted == has)
