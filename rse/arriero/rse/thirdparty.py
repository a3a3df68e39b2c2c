"""Having a WebDAV server copy by itself: what it is told, and what its report means.

Its status says nothing: 201 comes before the first byte. Success is the word `success` at the end of the report and
nothing else; a server that has never heard of third-party copies takes a destination for a name of its own, copies
the file there and answers 201 without that word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from arriero.rse.davserver import DavServer
from arriero.rse.errors import (
    AccessDenied,
    AlreadyExists,
    NoSpace,
    NotFound,
    OtherSideFailed,
    RefusedByGuard,
    ReportLost,
    RSEError,
    Stalled,
    TransferFailed,
    Unavailable,
    Unsupported,
    clean_remote_text,
)
from arriero.rse.progress import Watch
from arriero.rse.protocol import OtherSide
from arriero.rse.responses import by_sentence
from arriero.rse.tpc import MarkerParser, Outcome
from arriero.rse.types import WIRE_SCHEMES

MARKER_SILENCE = 30.0
"""Seconds without a line of a transfer report before it is given up; servers write every 5 s."""

_NEVER = frozenset({200, 201, 202, 204, 405, 501})
"""Statuses with which a server shows that it does not copy by itself, whatever file it is told to."""

_STATUS = re.compile(r"status code:? (\d{3})|rejected (?:GET|PUT|HEAD|POST):? (\d{3})", re.IGNORECASE)
_OTHER_SIDE: dict[int, tuple[type[RSEError], str]] = {
    401: (AccessDenied, "refused the credentials that were handed on; look at the token of that RSE"),
    403: (AccessDenied, "forbids it; look at the scopes of that RSE's token"),
    404: (NotFound, "has nothing there"),
    409: (NotFound, "has not the folder above it"),
    410: (NotFound, "has nothing there any more"),
    412: (AlreadyExists, "has something there already"),
    429: (Unavailable, "is asked too often; try again later"),
    502: (Unavailable, "cannot reach what is behind it; try again later"),
    503: (Unavailable, "cannot serve now; try again later"),
    504: (Unavailable, "waited in vain for what is behind it; try again later"),
    507: (NoSpace, "is full; make space or wait until the reaper has"),
}
_NO_WAY = (
    "couldn't connect",
    "could not connect",
    "failed to connect",
    "connection refused",
    "connect timed out",
    "connection timed out",
    "no route to host",
    "network is unreachable",
    "couldn't resolve",
    "could not resolve",
    "unknownhost",
    "unknown host",
    "name or service not known",
    "ssl peer certificate",
    "ssl connect error",
    "certificate",
    "unsupported protocol",
)
"""How storages say that there is no way to the other side (curl's words in XRootD, Java's in dCache)."""


class ThirdParty:
    """Third-party copies by one WebDAV server, for `WebDavProtocol`."""

    def __init__(self, server: DavServer) -> None:
        self._server = server
        self._rse = server.endpoint.rse

    def pull(self, source: OtherSide, path: str, *, size: int, watch: Watch | None = None) -> None:
        """See `StorageProtocol.pull`."""
        headers = {"Source": self._url(source), "RequireChecksumVerification": "false"}
        with self._server.transfer_of(size):
            try:
                self._copy(path, headers, source, size, watch)
            except Unsupported as error:
                if error.status in _NEVER:
                    reason = f"the destination refused to pull: {error.message}"
                    self._server.learn(third_party_pull=False, pull_reason=reason)
                raise

    def push(self, path: str, destination: OtherSide, *, size: int, watch: Watch | None) -> None:
        """See `StorageProtocol.push`."""
        profile = self._server.profile()
        if not profile.abilities.third_party_push:
            raise Unsupported(
                f"{self._rse}: {profile.abilities.push_reason}; it is not told to push.",
                rse=self._rse,
                path=path,
            )
        try:
            self.told_to_push(path, destination, size=size, watch=watch)
        except Unsupported as error:
            if error.status in _NEVER:
                reason = f"the source refused to push: {error.message}"
                self._server.learn(third_party_push=False, push_reason=reason)
            raise

    def told_to_push(
        self, path: str, destination: OtherSide, *, size: int, watch: Watch | None = None
    ) -> None:
        """Have it push, whatever is known of its abilities."""
        self._copy(path, {"Destination": self._url(destination)}, destination, size, watch)

    def _url(self, other: OtherSide) -> str:
        if other.endpoint.scheme not in WIRE_SCHEMES:
            # XRootD 5.5.3 reads file:///etc/passwd and puts it into its report.
            raise RefusedByGuard(
                f"{self._rse}: a storage copies from and to http and https only, not {other.endpoint.scheme!r}; "
                "stream the file through a worker.",
                rse=self._rse,
            )
        return other.url

    def _copy(
        self, path: str, headers: dict[str, str], other: OtherSide, size: int, watch: Watch | None
    ) -> None:
        watch = watch or Watch(self._rse, path, size)
        headers |= {"Overwrite": "F", "Credential": "none"}
        if other.authorization is not None:
            headers["TransferHeaderAuthorization"] = other.authorization
        if watch.limits.streams > 1:
            headers["X-Number-Of-Streams"] = str(watch.limits.streams)
        url_path = self._server.url_path(path)
        response = self._server.request("pull", url_path, path, headers=headers, attention=watch.check)
        with response:
            response.limit_silence(MARKER_SILENCE, watch.check)
            try:
                outcome = follow_report(response.pieces(4096), watch)
            except TimeoutError as error:
                raise Stalled(
                    f"{self._rse}: the report on {path} says nothing for {MARKER_SILENCE:.0f} s; it was given up, "
                    "try again.",
                    rse=self._rse,
                    path=path,
                ) from error
            except OSError as error:
                raise ReportLost(
                    f"{self._rse}: the report on {path} broke off ({clean_remote_text(str(error))}); try again.",
                    rse=self._rse,
                    path=path,
                ) from error
        if outcome.is_none and not self._server.profile().copies_by_itself:
            raise Unsupported(
                f"{self._rse}: COPY of {path} was answered {response.status_code} without a report: this server "
                "does not copy by itself.",
                rse=self._rse,
                path=path,
                status=response.status_code,
            )
        if not outcome.succeeded:
            raise error_of_failed_copy(outcome.text, self._rse, path, other)


def follow_report(pieces: Iterable[bytes], watch: Watch) -> Outcome:
    """Follow the report of a copy to its end; leaving early ends the transfer, once the caller closes.

    Raises
    ------
    Stalled, TimedOut, Cancelled
        As the watch has it.
    """
    parser = MarkerParser()
    for piece in pieces:
        for marker in parser.feed(piece):
            watch.arrived(marker.bytes)
        watch.check()
    return parser.finish()


def error_of_failed_copy(text: str, rse: str, path: str, other: OtherSide) -> RSEError:
    """Error for a transfer that a storage reports as failed: whose fault is it?

    Parameters
    ----------
    text
        What the report says, cleaned.
    rse, path
        The storage that was told to copy, and its file.
    other
        The other side.
    """
    there = f"{other.endpoint.rse}: {other.path}: the storage"
    status = _STATUS.search(text)
    number = int(status.group(1) or status.group(2)) if status else 0
    if number in _OTHER_SIDE:
        kind, meaning = _OTHER_SIDE[number]
        return kind(f"{there} {meaning} ({rse} reports: {text}).", rse=other.endpoint.rse, path=other.path)
    if number >= 500:
        return TransferFailed(
            f"{there} failed ({rse} reports: {text}); try again.", rse=other.endpoint.rse, path=other.path
        )
    found = by_sentence(text)
    if found is not None and found[0] is NoSpace:
        return NoSpace(f"{rse}: the storage {found[1]}; its report of {path}: {text}", rse=rse, path=path)
    if any(words in text.lower() for words in _NO_WAY):
        return OtherSideFailed(
            f"{rse}: it cannot reach {other.endpoint.rse} for {path}: {text}; look at the network between them and "
            "at the authorities that it trusts.",
            rse=rse,
            path=path,
        )
    return TransferFailed(
        f"{rse}: copying {path} by itself failed: {text}; try again, or look at the server's log.",
        rse=rse,
        path=path,
    )
