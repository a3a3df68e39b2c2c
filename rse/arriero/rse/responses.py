"""What an answer of a storage means: from status, text or broken connection to this package's errors.

XRootD tells many things by 500 and a sentence, so the sentence is looked at where the status says nothing.
Pure but for the clock of `follow_report`.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterable, Iterator

from urllib3.exceptions import ReadTimeoutError, SSLError
from urllib3.exceptions import TimeoutError as Urllib3Timeout

from arriero.rse.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidName,
    NoSpace,
    NotFound,
    RSEError,
    TimedOut,
    TransferFailed,
    Unavailable,
    Unsupported,
    clean_remote_text,
)
from arriero.rse.errors import (
    Cancelled as TransferCancelled,
)
from arriero.rse.protocol import Cancelled, Progress
from arriero.rse.tpc import MarkerParser

STALL_SECONDS = 90.0
"""Seconds in which a transfer report may repeat the same number of bytes."""

_OBJECT = re.compile(r"^[A-Za-z0-9_.]*\([^)]*\): |^<[^>]*>: ")
_NEEDS_FOLDER = frozenset({"PUT", "MKCOL", "MOVE", "COPY"})
_BY_STATUS: dict[int, tuple[type[RSEError], str]] = {
    401: (AccessDenied, "refuses the credentials; renew the token of that RSE"),
    403: (AccessDenied, "forbids it; look at the token's scopes and the storage's permissions"),
    404: (NotFound, "has nothing there"),
    405: (Unsupported, "does not do this here"),
    408: (TimedOut, "gave up waiting; try again"),
    412: (AlreadyExists, "has something there already; nothing is overwritten"),
    413: (Unsupported, "refuses files of this size; look at its limits"),
    414: (InvalidName, "refuses names of this length; shorten it"),
    416: (Unsupported, "cannot give that range"),
    423: (Unavailable, "has it locked; try again later"),
    425: (Unavailable, "is not ready; try again later"),
    429: (Unavailable, "is asked too often; try again later"),
    501: (Unsupported, "does not do this"),
    502: (Unavailable, "cannot reach what is behind it; try again later"),
    503: (Unavailable, "cannot serve now; try again later"),
    504: (TimedOut, "waited in vain for what is behind it; try again later"),
    507: (NoSpace, "is full; make space or wait until the reaper has"),
}
_BY_SENTENCE: tuple[tuple[str, type[RSEError], str], ...] = (
    ("no space left", NoSpace, "is full; make space or wait until the reaper has"),
    # XRootD's words when the last block that fits has been written
    ("filesystem write failure", NoSpace, "could not write all of it: its disk is full, or fails"),
    ("disk quota", NoSpace, "is out of quota; make space or raise it"),
    ("no such file or directory", NotFound, "has nothing there"),
    ("file name too long", InvalidName, "cannot hold a name of this length; shorten it"),
    ("directory not empty", Unsupported, "has a folder there, with something in it; only files are removed"),
    ("not a directory", AlreadyExists, "has a file where a folder is needed; remove or rename it"),
    ("is a directory", Unsupported, "has a folder there"),
)


def error_of_status(status: int, text: str | bytes, verb: str, rse: str, path: str) -> RSEError:
    """Error for an answer that is not a success.

    Parameters
    ----------
    status
        HTTP status, 300 or more.
    text
        Body, as the server sent it.
    verb
        HTTP method that was used.
    rse, path
        What it was about.
    """
    remote = clean_remote_text(text)
    kind: type[RSEError] = TransferFailed
    meaning = "failed to do it; try again, and look at the server's log if it persists"
    if status in _BY_STATUS:
        kind, meaning = _BY_STATUS[status]
    elif status < 400:
        kind, meaning = Unsupported, "sends us elsewhere, which is not followed; register the other address"
    elif status == 409 and verb in _NEEDS_FOLDER:
        kind, meaning = NotFound, "has not the folder above it"
    elif status == 409:
        kind, meaning = Unsupported, "does not do this to what is there"
    elif status in {400, 500}:
        kind, meaning = _by_sentence(remote) or (kind, meaning)
    said = f" and says {remote!r}" if remote and not remote.startswith("<") else ""
    return kind(
        f"{rse}: {verb} of {path or 'the prefix'}: the storage {meaning} (HTTP {status}{said}).",
        rse=rse,
        path=path,
    )


def _by_sentence(remote: str) -> tuple[type[RSEError], str] | None:
    lowered = remote.lower()
    for sentence, kind, meaning in _BY_SENTENCE:
        if sentence in lowered:
            return kind, meaning
    return None


def error_of_connection(error: Exception, verb: str, rse: str, path: str) -> RSEError:
    """Error for a request that got no answer, or half of one."""
    causes = list(_causes(error))
    reason = clean_remote_text(_plain(causes[-1]))
    what = f"{rse}: {verb} of {path or 'the prefix'}"
    if isinstance(error, OSError) and error.filename is not None:
        return Unavailable(
            f"{what}: {error.filename} cannot be read ({error.strerror}); correct the RSE's CA bundle.",
            rse=rse,
            path=path,
        )
    if any(isinstance(cause, SSLError | ssl.SSLError) for cause in causes):
        return Unavailable(
            f"{what}: no TLS connection ({reason}); look at the certificate and at the RSE's CA bundle.",
            rse=rse,
            path=path,
        )
    if isinstance(error, ReadTimeoutError):
        return TimedOut(f"{what}: the storage did not answer in time; try again.", rse=rse, path=path)
    return Unavailable(
        f"{what}: no connection, or it broke off ({reason}); look whether the storage is up.",
        rse=rse,
        path=path,
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what it wraps: urllib3 puts it in `reason`, in the arguments, or in the cause."""
    found: BaseException | None = error
    for _ in range(8):
        if found is None:
            return
        yield found
        wrapped = getattr(found, "reason", None)
        if not isinstance(wrapped, BaseException):
            wrapped = next((part for part in found.args if isinstance(part, BaseException)), found.__cause__)
        found = wrapped


