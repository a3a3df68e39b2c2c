"""Looking at a WebDAV server: what is there, and the bytes.

Every server answers differently (XRootD tells a folder from a file only by PROPFIND, does not encode its hrefs,
and lists a folder on GET; Apache leaves out the length of an empty file); here it becomes one answer.
It changes nothing on the server.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing

from arriero.rse.checksum import adler32_of, canonical_adler32
from arriero.rse.davserver import READ_RATHER_THAN_ASK, DavServer
from arriero.rse.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidName,
    NotFound,
    RangeNotThere,
    TimedOut,
    TransferFailed,
    Unsupported,
    clean_remote_text,
)
from arriero.rse.progress import Watch
from arriero.rse.propfind import MalformedListing, Resource, member_name, parse_multistatus
from arriero.rse.protocol import PIECE_BYTES
from arriero.rse.responses import error_of_broken_read
from arriero.rse.types import DirectoryEntry, FileStat
from arriero.rse.wire import Answer

DIGEST_TIMEOUTS = (5.0, 10.0, 15.0)
"""Seconds allowed to each try at a digest, besides the time to read the file: XRootD 5.5.3 sometimes hangs in it."""

DIGEST_PAUSES = (0.0, 0.02, 0.08)
"""Seconds before each of these tries."""

DIGEST_RATE = 50e6
"""Bytes per second at which a server is expected to read a file for its digest."""

_WANT_ADLER32 = {"Want-Digest": "adler32"}
_LISTING_OF_XROOTD = b"<!DOCTYPE html PUBLIC"


class DavReader:
    """What a WebDAV endpoint says, for `WebDavProtocol`."""

    def __init__(self, server: DavServer) -> None:
        self.server = server
        self.endpoint = server.endpoint
        self._request = server.request

    def stat(self, path: str, *, digest: bool) -> FileStat:
        """See `StorageProtocol.stat`; a digest that does not come is asked for again, then left out."""
        url_path = self.server.url_path(path)
        abilities = self.server.abilities
        if not abilities.list_directory:
            return self._stat_without_propfind(path, url_path)
        if not digest or not abilities.digest_algorithms:
            return self.stat_by_propfind(path, url_path)
        if abilities.fragile_digests:
            found = self.stat_by_propfind(path, url_path)
            if found.is_directory or found.bytes <= READ_RATHER_THAN_ASK:
                return found
        else:
            try:
                return self._stat_by_head(path, url_path, DIGEST_TIMEOUTS[0])
            except (TimedOut, TransferFailed):
                found = self.stat_by_propfind(path, url_path)
            if found.is_directory:
                return found
        return self._stat_with_patience(path, url_path, found)

    def _stat_with_patience(self, path: str, url_path: str, found: FileStat) -> FileStat:
        """Ask for the digest of a file of a size that is known, and again; leave it out in the end."""
        for timeout, pause in zip(DIGEST_TIMEOUTS, DIGEST_PAUSES, strict=True):
            time.sleep(pause)
            try:
                return self._stat_by_head(path, url_path, timeout + found.bytes / DIGEST_RATE)
            except (TimedOut, TransferFailed):
                continue
        return found

    def has_bytes(self, path: str, count: int) -> bool:
        """See `StorageProtocol.has_bytes`. A folder of XRootD has a length as well, which no file is likely to share."""
        if self.server.profile().is_xrootd:
            answer = self._request("head", self.server.url_path(path), path)
            if answer.headers.get("content-length") == str(count):
                return True
        found = self.stat(path, digest=False)
        return found.bytes == count and not found.is_directory

    def fingerprint(self, path: str, expected: int, *, watch: Watch | None = None) -> FileStat:
        """See `StorageProtocol.fingerprint`."""
        abilities = self.server.abilities
        if abilities.digest_algorithms and not (
            abilities.fragile_digests and expected <= READ_RATHER_THAN_ASK
        ):
            found = self.stat(path, digest=True)
            if found.is_directory or found.adler32 is not None:
                return found
        adler32, size = adler32_of(self.read(path, watch=watch))
        return FileStat(size, adler32, is_directory=False)

    def digest(self, path: str) -> str:
        found = self.stat(path, digest=True)
        if found.is_directory:
            raise self._not_a("file", path)
        return found.adler32 or adler32_of(self.read(path))[0]

    def read(self, path: str, *, watch: Watch | None = None) -> Generator[bytes, None, None]:
        """See `StorageProtocol.read`. The first piece is read at once: what was never begun is not closed either."""
        try:
            response = self._request("get", self.server.url_path(path), path)
        except (AccessDenied, Unsupported):
            if self._is_folder(path):
                raise self._not_a("file", path) from None
            raise
        if watch is not None:
            response.limit_silence(watch.limits.stall_s, watch.check)
        pieces = self.pieces(response, path)
        first = next(pieces, b"")
        if _is_xrootd(response) and first.startswith(_LISTING_OF_XROOTD) and self._is_folder(path):
            pieces.close()
            raise self._not_a("file", path)
        return _chained(first, pieces)

    def read_range(self, path: str, start: int, length: int) -> bytes | None:
        """Give a part of a file; None where the server has sent all of it."""
        if length <= 0:
            return b""
        try:
            return self._range(path, start, length)
        except TransferFailed:
            # XRootD 5.5.3 announces a part beyond the end of the file, and hangs up
            there = self.stat(path, digest=False).bytes - start
            if there >= length:
                raise
            return self.read_range(path, start, there)

    def _range(self, path: str, start: int, length: int) -> bytes | None:
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        try:
            response = self._request("get", self.server.url_path(path), path, headers=headers)
        except RangeNotThere:
            return b""
        with response:
            if response.status_code != 206:
                return None
            return b"".join(self.pieces(response, path))[:length]

    def _is_folder(self, path: str) -> bool:
        return self.stat(path, digest=False).is_directory

    def is_taken(self, path: str) -> bool:
        """Whether anything is there, for as little as that can be known."""
        try:
            if self.server.profile().is_xrootd:
                return self.server.look("head", self.server.url_path(path), path) is not None
            self.stat(path, digest=False)
        except NotFound:
            return False
        return True

    def list_directory(self, path: str) -> list[DirectoryEntry]:
        url_path = self.server.url_path(path)
        folder = f"{self.endpoint.root}/{path}".rstrip("/")
        try:
            resources = self._propfind(url_path + ("/" if path else ""), path, depth=1)
        except (TransferFailed, AlreadyExists):
            if self.stat_by_propfind(path, url_path).is_directory:
                raise
            raise self._not_a("folder", path) from None
        if not any(resource.is_directory for resource in resources[:1]):
            raise self._not_a("folder", path)
        quoted = self._quotes_hrefs(path, folder, resources)
        entries = []
        for resource in resources:
            name = member_name(folder, resource, quoted=quoted)
            if name is not None:
                entries.append(DirectoryEntry(name, resource.bytes or 0, resource.is_directory))
        return entries

    def _stat_by_head(self, path: str, url_path: str, timeout: float) -> FileStat:
        """Size and digest in one request; PROPFIND where HEAD cannot tell."""
        try:
            response = self._request("head", url_path, path, headers=_WANT_ADLER32, read_timeout=timeout)
        except (Unsupported, AccessDenied):
            return self.stat_by_propfind(path, url_path)
        size = response.headers.get("content-length", "")
        adler32 = _digest_in(response.headers.get("digest", ""))
        if response.status_code >= 300 or not size.isdigit() or (adler32 is None and _is_xrootd(response)):
            return self.stat_by_propfind(path, url_path)
        return FileStat(int(size), adler32, is_directory=False)

    def digest_by_head(self, path: str) -> str | None:
        """Give the adler32 that comes with HEAD, where one does."""
        response = self._request("head", self.server.url_path(path), path, headers=_WANT_ADLER32)
        return _digest_in(response.headers.get("digest", ""))

    def _stat_without_propfind(self, path: str, url_path: str) -> FileStat:
        """Size and, if it comes, digest from a server that knows files only."""
        response = self._request("head", url_path, path, headers=_WANT_ADLER32)
        size = response.headers.get("content-length", "0")
        return FileStat(
            int(size) if size.isdigit() else 0,
            _digest_in(response.headers.get("digest", "")),
            is_directory=False,
        )

    def stat_by_propfind(self, path: str, url_path: str) -> FileStat:
        """Size and kind, without a digest, of anything."""
        resources = self._propfind(url_path, path, depth=0)
        if not resources:
            raise TransferFailed(
                f"{self.endpoint.rse}: PROPFIND of {path} was answered with nothing; look at the server's log.",
                rse=self.endpoint.rse,
                path=path,
            )
        return FileStat(resources[0].bytes or 0, None, is_directory=resources[0].is_directory)

    def _propfind(self, url_path: str, path: str, *, depth: int) -> list[Resource]:
        response = self._request("propfind", url_path, path, headers={"Depth": str(depth)})
        if response.status_code >= 300:
            return [Resource(url_path, 0, is_directory=True)]
        with response:
            try:
                return parse_multistatus(self.pieces(response, path))
            except MalformedListing as error:
                raise TransferFailed(
                    f"{self.endpoint.rse}: PROPFIND of {path}: {clean_remote_text(str(error))}; "
                    "look whether a WebDAV server answers there.",
                    rse=self.endpoint.rse,
                    path=path,
                ) from error

    def _quotes_hrefs(self, path: str, folder: str, resources: list[Resource]) -> bool:
        """Find out whether hrefs are percent-encoded; those of XRootD 5.5.3 are not, and say so only by chance."""
        if any(resource.is_plainly_unquoted for resource in resources):
            return False
        doubtful = next((resource for resource in resources if "%" in resource.path), None)
        if doubtful is None or not self.server.profile().is_xrootd:
            return True
        name = member_name(folder, doubtful, quoted=False)
        try:
            if name is not None:
                self.stat(f"{path}/{name}" if path else name, digest=False)
        except (NotFound, InvalidName):
            return True
        return name is None

    def pieces(self, response: Answer, path: str) -> Generator[bytes, None, None]:
        with response:
            try:
                yield from response.pieces(PIECE_BYTES)
            except OSError as error:
                raise error_of_broken_read(error, self.endpoint.rse, path) from error

    def _not_a(self, kind: str, path: str) -> NotFound:
        return NotFound(
            f"{self.endpoint.rse}: {path or 'the prefix'} is not a {kind}; correct the path.",
            rse=self.endpoint.rse,
            path=path,
        )


def _is_xrootd(response: Answer) -> bool:
    return response.headers.get("server", "").lower().startswith("xrootd")


def _digest_in(header: str) -> str | None:
    """Find the adler32 in a Digest header (RFC 3230)."""
    for part in header.split(","):
        algorithm, _, value = part.partition("=")
        if algorithm.strip().lower() == "adler32":
            try:
                return canonical_adler32(value)
            except ValueError:
                return None
    return None


def _chained(first: bytes, rest: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    with closing(rest):
        if first:
            yield first
        yield from rest
