"""Asks storages to delete: many requests at once over connections that are kept, with no transaction open.

Before each request it is asked whether the deletion is still held and nobody has said stop; what was not sent comes back as such.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Self
from urllib.parse import quote

import structlog

from arriero.rse.checksum import canonical_adler32
from arriero.rse.errors import NotFound, RSEError, TimedOut, Unavailable
from arriero.rse.lfn2pfn import path_for
from arriero.rse.protocol import StorageProtocol
from arriero.scheduler.deletion_claim import ClaimedDeletion
from arriero.scheduler.deletion_reports import Outcome, Report

log = structlog.get_logger(__name__)

Remove = Callable[[ClaimedDeletion], Report]
"""Does one deletion; raises nothing."""


class StorageThreads:
    """Threads that delete.

    Parameters
    ----------
    remove
        Does one deletion.
    threads
        How many at once.
    may_begin
        Asked before each: whether it is still to be done.
    """

    def __init__(self, remove: Remove, *, threads: int, may_begin: Callable[[ClaimedDeletion], bool]) -> None:
        self._remove = remove
        self._may_begin = may_begin
        self._halted = threading.Event()
        self._orders: queue.SimpleQueue[ClaimedDeletion | None] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._most = threads
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.halt()
        for _thread in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, claimed: Iterable[ClaimedDeletion]) -> None:
        """Queue deletions for the threads."""
        for one in claimed:
            if len(self._threads) < self._most:
                thread = threading.Thread(target=self._run, name="arriero-delete", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._orders.put(one)

    def poll(self, timeout_s: float) -> list[Report]:
        """Give what has ended; waits for the first of it at most ``timeout_s`` seconds."""
        ended: list[Report] = []
        try:
            ended.append(self._reports.get(timeout=timeout_s))
            while True:
                ended.append(self._reports.get_nowait())
        except queue.Empty:
            return ended

    def halt(self) -> None:
        """Send nothing more; what waits comes back unsent at once, however long the threads take."""
        self._halted.set()
        self._take_back(lambda _: True)

    @property
    def is_halted(self) -> bool:
        """Whether nothing more is sent."""
        return self._halted.is_set()

    def leave(self, ids: Iterable[int]) -> None:
        """Do not send these, unless it has happened already."""
        unwanted = frozenset(ids)
        self._take_back(lambda one: one.id in unwanted)

    def _take_back(self, chosen: Callable[[ClaimedDeletion], bool]) -> None:
        waiting: list[ClaimedDeletion] = []
        while True:
            try:
                one = self._orders.get_nowait()
            except queue.Empty:
                break
            if one is not None:
                waiting.append(one)
        for one in waiting:
            if chosen(one):
                self._reports.put(Report(one, Outcome.UNSENT))
            else:
                self._orders.put(one)

    def _run(self) -> None:
        while (one := self._orders.get()) is not None:
            if self._halted.is_set() or not self._may_begin(one):
                self._reports.put(Report(one, Outcome.UNSENT))
            else:
                self._reports.put(self._remove(one))


def remover(protocol: StorageProtocol, algorithm: str) -> Remove:
    """Make what deletes at one RSE.

    Parameters
    ----------
    protocol
        The RSE's.
    algorithm
        LFN-to-PFN algorithm, for files whose path is not stored.
    """
    endpoint = protocol.endpoint
    # a PFN costs as much as half a request: what is the same in all of them is worked out once
    root = endpoint.pfn("x")[:-1]

    def remove(one: ClaimedDeletion) -> Report:
        begun = time.perf_counter()
        url: str | None = None
        code: str | None = None
        reason: str | None = None
        under_way = False
        try:
            path = one.path or path_for(algorithm, one.scope, one.name)
            url = root + quote(path)
            if one.may_go:
                outcome = Outcome.DONE if protocol.delete(path) else Outcome.NOT_FOUND
            else:
                outcome, reason = _look(protocol, path, one)
        except RSEError as error:
            silent = isinstance(error, Unavailable | TimedOut)
            outcome = Outcome.UNREACHABLE if silent else Outcome.FAILED
            under_way = silent and one.may_go
            code, reason = error.code, str(error)
        except Exception as error:
            # the boundary of a deletion: the thread and the others go on
            log.exception("deletion failed unexpectedly", deletion_id=one.id)
            outcome, code, under_way = Outcome.FAILED, "unexpected_error", True
            reason = f"{type(error).__name__}: {error}"
        return Report(
            one,
            outcome,
            code=code,
            reason=reason,
            seconds=time.perf_counter() - begun,
            may_be_under_way=under_way,
            url=url,
            scheme=endpoint.scheme,
        )

    return remove


def _look(protocol: StorageProtocol, path: str, one: ClaimedDeletion) -> tuple[Outcome, str]:
    """See whether the bytes are what the catalogue says; nothing is removed."""
    gone = "the copy that proved that this one may go is not there any more"
    try:
        found = protocol.stat(path, digest=True)
    except NotFound:
        return Outcome.NOT_FOUND, f"{gone}, and nothing is left of this one"
    if found.is_directory or found.bytes != one.bytes:
        what = "a folder" if found.is_directory else f"{found.bytes} bytes"
        return Outcome.SPOILT, f"{gone}; there is {what} and not {one.bytes} bytes"
    if one.adler32 is not None:
        adler32 = found.adler32 or protocol.digest(path)
        if adler32 != canonical_adler32(one.adler32):
            return Outcome.SPOILT, f"{gone}; the adler32 of this one is {adler32}, not {one.adler32}"
    return Outcome.KEPT, f"{gone}; this one is right, and stays"
