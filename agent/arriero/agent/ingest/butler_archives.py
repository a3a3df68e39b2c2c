"""Files that describe others: exports and dimension-record files as YAML, and zips with an index of their own.

Why it exists: the Butler reads all three, each by a call that opens its own transaction, cannot be repeated
(`import_`), and looks at the storage while it holds locks. Here the Butler's own readers only read; what they found
goes the way of every other file. Old universes are migrated by those readers.
"""

from __future__ import annotations

import io
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from urllib.parse import quote

import yaml
from lsst.daf.butler import Butler, DatasetRef, YamlRepoImportBackend
from lsst.utils import doImportType

from arriero.agent.ingest import butler_private as private
from arriero.agent.ingest.butler_errors import BUTLER_ERRORS, Failure, classify, sentence
from arriero.agent.ingest.butler_formatters import placeholder
from arriero.agent.ingest.butler_records import columns_of
from arriero.agent.ingest.butler_resources import read_start, size_of
from arriero.agent.ingest.drafts import Artifact, Collections, Columns, Dataset, Draft, Order, TypeOfDataset
from arriero.agent.ingest.errors import BadDescription, FileVanished, StorageUnavailable, WaitsFor
from arriero.agent.ingest.models import ArrivalFile

LARGEST = 256 * 1024 * 1024
"""Bytes of the largest export that is read into memory."""

SIZES_AT_ONCE = 16


def export_draft(file: ArrivalFile, butler: Butler, order: Order) -> Draft:
    """Return what an export, or a file of dimension records, says.

    Paths in it are relative to its own directory, or to where its scope begins at the RSE (``butler import
    DIRECTORY --export-file FILE`` leaves that to whoever calls it).

    Raises
    ------
    BadDescription
        If it is not an export, or its records do not suit the repository's universe.
    WaitsFor
        If a file that it names is not there yet.
    """
    content = read_start(file.uri, LARGEST)[0].decode("utf-8", "replace")
    parsed = _parsed(file, content, butler)
    artifacts = [
        (dataset.path, dataset.refs, dataset.formatter)
        for found in parsed.datasets.values()
        for dataset in found
    ]
    placed = _placed(file, [str(path) for path, *_ in artifacts])
    return Draft(
        file,
        order,
        tuple(
            Artifact(uri, size, tuple(map(dataset_of, refs)), _formatters(formatter))
            for (_, refs, formatter), (uri, size) in zip(artifacts, placed, strict=True)
        ),
        {
            element.name: [columns_of(record) for record in records]
            for element, records in parsed.dimensions.items()
            if records
        },
        strict=order is Order.RECORDS,
        collections=Collections(
            {**dict.fromkeys(parsed.runs, "RUN"), **{n: t.name for n, t in parsed.collections.items()}},
            dict(parsed.chains),
            dict(parsed.tagAssociations),
            {name: list(spans.items()) for name, spans in parsed.calibAssociations.items()},
        ),
    )


def zip_draft(file: ArrivalFile, butler: Butler) -> Draft:
    """Return what the index of a Butler's zip says.

    Raises
    ------
    BadDescription
        If it is no zip, or has no index.
    """
    try:
        refs = private.zip_refs(file.uri, butler.dimensions)
    except FileNotFoundError as error:
        raise FileVanished(file.uri) from error
    except OSError as error:
        raise StorageUnavailable(file.uri, sentence(error)) from error
    except (zipfile.BadZipFile, LookupError, ValueError, EOFError) as error:
        raise BadDescription(file.name, f"it is no zip of a Butler ({sentence(error)})") from error
    records: dict[str, dict[Any, Columns]] = {}
    for ref in refs:
        if ref.dataId.hasRecords():
            for element in ref.dataId.dimensions.elements:
                record = ref.dataId.records[element]
                if record is not None and butler.dimensions[element].has_own_table:
                    records.setdefault(element, {})[record.dataId] = columns_of(record)
    return Draft(
        file,
        Order.ARCHIVE,
        (Artifact(file.uri, None, tuple(map(dataset_of, refs))),),
        {element: list(found.values()) for element, found in records.items()},
        strict=False,
        is_zip=True,
    )


