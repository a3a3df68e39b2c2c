"""The header of a file, from the cheapest place that has it.

Why it exists: a header comes from the directory's `_index.json` (astro_metadata_translator's metadata index),
else from the file's JSON sidecar, else from the FITS file itself; and thousands are wanted at once. Whatever
the place, the file's first block is looked at, so that a file that has vanished or is not FITS is noticed
before the Butler believes in it. It must not know what the keywords mean.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import structlog
from astropy.io import fits
from astropy.io.fits.card import Undefined

from arriero.agent.ingest.butler_resources import read_extensions, read_start
from arriero.agent.ingest.errors import (
    FileVanished,
    IngestError,
    MalformedFits,
    SizeDiffers,
    StorageUnavailable,
    UnreadableUri,
)
from arriero.agent.ingest.file_map import EXTENSION_KEY
from arriero.registry.pages import pages_of

log = structlog.get_logger(__name__)

BLOCK = 2880
"""Bytes of a FITS block (FITS standard 4.0, section 3.1)."""

FIRST_READ = 12 * BLOCK
"""First request for a header; 34,560 bytes hold 432 cards, and a raw's primary header has 200 to 300."""

LONGEST_HEADER = 512 * BLOCK
LARGEST_INDEX = 64 * 1024 * 1024
INDEX_NAME: Final = "_index.json"
MAGIC = b"SIMPLE  ="
CHUNK = 8
SLOW_S = 0.0005
"""Seconds per file from which threads are worth it."""

PATIENCE_S = 0.02
"""How much longer files of this machine may take, all together, seconds: another thread at work makes some slow, too."""

Header = Mapping[str, Any]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class HeaderRequest:
    """Whose header is wanted, which size in bytes the file must have, and the keywords of interest.

    `keys` None: all of them. `extension_key` is one that all extensions are asked for, too.
    """

    uri: str
    bytes: int
    keys: tuple[str, ...] | None
    extension_key: str | None = None


class _Index:
    """One directory's `_index.json`; an empty one stands for none."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._common: Mapping[str, Any] = content.get("__COMMON__", {})
        self._files = content

    def header(self, name: str, keys: Iterable[str] | None) -> Header | None:
        own = self._files.get(name)
        if not isinstance(own, Mapping):
            return None
        common = self._common
        if keys is None:
            return {**common, **own}
        return {key: own[key] if key in own else common.get(key) for key in keys}


_NO_INDEX = _Index({})


class MetadataReader:
    """Reads headers, many at a time.

    Parameters
    ----------
    threads
        How many files are read at once; the reading waits for storage, not for the CPU.
    index_ttl_s
        How long an index, or its absence, is believed, in seconds: long enough for the batches of one
        night, short enough for an index that comes after its files.
    """

    def __init__(self, *, threads: int = 16, index_ttl_s: float = 5.0) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="headers")
        self._ttl = index_ttl_s
        self._indexes: dict[str, tuple[float, _Index]] = {}
        self._away: dict[str, str] = {}

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def read(self, requests: Sequence[HeaderRequest]) -> list[Header | IngestError]:
        """Return, for each request and in its order, the header or the reason why there is none.

        Parameters
        ----------
        requests
            Any number, of any directories.

        Returns
        -------
        list
            Keyword -> value for the keywords of interest (None where absent), or an `IngestError`.
        """
        self._away = {}
        self._load_indexes({_directory(request.uri) for request in requests})
        return self._map(self._read_or_reason, requests, [request.uri for request in requests])

    def _load_indexes(self, directories: Iterable[str]) -> None:
        now = time.monotonic()
        self._indexes = {d: entry for d, entry in self._indexes.items() if entry[0] > now}
        wanted = [directory for directory in directories if directory not in self._indexes]
        for directory, index in zip(wanted, self._map(self._load_index, wanted, wanted), strict=True):
            self._indexes[directory] = (now + self._ttl, index)

    def _map(self, function: Callable[[T], R], items: Sequence[T], uris: Iterable[str]) -> list[R]:
        """Apply a function to all items: by threads where the storage lets one wait, else without.

        On a local disk threads only fight for the interpreter: 4500 files take 0.06 s without, 0.2 s with.
        """
        results: list[R] = []
        patience = PATIENCE_S if all(uri.startswith("file:") for uri in uris) else 0.0
        begun = time.monotonic()
        for page in pages_of(items, CHUNK):
            results.extend(map(function, page))
            if time.monotonic() - begun > patience + SLOW_S * len(results):
                break
        rest = pages_of(items[len(results) :], CHUNK)
        for done in self._pool.map(lambda page: list(map(function, page)), rest):
            results.extend(done)
        return results

    def _read_or_reason(self, request: HeaderRequest) -> Header | IngestError:
        try:
            return self._read_one(request)
        except IngestError as error:
            return error

    def _read_one(self, request: HeaderRequest) -> Header:
        index = self._indexes[_directory(request.uri)][1]
        header = index.header(_file_name(request.uri), request.keys) or self._read_sidecar(request)
        start, size = self._start(request.uri, BLOCK if header is not None else FIRST_READ)
        if size is not None and size != request.bytes:
            raise SizeDiffers(request.uri, size, request.bytes)
        if not start.startswith(MAGIC):
            raise MalformedFits(request.uri, "it does not begin with SIMPLE")
        found = header if header is not None else _fits_header(request, start)
        if (key := request.extension_key) is None:
            return found
        return {**found, EXTENSION_KEY + key: read_extensions(request.uri, key)}

    def _start(self, uri: str, size: int) -> tuple[bytes, int | None]:
        """Read a file's start, unless its server has just been found away: each would wait for a time-out."""
        server = "/".join(uri.split("/", 3)[:3])
        if server in self._away:
            raise StorageUnavailable(uri, self._away[server], away=True)
        try:
            return read_start(uri, size)
        except StorageUnavailable as error:
            if error.away:
                self._away[server] = error.cause
            raise

    def _load_index(self, directory: str) -> _Index:
        """Return a directory's index; what is wrong with it is logged, since the files say the same."""
        content = self._read_json(f"{directory}/{INDEX_NAME}")
        if content is None:
            return _NO_INDEX
        if content.get("__CONTENT__") != "metadata" or not isinstance(content.get("__COMMON__", {}), dict):
            log.warning("metadata index ignored", directory=directory, reason="not a metadata index")
            return _NO_INDEX
        return _Index(content)

    def _read_sidecar(self, request: HeaderRequest) -> Header | None:
        """Return what the JSON file of the same name says, as the summit writes it; None where there is none."""
        stem, dot, extension = request.uri.rpartition(".")
        if extension == "fz":
            stem, dot, extension = stem.rpartition(".")
        if not dot or "/" in extension:
            return None
        content = self._read_json(f"{stem}.json")
        if content is None or content.get("__CONTENT__") != "metadata":
            return None
        return content if request.keys is None else {key: content.get(key) for key in request.keys}

    def _read_json(self, uri: str) -> dict[str, Any] | None:
        """Return a small JSON object; None when it is not there or cannot be used."""
        try:
            content: Any = json.loads(self._start(uri, LARGEST_INDEX)[0])
        except (FileVanished, UnreadableUri):
            return None
        except StorageUnavailable as error:
            if not error.away:  # else the file itself says so
                log.warning("metadata file ignored", uri=uri, reason=error.cause)
            return None
        except (ValueError, RecursionError) as error:
            log.warning("metadata file ignored", uri=uri, reason=f"not JSON: {error}")
            return None
        if isinstance(content, dict):
            return content
        log.warning("metadata file ignored", uri=uri, reason="not a JSON object")
        return None


