"""Looking at a WebDAV server: what it is, what is there, and the bytes.

Every server answers differently (XRootD tells a folder from a file only by PROPFIND, does not encode its hrefs,
and lists a folder on GET; Apache leaves out the length of an empty file); here it becomes one answer.
It changes nothing on the server, and makes its requests through what it is given.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from urllib3.exceptions import HTTPError

from arriero.rse.checksum import adler32_of, canonical_adler32
from arriero.rse.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidName,
    NotFound,
    TimedOut,
    TransferFailed,
    Unsupported,
    clean_remote_text,
)
from arriero.rse.paths import safe_path
from arriero.rse.propfind import MalformedListing, Resource, member_name, parse_multistatus
from arriero.rse.protocol import PIECE_BYTES, Capabilities
from arriero.rse.responses import error_of_broken_read
from arriero.rse.transport import Answer
from arriero.rse.types import DirectoryEntry, Endpoint, FileStat

PROFILE_SECONDS = 600.0
"""How long what a server said about itself is believed."""

DIGEST_TIMEOUTS = (5.0, 10.0, 15.0)
"""Seconds allowed to each try at a digest, besides the time to read the file: XRootD 5.5.3 sometimes hangs in it."""

DIGEST_PAUSES = (0.02, 0.08)
"""Seconds between these tries."""

DIGEST_RATE = 50e6
"""Bytes per second at which a server is expected to read a file for its digest."""

DIGESTS_MENDED_IN = (5, 8, 4)
"""XRootD versions before it compute a digest in a job that now and then freezes the whole server, or ends it."""

SETTLING_SECONDS = 0.004
"""Given to such a server between the end of a transfer and the question for its digest, so that its helper has
stored it. Without, 170 to 370 of 800 pulls of 100 kB were asked for too early, and the server froze within 6,000."""

SETTLING_SECONDS_PER_TRANSFER = 0.001
"""Besides, for each transfer that this process has under way there: at load 15, 20 ms left 1 of 2,000 too early."""

SETTLING_RATE = 400e6
"""Bytes per second that the helper reads."""

MAX_SETTLING_SECONDS = 10.0

_XROOTD_VERSION = re.compile(r"xrootd/v(\d+)\.(\d+)\.(\d+)")
_DOUBTFUL = frozenset("?;")
_PULLING_SERVERS = ("xrootd", "dcache", "storm", "eos")
_LISTING_OF_XROOTD = b"<!DOCTYPE html PUBLIC"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a server said about itself."""

    server: str
    capabilities: Capabilities
    seen: float

    @property
    def is_xrootd(self) -> bool:
        return self.server.startswith("xrootd")

    @property
    def has_fragile_digests(self) -> bool:
        """Whether asking for a digest that is not stored yet may hang or end the server."""
        version = _XROOTD_VERSION.match(self.server)
        return version is not None and tuple(map(int, version.groups())) < DIGESTS_MENDED_IN


class Requester(Protocol):
    """Makes one request and raises this package's errors for whatever is not a success."""

    def __call__(
        self,
        action: str,
        url_path: str,
        path: str,
        *,
        headers: list[str] | None = None,
        read_timeout: float | None = None,
    ) -> Answer: ...


