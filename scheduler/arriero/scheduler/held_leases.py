"""Shows a sign of life for what a worker holds, in a thread of its own."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from arriero.registry.errors import Busy
from arriero.scheduler.claim import ClaimedRequest
from arriero.scheduler.reports import Report

log = structlog.get_logger(__name__)

MOST_S = 5.0
"""How long what somebody has taken back goes on at most, seconds: as often the leases are looked at."""


class HeldLeases:
    """Extends the leases of what a worker holds, every third of their time or `MOST_S`, in a thread of its own.

    Parameters
    ----------
    extend
        Given the ids, and those of them whose leases need no extension yet; gives the (id, fence) that are still held.
    lost
        Called with the ids that are not, from the thread.
    lease_s
        Length of a lease, seconds.
    """

    def __init__(
        self,
        extend: Callable[[list[int], frozenset[int]], frozenset[tuple[int, int]]],
        lost: Callable[[set[int]], None],
        *,
        lease_s: float,
    ) -> None:
        self._extend = extend
        self._lost = lost
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}
        self._settling: set[int] = set()
        self._since: dict[int, float] = {}
        """When each lease began, or was extended."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arriero-leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, requests: Sequence[ClaimedRequest]) -> None:
        """Hold these as well."""
        with self._lock:
            self._since.update(dict.fromkeys((request.id for request in requests), time.monotonic()))
            self._held.update((request.id, request.fence) for request in requests)

    def drop(self, reports: Sequence[Report]) -> None:
        """Hold these no longer."""
        with self._lock:
            for report in reports:
                self._held.pop(report.request_id, None)
                self._since.pop(report.request_id, None)
                self._settling.discard(report.request_id)

    def settling(self, reports: Sequence[Report]) -> None:
        """These are about to be settled: that a lease is not found any more says nothing about them."""
        with self._lock:
            self._settling.update(report.request_id for report in reports)

    def ids(self) -> set[int]:
        """Requests that are held."""
        with self._lock:
            return set(self._held)

    def _run(self) -> None:
        while not self._ended.wait(min(self._lease_s / 3, MOST_S)):
            self.beat()

    def beat(self) -> None:
        """Extend once; a short copy ends before its lease needs it, and is only looked for."""
        begun = time.monotonic()
        with self._lock:
            held = {key: fence for key, fence in self._held.items() if key not in self._settling}
            age = {key: begun - self._since[key] for key in held}
        if not held:
            return
        young = frozenset(key for key, seconds in age.items() if seconds < self._lease_s / 4)
        try:
            still = self._extend(sorted(held), young)
        except (SQLAlchemyError, Busy) as error:
            log.warning("leases not extended", cause=type(error).__name__)
            over = {key for key, seconds in age.items() if seconds > self._lease_s}
            if over:
                self._lost(over)
            return
        with self._lock:
            self._since.update((key, begun) for key in held if key not in young and key in self._held)
            gone = {
                request_id
                for request_id, fence in held.items()
                if (request_id, fence) not in still
                and self._held.get(request_id) == fence
                and request_id not in self._settling
            }
        if gone:
            log.warning("leases lost", count=len(gone))
            self._lost(gone)
