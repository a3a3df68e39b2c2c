"""What one Butler has, seen from beside the ledger: datasets and their files, who protects them, taking them out.

Why it exists: release, reconcile, completeness and waking ask a Butler other things than the ingest does, and two of them
take datasets out of it. What may be taken out is decided elsewhere, but for one thing: a file that the Butler would
delete itself is never handed to it (DESIGN section 8). It asks the Butler's database, never the storage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

import structlog
from lsst.daf.butler import Butler, CollectionType, DatasetRef
from lsst.resources import ResourcePath

from arriero.agent.ingest import butler_private as private
from arriero.agent.ingest.butler_errors import BUTLER_ERRORS, Failure, classify, sentence
from arriero.agent.ingest.butler_repository import open_repository
from arriero.agent.ingest.butler_resources import size_of
from arriero.agent.ingest.errors import (
    ButlerUnavailable,
    StorageUnavailable,
    UnreadableUri,
    UnsuitableRepository,
)
from arriero.registry.pages import pages_of

log = structlog.get_logger(__name__)

CHUNK = 1000
"""Datasets of one query."""

SIZES_AT_ONCE = 16

_PROTECTING = {CollectionType.TAGGED, CollectionType.CALIBRATION}


@dataclass(frozen=True, slots=True)
class Stored:
    """A dataset of a Butler and the file that it refers to."""

    dataset_id: UUID
    dataset_type: str
    run: str
    uri: str | None
    """Absolute URI without a fragment; None: the datastore has no file of it."""
    own: bool = False
    """Recorded relative to the datastore: a purge deletes it."""
    bytes: int = -1
    """-1: not recorded."""
    part: bool = False
    """One of several in a file."""


def sizes(uris: Iterable[str]) -> dict[str, int | None]:
    """Ask the storages for the sizes of files, as the Butler reads them.

    Returns
    -------
    dict
        Bytes by URI; None: it is not there. What could not be asked is left out.
    """
    found: dict[str, int | None] = {}
    with ThreadPoolExecutor(SIZES_AT_ONCE, thread_name_prefix="size") as pool:
        asked = {uri: pool.submit(size_of, uri) for uri in dict.fromkeys(uris)}
        for uri, future in asked.items():
            try:
                found[uri] = future.result()
            except (StorageUnavailable, UnreadableUri) as error:
                log.warning("storage not asked", uri=uri, reason=str(error))
    return found


def plain_uri(uri: str) -> str:
    """Write a URI as the Butler records it: absolute, with a scheme, without a fragment."""
    return str(ResourcePath(uri, forceDirectory=False).replace(fragment=""))


class ButlerContents:
    """One Butler repository, open.

    Parameters
    ----------
    repository
        Its directory or ``butler.yaml``.
    writeable
        Whether datasets will be taken out.

    Raises
    ------
    ButlerUnavailable
        Repository or database cannot be reached.
    UnsuitableRepository
        It is another kind of repository.
    """

    def __init__(self, repository: str, *, writeable: bool = False) -> None:
        self._repository = repository
        with self._told():
            self._butler: Butler = open_repository(repository, writeable=writeable)
            self._roots = [str(root) for root in self._butler.get_datastore_roots().values() if root]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._butler.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what the Butler's exceptions mean."""
        try:
            yield
        except BUTLER_ERRORS as error:
            if classify(error) is Failure.UNAVAILABLE or isinstance(error, OSError):
                raise ButlerUnavailable(self._repository, sentence(error)) from error
            raise UnsuitableRepository(self._repository, sentence(error)) from error

    @property
    def universe(self) -> str:
        """Name and version of the dimension universe."""
        return f"{self._butler.dimensions.namespace} {self._butler.dimensions.version}"

    def stored(self, ids: Iterable[UUID]) -> dict[UUID, Stored]:
        """Return what the Butler has of datasets, by id; those that it does not have are left out."""
        found: dict[UUID, Stored] = {}
        with self._told():
            for chunk in pages_of(dict.fromkeys(ids), CHUNK):
                found.update((one.dataset_id, one) for one in self._files(self._refs(chunk)))
        return found

    def _refs(self, ids: Sequence[UUID]) -> list[DatasetRef]:
        return list(self._butler.get_many_datasets(ids))

    def _files(self, refs: Sequence[DatasetRef]) -> Iterator[Stored]:
        records = private.stored_files(self._butler, refs)
        for ref in refs:
            record = records.get(ref.id)
            if record is None:
                yield Stored(ref.id, ref.datasetType.name, ref.run, None)
                continue
            path = ResourcePath(record.path, forceAbsolute=False, forceDirectory=False)
            own = not path.isabs()
            part = bool(path.fragment)
            uri = (
                str(ResourcePath(self._roots[0], forceDirectory=True).join(record.path))
                if own
                else record.path
            )
            yield Stored(
                ref.id,
                ref.datasetType.name,
                ref.run,
                plain_uri(uri),
                own,
                -1 if part else record.bytes,
                part,
            )

    def pages(self, size: int = CHUNK) -> Iterator[list[Stored]]:
        """Go through all datasets that have files, page by page; memory is that of one page."""
        with self._told():
            infos = self._butler.collections.query_info(
                "*", collection_types=CollectionType.RUN, include_summary=True
            )
            runs: dict[str, list[str]] = defaultdict(list)
            for info in infos:
                for name in info.dataset_types or ():
                    runs[name].append(info.name)
            for name, collections in sorted(runs.items()):
                with self._butler.query() as query:
                    refs = query.datasets(name, collections=sorted(collections), find_first=False)
                    for chunk in pages_of(refs, size):
                        yield [one for one in self._files(chunk) if one.uri is not None]

    def in_files(self, uris: Iterable[str]) -> dict[str, list[Stored]]:
        """Return the datasets in files, by URI; it goes through all that the Butler has."""
        wanted = set(uris)
        found: dict[str, list[Stored]] = defaultdict(list)
        for page in self.pages() if wanted else ():
            for one in page:
                if one.uri in wanted:
                    found[one.uri].append(one)
        return found

    def protected(self, datasets: Iterable[Stored]) -> dict[UUID, list[str]]:
        """Return by id the TAGGED and CALIBRATION collections that datasets are in; those in none are left out."""
        by_type: dict[str, list[UUID]] = defaultdict(list)
        for one in datasets:
            by_type[one.dataset_type].append(one.dataset_id)
        found: dict[UUID, list[str]] = defaultdict(list)
        if not by_type:
            return found
        with self._told():
            infos = self._butler.collections.query_info(
                "*",
                collection_types=_PROTECTING,
                include_summary=True,
                summary_datasets=sorted(by_type),
            )
            for info in sorted(infos, key=lambda info: info.name):
                for name in sorted(set(info.dataset_types or ()) & by_type.keys()):
                    for id_ in self._members(name, info.name, by_type[name]):
                        found[id_].append(info.name)
        return found

    def _members(self, dataset_type: str, collection: str, ids: Sequence[UUID]) -> set[UUID]:
        members: set[UUID] = set()
        with self._butler.query() as query:
            refs = query.datasets(dataset_type, collections=[collection], find_first=False)
            column = query.expression_factory[dataset_type].dataset_id
            for chunk in pages_of(ids, CHUNK):
                members.update(ref.id for ref in refs.where(column.in_iterable(chunk)))
        return members

    def remove(self, ids: Iterable[UUID]) -> None:
        """Take datasets out of the Butler for good, out of every collection; files that are not its own stay.

        Raises
        ------
        UnsuitableRepository
            The Butler refuses.
        """
        with self._told():
            refs = self._refs(list(ids))
            if refs:
                self._butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)

    def unstore(self, ids: Iterable[UUID]) -> None:
        """Have the Butler forget the files of datasets, which it goes on to know with their ids and tags."""
        with self._told():
            refs = self._refs(list(ids))
            if refs:
                self._butler.pruneDatasets(refs, disassociate=False, unstore=True)

    def present(self, prerequisites: Iterable[str]) -> set[str]:
        """Return which prerequisites (``instrument=X,exposure=1``) the Butler has; of others nothing is said."""
        found: set[str] = set()
        groups: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, str]] = defaultdict(dict)
        for text in prerequisites:
            pairs = [pair.partition("=")[::2] for pair in text.split(",")]
            if all(key in self._butler.dimensions for key, _ in pairs):
                element, value = pairs[-1]
                groups[element, tuple(sorted(pairs[:-1]))][value] = text
        with self._told():
            if groups:
                # it keeps instruments and detectors, and does not see those that others register
                self._butler.registry.refresh()
            for (element, rest), wanted in groups.items():
                known = self._keys(element, dict(rest))
                found.update(text for value, text in wanted.items() if value in known)
        return found

    def _keys(self, element: str, data_id: Mapping[str, str]) -> set[str]:
        """Keys, and full names, of the records of an element."""
        try:
            records = self._butler.query_dimension_records(
                element, data_id=data_id, explain=False, limit=None
            )
        except (LookupError, ValueError):
            return set()
        keys: set[str] = set()
        for record in records:
            keys.add(str(record.dataId[element]))
            full_name: Any = getattr(record, "full_name", None)
            if full_name is not None:
                keys.add(str(full_name))
        return keys

    def detectors(
        self, dataset_type: str, run: str, *, instrument: str, day_obs: int
    ) -> dict[str, tuple[str, set[int]]]:
        """Return the exposures of a day and the detectors that the Butler has of each.

        Returns
        -------
        dict
            By exposure (its id as text): its ``obs_id`` and the ids of detectors. An exposure of which only the record
            is there has none.
        """
        with self._told():
            found: dict[str, tuple[str, set[int]]] = {}
            records = self._butler.query_dimension_records(
                "exposure",
                where="instrument = :name AND exposure.day_obs = :day",
                bind={"name": instrument, "day": day_obs},
                explain=False,
                limit=None,
            )
            for record in records:
                found[str(record.dataId["exposure"])] = (str(getattr(record, "obs_id", "")), set())
            with self._butler.query() as query:
                refs = query.datasets(dataset_type, collections=[run], find_first=False).where(
                    "instrument = :name AND exposure.day_obs = :day",
                    bind={"name": instrument, "day": day_obs},
                )
                for ref in refs:
                    exposure = str(ref.dataId["exposure"])
                    found.setdefault(exposure, ("", set()))[1].add(int(ref.dataId["detector"]))
            return found