def _directory(uri: str) -> str:
    return uri.rpartition("/")[0]


def _file_name(uri: str) -> str:
    return unquote(uri.rpartition("/")[2])


def _fits_header(request: HeaderRequest, start: bytes) -> Header:
    """Return the keywords of interest of the primary header, of which `start` is the beginning."""
    while (length := _header_length(start)) is None:
        if len(start) >= min(request.bytes, LONGEST_HEADER):
            raise MalformedFits(request.uri, f"no END card in its first {len(start)} bytes")
        grown = read_start(request.uri, len(start) * 4)[0]
        if len(grown) <= len(start):
            raise MalformedFits(request.uri, "it ends within its header")
        start = grown
    try:
        header = fits.Header.fromstring(start[:length].decode("ascii"))
        keys = _keywords(header) if request.keys is None else request.keys
        values = {key: _plain(header.get(key)) for key in keys}
        needed = length + _primary_data_bytes(header)
    except (fits.VerifyError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise MalformedFits(request.uri, str(error)) from error
    if request.bytes < needed:
        raise MalformedFits(request.uri, f"cut short: {request.bytes} bytes, its primary HDU takes {needed}")
    return values


def _header_length(start: bytes) -> int | None:
    """Return the bytes of the header blocks, None if END is not among them."""
    position = -1
    while (position := start.find(b"END     ", position + 1)) >= 0:
        if position % 80 == 0:
            return (position // BLOCK + 1) * BLOCK
    return None


def _primary_data_bytes(header: fits.Header) -> int:
    axes = [int(header[f"NAXIS{axis}"]) for axis in range(1, int(header.get("NAXIS", 0)) + 1)]
    if not axes:
        return 0
    size = abs(int(header.get("BITPIX", 8))) // 8
    for axis in axes:
        size *= axis
    return size


def _keywords(header: fits.Header) -> list[str]:
    return [key for key in dict.fromkeys(header) if key not in {"", "COMMENT", "HISTORY"}]


def _plain(value: Any) -> Any:
    return None if isinstance(value, Undefined) else value