def dataset_of(ref: DatasetRef) -> Dataset:
    """Return a reference in plain values; its id is kept."""
    dataset_type = ref.datasetType
    return Dataset(
        TypeOfDataset(
            dataset_type.name,
            tuple(dataset_type.dimensions.required),
            dataset_type.storageClass_name,
            dataset_type.isCalibration(),
        ),
        ref.run,
        dict(ref.dataId.required),
        ref.id,
    )


def _parsed(file: ArrivalFile, content: str, butler: Butler) -> YamlRepoImportBackend:
    try:
        names = _formatter_names(yaml.safe_load(content))
    except (yaml.YAMLError, RecursionError, TypeError) as error:
        raise BadDescription(file.name, f"it is not the YAML of an export ({sentence(error)})") from error
    try:
        with _importable(names), warnings.catch_warnings():
            # Days of universes before 6 have no time span; the Butler's reader warns of each file.
            warnings.simplefilter("ignore")
            return YamlRepoImportBackend(io.StringIO(content), butler)
    except BUTLER_ERRORS as error:
        if classify(error) is Failure.UNAVAILABLE:
            raise
        raise BadDescription(file.name, f"it cannot be imported here ({sentence(error)})") from error


def _formatter_names(content: Any) -> set[str]:
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise TypeError("it has no list 'data'")
    return {
        record["formatter"]
        for item in content["data"]
        if isinstance(item, dict) and item.get("type") == "dataset"
        for record in item.get("records", ())
        if isinstance(record, dict) and isinstance(record.get("formatter"), str)
    }


@contextmanager
def _importable(names: Iterable[str]) -> Iterator[None]:
    """Let the Butler's reader find formatters of packages that are not installed; it only keeps their names."""
    made = []
    for name in names:
        module, _, attribute = name.rpartition(".")
        try:
            doImportType(name)
        except (ImportError, TypeError):
            if module and module not in sys.modules:
                sys.modules[module] = ModuleType(module)
                made.append(module)
            if module in made:
                setattr(sys.modules[module], attribute, placeholder(name))
    try:
        yield
    finally:
        for module in made:
            del sys.modules[module]


def _formatters(formatter: Any) -> Mapping[str, str]:
    return {} if formatter is None else {"*": f"{formatter.__module__}.{formatter.__qualname__}"}


def _placed(file: ArrivalFile, paths: Sequence[str]) -> list[tuple[str, int]]:
    """Return URI and size of each path, in the first of the places where the first of them is."""
    if not paths:
        return []
    own, root = file.uri.rpartition("/")[0], file.uri.removesuffix(quote(file.name)).rstrip("/")
    roots = dict.fromkeys((own, root))
    first = next((r for r in roots if size_of(_joined(r, paths[0])) is not None), None)
    if first is None:
        raise WaitsFor(f"file={_joined(root, paths[0])}", f"{file.name} names {paths[0]}, which is not there")
    uris = [_joined(first, path) for path in paths]
    return sizes_of(file, uris)


def sizes_of(file: ArrivalFile, uris: Sequence[str]) -> list[tuple[str, int]]:
    """Return URIs with their sizes in bytes, asked of the storage, several at once.

    Raises
    ------
    WaitsFor
        If one is not there.
    """
    with ThreadPoolExecutor(SIZES_AT_ONCE) as pool:
        sizes = list(pool.map(size_of, uris))
    placed = []
    for uri, size in zip(uris, sizes, strict=True):
        if size is None:
            raise WaitsFor(f"file={uri}", f"{file.name} names {uri}, which is not there")
        placed.append((uri, size))
    return placed


def _joined(root: str, path: str) -> str:
    return path if "://" in path else f"{root}/{path.lstrip('/')}"
