"""The private Butler API that the ingest cannot do without; nothing else in Arriero touches any.

Why it exists: `Butler.ingest(transfer="direct")` asks the storage about each file, one after the other, within
the database transaction; the catalogue has just verified existence and size, so those requests only hold locks.
Its registry puts the references into a temporary table first, to sort out those that it has; of new files it has
none. No configuration turns either off: a `datastore.cls` of one's own is ignored. Everything below is bound to
lsst-daf-butler 30.2026.4300 and proved by tests/agent/test_butler_private.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import requests
from lsst.daf.butler import (
    Butler,
    DatasetRef,
    DatasetType,
    DimensionElement,
    DimensionRecord,
    DimensionUniverse,
    Timespan,
)
from lsst.daf.butler.datastore.constraints import Constraints
from lsst.daf.butler.datastore.stored_file_info import StoredFileInfo
from lsst.daf.butler.datastores.file_datastore.retrieve_artifacts import ZipIndex
from lsst.daf.butler.datastores.fileDatastore import FileDatastore
from lsst.daf.butler.registry.sql_registry import SqlRegistry
from lsst.daf.butler.time_utils import TimeConverter
from lsst.resources import ResourcePath
from lsst.resources.http import HttpResourcePath
from typing_extensions import override

from arriero.agent.ingest.tai import TaiSpan

PATH_LENGTH = 256
"""Characters of `file_datastore_records.path`."""

MOST_BY_RANGE = 1 << 20
"""Bytes that are asked for by range; of more most likely the whole file is wanted."""

MOST_ONE_BY_ONE = 500
"""New datasets from which PostgreSQL takes them faster as a set."""

_sizes: ContextVar[Mapping[str, int] | None] = ContextVar("known sizes in bytes, by URI", default=None)

_are_new: ContextVar[bool] = ContextVar("the registry has none of these", default=False)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a datastore has recorded of a dataset's file; the size is in bytes, -1 if it was not recorded."""

    path: str
    bytes: int


class TrustingFileDatastore(FileDatastore):  # type: ignore[misc]
    """A file datastore that believes the sizes it is told, for files ingested where they are."""

    @override
    def _standardizeIngestPath(
        self, path: Any, *, transfer: str | None = None, check_existence: bool = False
    ) -> Any:
        if transfer == "direct":
            uri = _uri(path)
            if not uri.isabs():
                # It would be recorded as the datastore's own, and a purge would delete the replica.
                raise ValueError(f"a file is ingested in place by its absolute URI only, not as {path}")
            if str(uri) in (_sizes.get() or {}):
                return uri
        return super()._standardizeIngestPath(path, transfer=transfer, check_existence=check_existence)

    @override
    def _extractIngestInfo(
        self,
        path: Any,
        ref: DatasetRef,
        *,
        formatter: Any,
        transfer: str | None = None,
        record_validation_info: bool = True,
    ) -> StoredFileInfo:
        known = _sizes.get()
        if transfer == "direct" and known is not None:
            uri = str(_uri(path))
            if uri in known:
                return StoredFileInfo(
                    formatter=formatter,
                    path=uri,
                    storageClass=ref.datasetType.storageClass,
                    component=ref.datasetType.component(),
                    checksum=None,
                    file_size=known[uri],
                )
        return super()._extractIngestInfo(
            path,
            ref,
            formatter=formatter,
            transfer=transfer,
            record_validation_info=record_validation_info,
        )


class ExpectantRegistry(SqlRegistry):  # type: ignore[misc]
    """A registry that leaves it to its constraints to find what it has already, when it is told that it has nothing.

    From some hundred files PostgreSQL is faster with the temporary table, which it copies from as a set.
    """

    @override
    def _importDatasets(
        self, datasets: Iterable[DatasetRef], expand: bool = True, assume_new: bool = False
    ) -> list[DatasetRef]:
        datasets = list(datasets)
        as_set = self._db.dialect.name == "postgresql" and len(datasets) >= MOST_ONE_BY_ONE
        found: list[DatasetRef] = super()._importDatasets(
            datasets, expand=expand, assume_new=assume_new or (_are_new.get() and not as_set)
        )
        return found


class RememberedConstraints(Constraints):  # type: ignore[misc]
    """What a datastore accepts, looked up once for a dataset type and an instrument: nothing else decides."""

    @override
    def isAcceptable(self, entity: Any) -> bool:
        if not isinstance(entity, DatasetRef):
            return bool(super().isAcceptable(entity))
        kind, known = entity.datasetType, self.__dict__.setdefault("_known", {})
        key = kind.name, kind.storageClass_name, entity.dataId.get("instrument")
        accepted: bool | None = known.get(key)
        if accepted is None:
            accepted = known[key] = bool(super().isAcceptable(entity))
        return accepted


class _LastInstant:
    """Converts an instant once that every row of a batch has: the Butler takes 0.2 ms for each."""

    def __init__(self, convert: Callable[[Any], int]) -> None:
        self._convert = convert
        self._last: tuple[Any, int] = (None, 0)

    def __call__(self, instant: Any) -> int:
        last = self._last
        if instant is not last[0]:
            last = self._last = (instant, self._convert(instant))
        return last[1]


def _uri(path: Any) -> ResourcePath:
    if isinstance(path, ResourcePath):
        return path
    return ResourcePath(path, forceAbsolute=False, forceDirectory=False)


