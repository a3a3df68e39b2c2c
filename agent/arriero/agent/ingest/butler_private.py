"""The private Butler API that the ingest cannot do without; nothing else in Arriero touches any.

Why it exists: `Butler.ingest(transfer="direct")` asks the storage about each file, one after the other, within
the database transaction; the catalogue has just verified existence and size, so those requests only hold locks.
No configuration turns them off: a `datastore.cls` of one's own is ignored. Everything below is bound to
lsst-daf-butler 30.2026.4300 and proved by tests/agent/test_butler_private.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from lsst.daf.butler import Butler, DatasetRef, Timespan
from lsst.daf.butler.datastore.stored_file_info import StoredFileInfo
from lsst.daf.butler.datastores.fileDatastore import FileDatastore
from lsst.resources import ResourcePath
from typing_extensions import override

from arriero.agent.ingest.transforms import TaiSpan

PATH_LENGTH = 256
"""Characters of `file_datastore_records.path`."""

_sizes: ContextVar[Mapping[str, int] | None] = ContextVar("known sizes in bytes, by URI", default=None)


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
            uri = ResourcePath(path, forceAbsolute=False, forceDirectory=False)
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
            uri = str(ResourcePath(path, forceAbsolute=False, forceDirectory=False))
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


def trust(butler: Butler) -> None:
    """Make a Butler's datastore believe `known_sizes`.

    Raises
    ------
    TypeError
        If the repository has another kind of datastore than files.
    """
    datastore = butler._datastore  # noqa: SLF001
    if type(datastore) is FileDatastore:
        # The class is named in the Butler's own code, not taken from the configuration.
        datastore.__class__ = TrustingFileDatastore
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


def stored_files(butler: Butler, refs: Iterable[DatasetRef]) -> dict[UUID, StoredFile]:
    """Return what the datastore has recorded, by dataset id; it asks the database, never the storage."""
    records = butler._datastore._get_stored_records_associated_with_refs(  # noqa: SLF001
        list(refs), ignore_datastore_records=True
    )
    return {id_: StoredFile(infos[0].path, infos[0].file_size) for id_, infos in records.items() if infos}


def timespan(span: TaiSpan) -> Timespan:
    """Return a span as the Butler's, without a detour by astropy (which takes 0.2 ms for each)."""
    return Timespan(None, None, _nsec=(span.begin_ns, span.end_ns))


def tai_span(span: Timespan) -> TaiSpan:
    """Return a Butler's bounded span in nanoseconds."""
    begin, end = span.nsec
    return TaiSpan(begin, end)
