"""Looking at replicas where they lie: their bytes are read, whatever the storage says of them.

It decides nothing about what is wrong, but that: whether nothing can be said because the storage itself is not well.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import structlog

from arriero.rse.checksum import Adler32, Md5
from arriero.rse.errors import (
    AccessDenied,
    NotFound,
    RSEError,
    TimedOut,
    TransferFailed,
    Unavailable,
)
from arriero.rse.protocol import StorageProtocol
from arriero.scheduler.scrub_queue import Check

log = structlog.get_logger(__name__)

_OF_THE_RSE = (Unavailable, TimedOut, AccessDenied)
"""Errors that another file of the same RSE is likely to have too."""

_ENOUGH = 3
"""So many of them, and no more files are asked for."""

RSE_DOUBTED = "rse_doubted"
"""Code of what cannot be judged because the storage may not be there as a whole."""


class Outcome(StrEnum):
    """What was found."""

    GOOD = "GOOD"
    MISSING = "MISSING"
    WRONG_SIZE = "WRONG_SIZE"
    WRONG_CHECKSUM = "WRONG_CHECKSUM"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Looked:
    """How a look at a replica ended."""

    check: Check
    outcome: Outcome
    bytes: int | None = None
    adler32: str | None = None
    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A replica and where it lies."""

    check: Check
    path: str
    by_digest: bool = False
    """The RSE is trusted to compute its digests from the bytes, each time."""


def look_at_all(
    protocol: StorageProtocol,
    orders: Sequence[Order],
    *,
    threads: int,
    stopping: Callable[[], bool],
) -> list[Looked]:
    """Look at replicas of one RSE at once, and give up soon when the RSE does not answer.

    Parameters
    ----------
    threads
        How many at once.
    stopping
        Asked between pieces; True ends it.
    """
    failures = _Failures()
    with ThreadPoolExecutor(threads, thread_name_prefix="arriero-scrub") as executor:
        return list(executor.map(partial(_look, protocol, failures=failures, stopping=stopping), orders))


class _Failures:
    """Counts what is the RSE's own failing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self.last: RSEError | None = None

    def note(self, error: RSEError) -> None:
        with self._lock:
            self._count += 1
            self.last = error

    @property
    def is_enough(self) -> bool:
        return self._count >= _ENOUGH


def _look(
    protocol: StorageProtocol, order: Order, *, failures: _Failures, stopping: Callable[[], bool]
) -> Looked:
    check = order.check
    if stopping():
        return Looked(check, Outcome.UNKNOWN, code="cancelled", reason="the worker was told to end")
    if failures.is_enough and failures.last is not None:
        return Looked(check, Outcome.UNKNOWN, code=failures.last.code, reason=str(failures.last))
    try:
        return _compare(protocol, order, stopping)
    except NotFound:
        return Looked(check, Outcome.MISSING)
    except RSEError as error:
        if isinstance(error, _OF_THE_RSE):
            failures.note(error)
        return Looked(check, Outcome.UNKNOWN, code=error.code, reason=str(error))
    except Exception as error:
        # the boundary of a look: the others go on
        log.exception("replica not read", file_id=check.file_id, rse_id=check.rse_id)
        return Looked(
            check, Outcome.UNKNOWN, code="unexpected_error", reason=f"{type(error).__name__}: {error}"
        )


def _compare(protocol: StorageProtocol, order: Order, stopping: Callable[[], bool]) -> Looked:
    check = order.check
    if order.by_digest and check.adler32 is not None:
        found = protocol.stat(order.path, digest=True)
        if (found.bytes, found.adler32) == (check.bytes, check.adler32):
            return Looked(check, Outcome.GOOD, found.bytes, found.adler32)
    adler32, md5 = Adler32(), Md5() if check.md5 is not None else None
    until = time.monotonic() + check.lease_s
    with closing(protocol.read(order.path)) as pieces:
        for piece in adler32.through(pieces):
            if md5 is not None:
                md5.update(piece)
            if stopping() or time.monotonic() > until:
                raise TransferFailed(
                    f"{protocol.endpoint.rse}: {order.path} was not read to its end; it is read again later.",
                    rse=protocol.endpoint.rse,
                    path=order.path,
                )
    value = adler32.hexdigest()
    if adler32.bytes != check.bytes:
        return Looked(check, Outcome.WRONG_SIZE, adler32.bytes, value)
    is_good = check.adler32 in {None, value} and (md5 is None or md5.hexdigest() == check.md5)
    return Looked(check, Outcome.GOOD if is_good else Outcome.WRONG_CHECKSUM, adler32.bytes, value)


def doubt_missing(
    protocol: StorageProtocol, looked: Sequence[Looked], witnesses: Sequence[str], *, most: int
) -> list[Looked]:
    """Take back that replicas are missing, where the storage as a whole may not be there.

    Parameters
    ----------
    looked
        Of one RSE.
    witnesses
        Paths of other replicas there: one of them is there, or one of ``looked``.
    most
        So many may be missing at once.
    """
    missing = sum(one.outcome is Outcome.MISSING for one in looked)
    if not missing:
        return list(looked)
    if missing > most:
        reason = f"{missing} of {len(looked)} files are missing at once: is all of the storage mounted?"
    elif any(one.bytes is not None for one in looked) or _is_there(protocol, witnesses):
        return list(looked)
    else:
        reason = "it is not there, and nothing else was found there either: is the storage mounted?"
    return [
        Looked(one.check, Outcome.UNKNOWN, code=RSE_DOUBTED, reason=reason)
        if one.outcome is Outcome.MISSING
        else one
        for one in looked
    ]


def _is_there(protocol: StorageProtocol, witnesses: Sequence[str]) -> bool:
    """Whether one of the witnesses is there; without any, whether the prefix holds anything."""
    try:
        if not witnesses:
            return bool(protocol.list_directory(""))
        for path in witnesses:
            try:
                return not protocol.stat(path).is_directory
            except NotFound:
                continue
    except RSEError as error:
        log.info("no witness", rse=protocol.endpoint.rse, code=error.code)
    return False