def _plain(error: BaseException) -> str:
    """What an error says, without the object at its beginning (`<urllib3... at 0x...>: `)."""
    return _OBJECT.sub("", str(error)) or type(error).__name__


def error_of_broken_read(error: Exception, rse: str, path: str) -> RSEError:
    """Error for a body that broke off, came up short, or stalled."""
    if isinstance(error, Urllib3Timeout | TimeoutError):
        return TimedOut(f"{rse}: {path} stopped coming; try again.", rse=rse, path=path)
    return TransferFailed(
        f"{rse}: {path} broke off ({clean_remote_text(str(error))}); try again.", rse=rse, path=path
    )


def error_of_failed_pull(text: str, rse: str, path: str) -> RSEError:
    """Error for a transfer that the destination reports as failed."""
    found = _by_sentence(text)
    if found is not None and found[0] is NoSpace:
        return NoSpace(
            f"{rse}: the storage {found[1]}; its report of pulling {path}: {text}", rse=rse, path=path
        )
    return TransferFailed(
        f"{rse}: pulling {path} failed: {text}; try again, or look at the server's log.", rse=rse, path=path
    )


def follow_report(
    pieces: Iterable[bytes],
    *,
    rse: str,
    path: str,
    on_progress: Progress | None,
    cancelled: Cancelled | None,
) -> None:
    """Follow the report of a pull to its end; leaving early ends the transfer, once the caller closes.

    Raises
    ------
    TransferFailed, NoSpace
        If it ends with a failure, or without a result.
    TimedOut
        If the number of bytes stays the same for `STALL_SECONDS`.
    Cancelled
        If `cancelled` said so.
    """
    parser = MarkerParser()
    most, since = -1, time.monotonic()
    for piece in pieces:
        for marker in parser.feed(piece):
            if marker.bytes > most:
                most, since = marker.bytes, time.monotonic()
                if on_progress is not None:
                    on_progress(most)
        if time.monotonic() - since > STALL_SECONDS:
            raise TimedOut(
                f"{rse}: {path} stands at {most} bytes for {STALL_SECONDS:.0f} s; it was given up, try again.",
                rse=rse,
                path=path,
            )
        if cancelled is not None and cancelled():
            raise TransferCancelled(f"The pull of {path} to {rse} was taken back.", rse=rse, path=path)
    outcome = parser.finish()
    if not outcome.succeeded:
        raise error_of_failed_pull(outcome.text, rse, path)
