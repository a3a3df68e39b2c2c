"""One open Butler: what it has, what it needs first, and one transaction that writes a batch.

Why it exists: the writer decides what to do with a batch and its failures; this knows how a draft becomes
references and dimension records, and puts both into the Butler in one transaction without asking the storage.
It does not retry and does not split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import structlog
from lsst.daf.butler import (
    Butler,
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    FileDataset,
)
from lsst.resources import ResourcePath
from lsst.utils import doImportType

from arriero.agent.ingest import butler_private as private
from arriero.agent.ingest.butler_candidates import Candidate, Placed, Prepared, RecordsDiffer
from arriero.agent.ingest.butler_collections import associate, register_collections
from arriero.agent.ingest.butler_errors import BUTLER_ERRORS, Failure, classify, sentence
from arriero.agent.ingest.butler_expansion import Expander
from arriero.agent.ingest.butler_formatters import placeholder
from arriero.agent.ingest.butler_records import (
    RecordKey,
    RecordKeys,
    decoded,
    different_records,
    found_records,
    insert_records,
    made_records,
)
from arriero.agent.ingest.butler_repository import open_repository, registered_type
from arriero.agent.ingest.butler_visits import VisitDefiner
from arriero.agent.ingest.butler_whole import whole_exposures
from arriero.agent.ingest.drafts import Artifact, Columns, Dataset, Draft, TypeOfDataset
from arriero.agent.ingest.errors import BadDescription, ButlerUnavailable, UnsuitableRepository
from arriero.agent.ingest.file_map import FileMap
from arriero.agent.ingest.instrument import InstrumentMap

log = structlog.get_logger(__name__)

MOST_KNOWN = 200_000
"""Keys of records that are remembered as there; some 40 MB."""

MOST_AGREED = 5_000
"""Records of which the values are remembered too; some 10 MB."""


_Keyed = tuple[Mapping[RecordKey, Columns], tuple[RecordKey, ...]]


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
        self._types: dict[TypeOfDataset, DatasetType] = {}
        self._formatters: dict[tuple[str, str | None], type | None] = {}
        self._runs: set[str] = set()
        # Records that the repository had with the same values: the next file of the exposure need not ask again.
        self._agreed: dict[RecordKey, Columns] = {}
        self._required: set[str] = set()
        self._visits: dict[str, VisitDefiner] = {}
        try:
            self._butler = open_repository(repository, writeable=True)
        except BUTLER_ERRORS as error:
            if classify(error) is Failure.UNAVAILABLE or isinstance(error, OSError):
                raise ButlerUnavailable(repository, sentence(error)) from error
            raise UnsuitableRepository(repository, sentence(error)) from error
        try:
            private.trust(self._butler)
            self._expander = Expander(self._butler)
        except TypeError as error:
            self.close()
            raise UnsuitableRepository(repository, str(error)) from error
        except BaseException:
            self.close()
            raise
        self._known = set(self._expander.fixed)
        self.keys = RecordKeys(self._butler.dimensions)

    @property
    def butler(self) -> Butler:
        """The Butler itself, for what only reads."""
        return self._butler

    def close(self) -> None:
        """Let go of the database."""
        self._butler.close()

    def require(self, instrument: InstrumentMap, files: FileMap) -> None:
        """Check that the repository's universe is the one that a declaration is written for.

        Raises
        ------
        UnsuitableRepository
            If it is another.
        """
        if files.file_name in self._required:
            return
        universe = self._butler.dimensions
        if universe.namespace != instrument.universe.namespace:
            cause = f"its universe is {universe.namespace}, the map of {instrument.name} is for another"
            raise UnsuitableRepository(self._repository, cause)
        for element, columns in files.records.items():
            known = set(universe[element].RecordClass.fields.names) if element in universe else set()
            if unknown := set(columns) - known:
                cause = f"its universe {universe.version} has no {element}.{', '.join(sorted(unknown))}"
                raise UnsuitableRepository(self._repository, cause)
        self._required.add(files.file_name)

    def prepare(self, drafts: Sequence[Draft]) -> list[Prepared | BadDescription]:
        """Return drafts with the keys of what they bring and need, or why they cannot be used."""
        # The files of an exposure share one mapping of records.
        shared: dict[int, _Keyed] = {}
        prepared: list[Prepared | BadDescription] = []
        for draft in drafts:
            try:
                keyed = shared.get(id(draft.records)) or shared.setdefault(
                    id(draft.records), self._keyed(draft)
                )
                needs = dict.fromkeys(
                    key
                    for artifact in draft.artifacts
                    for dataset in artifact.datasets
                    for key in self.keys.of_data_id(dataset.type.dimensions, dataset.data_id)
                    if key not in keyed[0]
                )
                needs.update(dict.fromkeys(keyed[1]))
                prepared.append(Prepared(draft, keyed[0], tuple(needs)))
            except (LookupError, TypeError, ValueError) as error:
                cause = f"it does not suit this universe ({sentence(error)})"
                prepared.append(BadDescription(draft.file.name, cause))
        return prepared

    def _keyed(self, draft: Draft) -> _Keyed:
        universe = self._butler.dimensions
        keyed: dict[RecordKey, Columns] = {}
        for element, records in draft.records.items():
            if self.keys.has_table(element):
                for record in records:
                    columns = record if draft.strict else decoded(universe, element, record)
                    keyed[self.keys.own(element, columns)] = columns
        needs = dict.fromkeys(
            key
            for (element, _), columns in keyed.items()
            for key in self.keys.needs(element, columns)
            if key not in keyed
        )
        return keyed, tuple(needs)

    def missing(self, prepared: Sequence[Prepared]) -> list[str | None]:
        """Return, for each, the prerequisite that neither the repository has nor another of them brings.

        What is lacking is looked up once more per call: an operator may just have registered it.
        """
        if len(self._known) > MOST_KNOWN:
            self._known = set(self._expander.fixed)
        lacking = {key for one in prepared for key in one.needs} - self._known
        if any(self._butler.dimensions[element].is_cached for element, _ in lacking):
            # The Butler keeps instruments, detectors and filters, and does not see those that others register.
            self._butler.registry.refresh()
            self._expander.refresh()
            self._known.update(self._expander.fixed)
            lacking -= self._known
        if lacking:
            self._known.update(found_records(self._butler, lacking))
        waits: list[str | None] = [None] * len(prepared)
        while True:
            # What a parked file would have brought is not there for the others either.
            brought = {
                key for one, parked in zip(prepared, waits, strict=True) if not parked for key in one.records
            }
            again = False
            for place, one in enumerate(prepared):
                if waits[place] is None and (
                    lacks := next((k for k in one.needs if k not in self._known and k not in brought), None)
                ):
                    waits[place], again = self.keys.named(lacks), True
            if not again:
                return waits

    def candidate(self, prepared: Prepared) -> Candidate:
        """Return a draft made ready: its types, runs and collections are registered.

        Raises
        ------
        ValueError
            If a URI is not absolute, or the repository's dataset type has other dimensions.
        """
        draft = prepared.draft
        if draft.collections is not None:
            register_collections(self._butler, draft.collections)
        placed = tuple(self._place(artifact) for artifact in draft.artifacts)
        return Candidate(prepared, placed, placed[0].ids[0] if placed else None, _several(draft, placed))

    def _place(self, artifact: Artifact) -> Placed:
        path = ResourcePath(artifact.uri, forceAbsolute=False, forceDirectory=False)
        if not path.isabs():
            raise ValueError(f"{artifact.uri} is not an absolute URI")
        refs = tuple(map(self._ref, artifact.datasets))
        formatter = self._formatter(artifact.formatters, refs[0].datasetType)
        return Placed(path, str(path), refs, tuple(ref.id for ref in refs), formatter, artifact.bytes)

    def _ref(self, dataset: Dataset) -> DatasetRef:
        dataset_type = self._type(dataset.type)
        dimensions = dataset_type.dimensions
        values = tuple(dataset.data_id[dimension] for dimension in dimensions.required)
        data_id = DataCoordinate.from_required_values(dimensions, values)
        if dataset.run not in self._runs:
            self._butler.collections.register(dataset.run)
            self._runs.add(dataset.run)
        mode = DatasetIdGenEnum.DATAID_TYPE_RUN
        return DatasetRef(
            dataset_type, data_id, run=dataset.run, id=dataset.id, id_generation_mode=mode, conform=False
        )

    def _type(self, wanted: TypeOfDataset) -> DatasetType:
        known = self._types.get(wanted)
        if known is not None:
            return known
        known = registered_type(self._butler, wanted)
        if known.dimensions.required != self._butler.dimensions.conform(wanted.dimensions).required:
            has = ", ".join(known.dimensions.required)
            raise ValueError(
                f"{wanted.name} has the dimensions {has} here, not {', '.join(wanted.dimensions)}"
            )
        self._types[wanted] = known
        return known

    def _formatter(self, formatters: Mapping[str, str], dataset_type: DatasetType) -> type | None:
        """Return the formatter for the storage class that the repository has; None leaves it to the Butler."""
        declared = formatters.get(dataset_type.storageClass_name)
        name = declared or formatters.get("*")
        key = (dataset_type.name, name)
        if key not in self._formatters:
            named = name or private.formatter_name(self._butler, dataset_type)
            try:
                formatter: type | None = None if named is None else doImportType(named)
            except ImportError as error:
                if declared is not None:
                    cause = (
                        f"{dataset_type.storageClass_name} needs {name}. Install the observatory's package."
                    )
                    raise UnsuitableRepository(self._repository, cause) from error
                formatter = placeholder(str(named))
            self._formatters[key] = formatter
        return self._formatters[key]

    def whole(self, instrument: InstrumentMap, detectors: Mapping[int, set[int]]) -> dict[int, int]:
        """Return the exposures that are whole here (see `whole_exposures`)."""
        return whole_exposures(self._butler, instrument, detectors)

    def visits(self, instrument: InstrumentMap) -> VisitDefiner:
        """Return what defines the visits of an instrument here."""
        if instrument.name not in self._visits:
            self._visits[instrument.name] = VisitDefiner(self._butler, instrument)
        return self._visits[instrument.name]

    def stored(self, candidates: Sequence[Candidate]) -> dict[UUID, private.StoredFile]:
        """Return what the datastore has of the candidates' datasets, in one query per few thousand."""
        return private.stored_files(self._butler, [ref for c in candidates for ref in c.refs])

    def write(self, candidates: Sequence[Candidate], *, new: bool) -> None:
        """Insert the records and ingest the files of a batch, all or nothing.

        Parameters
        ----------
        new
            Believe that the registry has none of the datasets; it is faster, and in conflict if one is there.

        Raises
        ------
        RecordsDiffer
            If the repository has other records; nothing was written.
        lsst.daf.butler.registry.ConflictingDefinitionError
            If the datastore has one of them already (`stored` tells what), or the registry although they are `new`.
        """
        own: dict[RecordKey, Columns] = {}
        others: dict[RecordKey, Columns] = {}
        for candidate in candidates:
            (own if candidate.draft.strict else others).update(candidate.records)
        others = {key: record for key, record in others.items() if key not in own}
        made = made_records(self._butler.dimensions, {**others, **own})
        placed = [p for c in candidates if not c.draft.is_zip for p in c.placed]
        expanded = self._expander.expanded
        datasets = [
            FileDataset(p.path, [expanded(ref, made) for ref in p.refs], formatter=p.formatter)
            for p in placed
        ]
        sizes = {p.uri: p.bytes for p in placed if p.bytes is not None}
        with private.known_sizes(sizes), private.all_new(new), self._butler.transaction():
            there = insert_records(self._butler, made)
            doubtful = {k: v for k, v in own.items() if k[0] in there and self._agreed.get(k) != v}
            if differences := different_records(self._butler, doubtful):
                raise RecordsDiffer(differences)
            # Not skip_existing: what another writer has put there meanwhile may be another file.
            if datasets:
                self._butler.ingest(*datasets, transfer=self._transfer)
            for candidate in candidates:
                if candidate.draft.is_zip:
                    self._butler.ingest_zip(candidate.placed[0].path, transfer=self._transfer)
                if candidate.draft.collections is not None:
                    associate(self._butler, candidate.draft.collections, candidate.refs)
        self._known.update(own, others)
        if len(self._agreed) > MOST_AGREED:
            self._agreed.clear()
        self._agreed.update(own)


def _several(draft: Draft, placed: Sequence[Placed]) -> tuple[UUID, ...]:
    """Return the datasets that a file holds, where there are several; what it tells of other files is theirs."""
    if len(placed) != 1 or len(placed[0].refs) < 2 or draft.artifacts[0].uri != draft.file.uri:
        return ()
    return placed[0].ids