def trust(butler: Butler) -> None:
    """Make a Butler's datastore believe `known_sizes`, and its registry `all_new`.

    Raises
    ------
    TypeError
        If the repository has another kind of datastore than files, or no database of its own.
    """
    registry = butler._registry  # noqa: SLF001
    if type(registry) is SqlRegistry:
        registry.__class__ = ExpectantRegistry
    elif not isinstance(registry, ExpectantRegistry):
        raise TypeError(f"its registry is a {type(registry).__name__}, not a SqlRegistry")
    converter = TimeConverter()
    if not isinstance(converter.astropy_to_nsec, _LastInstant):
        converter.astropy_to_nsec = _LastInstant(converter.astropy_to_nsec)
    datastore = butler._datastore  # noqa: SLF001
    if type(datastore) is FileDatastore:
        # The class is named in the Butler's own code, not taken from the configuration.
        datastore.__class__ = TrustingFileDatastore
        if type(datastore.constraints) is Constraints:
            datastore.constraints.__class__ = RememberedConstraints
    elif not isinstance(datastore, TrustingFileDatastore):
        raise TypeError(f"its datastore is a {type(datastore).__name__}, not a FileDatastore")


@contextmanager
def known_sizes(sizes: Mapping[str, int]) -> Iterator[None]:
    """Say which files exist, and how big they are, while ingesting.

    Parameters
    ----------
    sizes
        URI as `str(ResourcePath(uri))` -> size in bytes.
    """
    token = _sizes.set(sizes)
    try:
        yield
    finally:
        _sizes.reset(token)


@contextmanager
def all_new(believed: bool) -> Iterator[None]:
    """Say whether the registry has none of the datasets that are ingested; if it has one, it refuses them as in conflict."""
    token = _are_new.set(believed)
    try:
        yield
    finally:
        _are_new.reset(token)


def insert_lacking(butler: Butler, element: DimensionElement, records: Sequence[DimensionRecord]) -> bool:
    """Insert those of an element's records that the repository lacks; tell whether it lacked all of them."""
    database, inserted = butler._registry._db, []  # noqa: SLF001

    def ensure(table: Any, *rows: Any, **options: Any) -> int:
        count: int = type(database).ensure(database, table, *rows, **options)
        if table.name == element.name:
            inserted.append(count)
        return count

    database.ensure = ensure
    try:
        butler.registry.insertDimensionData(element, *records, skip_existing=True)
    finally:
        del database.ensure
    return sum(inserted) == len(records)


def stored_files(butler: Butler, refs: Iterable[DatasetRef]) -> dict[UUID, StoredFile]:
    """Return what the datastore has recorded, by dataset id; it asks the database, never the storage."""
    records = butler._datastore._get_stored_records_associated_with_refs(  # noqa: SLF001
        list(refs), ignore_datastore_records=True
    )
    return {id_: StoredFile(infos[0].path, infos[0].file_size) for id_, infos in records.items() if infos}


def first_bytes(path: HttpResourcePath, size: int) -> tuple[bytes, int | None]:
    """Return up to the first `size` bytes of a file of a web server, and its whole size if the server tells it.

    `ResourcePath.read` asks for the whole file, hangs up, and begins the next one with a handshake.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    requests.exceptions.RequestException
        If the server could not be asked, or refused.
    """
    if size > MOST_BY_RANGE:
        return _begun(path, size, {})
    try:
        return _begun(path, size, {"Range": f"bytes=0-{size - 1}", "Accept-Encoding": "identity"})
    except requests.exceptions.ChunkedEncodingError:
        # XRootD 5.5.3 promises all of a range that ends beyond the file, and hangs up at its end
        return _begun(path, size, {})


def _begun(path: HttpResourcePath, size: int, headers: Mapping[str, str]) -> tuple[bytes, int | None]:
    url, timeout = path.geturl(), path._config.timeout  # noqa: SLF001
    with path.data_session.get(url, headers=headers, stream=True, timeout=timeout) as answer:
        if answer.status_code == requests.codes.not_found:
            raise FileNotFoundError(url)
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return b"", 0
        answer.raise_for_status()
        content = b""
        for piece in answer.iter_content(size):
            content += piece
            if len(content) >= size:
                break
        said = answer.headers
        total = said.get("Content-Range", said.get("Content-Length", "")).rpartition("/")[2]
        return content[:size], int(total) if total.isdecimal() and "Content-Encoding" not in said else None


def zip_refs(uri: str, universe: DimensionUniverse) -> list[DatasetRef]:
    """Return the references in the index of a Butler's zip, with their records where it has them."""
    index = ZipIndex.from_zip_file(ResourcePath(uri, forceDirectory=False))
    return list(index.refs.to_refs(universe=universe))


def formatter_name(butler: Butler, dataset_type: DatasetType) -> str | None:
    """Return the formatter that a repository names for a dataset type, also if it is not installed here."""
    factory = butler._datastore.formatterFactory._mappingFactory  # noqa: SLF001
    for key in dataset_type._lookupNames():  # noqa: SLF001
        if (entry := factory._registry.get(key)) is not None:  # noqa: SLF001
            named = entry["type"]
            return named if isinstance(named, str) else f"{named.__module__}.{named.__qualname__}"
    return None


def timespan(span: TaiSpan) -> Timespan:
    """Return a span as the Butler's, without a detour by astropy (which takes 0.2 ms for each)."""
    return Timespan(None, None, _nsec=(span.begin_ns, span.end_ns))


def tai_span(span: Timespan) -> TaiSpan:
    """Return a Butler's bounded span in nanoseconds."""
    begin, end = span.nsec
    return TaiSpan(begin, end)