class DavReader:
    """What a WebDAV endpoint says, for `WebDavProtocol`."""

    def __init__(self, endpoint: Endpoint, request: Requester) -> None:
        self.endpoint = endpoint
        self._request = request
        self._root = quote(endpoint.root)
        self._profile_seen: Profile | None = None
        self._lock = threading.Lock()
        self._transfers = 0

    def url_path(self, path: str) -> str:
        """Give the quoted path on the server, if the server can hold it."""
        if not path:
            return f"{self._root}/"
        if not _DOUBTFUL.isdisjoint(safe_path(path)):
            self._refuse_what_it_cannot_hold(path)
        return f"{self._root}/{quote(path)}"

    def _refuse_what_it_cannot_hold(self, path: str) -> None:
        """XRootD cuts names at `?`; WsgiDAV cuts them at `?` and `;` when it renames (measured)."""
        server = self.profile().server
        fault = None
        if server.startswith("xrootd"):
            fault = "'?' in names" if "?" in path else None
        elif server.startswith("wsgidav") and not {"?", ";"}.isdisjoint(path):
            fault = "'?' and ';' in names"
        if fault is not None:
            raise InvalidName(
                f"{self.endpoint.rse}: {path!r} would become another file: this server cannot hold {fault}; rename it.",
                rse=self.endpoint.rse,
                path=path,
            )

    def profile(self) -> Profile:
        """Give what the server says about itself; ask again once in a while."""
        profile = self._profile_seen
        if profile is None or time.monotonic() - profile.seen > PROFILE_SECONDS:
            profile = self._profile_seen = self._ask_profile()
        return profile

    def _ask_profile(self) -> Profile:
        try:
            headers: Mapping[str, str] = self._request("options", f"{self._root}/", "").headers
        except (Unsupported, AccessDenied, NotFound, TransferFailed):
            headers = {}
        server = headers.get("Server", "").lower()
        verbs = {verb.strip().upper() for verb in headers.get("Allow", "").split(",")}
        knows_tpc = server.startswith(_PULLING_SERVERS)
        pulls = knows_tpc and "COPY" in verbs
        if pulls:
            reason = "the destination pulls from the source by itself"
        elif knows_tpc:
            reason = "the destination could pull, but has third-party copy switched off"
        else:
            reason = "the destination has no third-party copy"
        digests = frozenset({"adler32"}) if knows_tpc else frozenset[str]()
        capabilities = Capabilities(pulls, digests, move=True, list_directory=True, pull_reason=reason)
        return Profile(server, capabilities, time.monotonic())

    def stat(self, path: str, *, digest: bool) -> FileStat:
        """See `StorageProtocol.stat`; a digest that does not come is asked for again, then left out."""
        url_path = self.url_path(path)
        if not digest or not self.profile().capabilities.digest_algorithms:
            return self.stat_by_propfind(path, url_path)
        try:
            return self._stat_by_head(path, url_path, DIGEST_TIMEOUTS[0])
        except (TimedOut, TransferFailed):
            found = self.stat_by_propfind(path, url_path)
        if found.is_directory:
            return found
        for timeout, pause in zip(DIGEST_TIMEOUTS[1:], DIGEST_PAUSES, strict=True):
            time.sleep(pause)
            try:
                return self._stat_by_head(path, url_path, timeout + found.bytes / DIGEST_RATE)
            except (TimedOut, TransferFailed):
                continue
        return found

    @contextmanager
    def transfer_of(self, size: int) -> Iterator[None]:
        """Count a transfer to this storage; at its end, wait until its digest is likely to be stored."""
        with self._lock:
            self._transfers += 1
        try:
            yield
            if self.profile().has_fragile_digests:
                seconds = (
                    SETTLING_SECONDS + self._transfers * SETTLING_SECONDS_PER_TRANSFER + size / SETTLING_RATE
                )
                time.sleep(min(seconds, MAX_SETTLING_SECONDS))
        finally:
            with self._lock:
                self._transfers -= 1

    def digest(self, path: str) -> str:
        found = self.stat(path, digest=True)
        if found.is_directory:
            raise self._not_a("file", path)
        return found.adler32 or adler32_of(self.read(path))[0]

    def read(self, path: str) -> Generator[bytes, None, None]:
        try:
            response = self._request("get", self.url_path(path), path)
        except (AccessDenied, Unsupported):
            if self.stat_by_propfind(path, self.url_path(path)).is_directory:
                raise self._not_a("file", path) from None
            raise
        pieces = self.pieces(response, path)
        if not _is_xrootd(response):
            return pieces
        first = next(pieces, b"")
        if (
            first.startswith(_LISTING_OF_XROOTD)
            and self.stat_by_propfind(path, self.url_path(path)).is_directory
        ):
            response.close()
            raise self._not_a("file", path)
        return _chained(first, pieces)

    def list_directory(self, path: str) -> list[DirectoryEntry]:
        url_path = self.url_path(path)
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
            response = self._request(
                "head", url_path, path, headers=["Want-Digest: adler32"], read_timeout=timeout
            )
        except (Unsupported, AccessDenied):
            return self.stat_by_propfind(path, url_path)
        size = response.headers.get("Content-Length", "")
        adler32 = _digest_in(response.headers.get("Digest", ""))
        if response.status_code >= 300 or not size.isdigit() or (adler32 is None and _is_xrootd(response)):
            return self.stat_by_propfind(path, url_path)
        return FileStat(int(size), adler32, is_directory=False)

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
        response = self._request("propfind", url_path, path, headers=[f"Depth: {depth}"])
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
        if doubtful is None or not self.profile().is_xrootd:
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
            except (HTTPError, OSError) as error:
                raise error_of_broken_read(error, self.endpoint.rse, path) from error

    def _not_a(self, kind: str, path: str) -> NotFound:
        return NotFound(
            f"{self.endpoint.rse}: {path or 'the prefix'} is not a {kind}; correct the path.",
            rse=self.endpoint.rse,
            path=path,
        )


def _is_xrootd(response: Answer) -> bool:
    return response.headers.get("Server", "").lower().startswith("xrootd")


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
