"""A mover that moves nothing, for tests and for trying rules at scale: each copy ends as a script says."""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

from arriero.rse.copy import CopyResult
from arriero.rse.errors import RSEError
from arriero.scheduler.mover import Finished
from arriero.scheduler.plan import PlannedCopy
from arriero.scheduler.traffic import Link

Script = Callable[[PlannedCopy], RSEError | None]
"""Gives the error with which a copy ends, None for success."""


def always_succeeds(copy: PlannedCopy) -> RSEError | None:  # noqa: ARG001
    """Say that the copy succeeded."""
    return None


class ScriptedMover:
    """Ends each copy at the next poll, or when it is released.

    Parameters
    ----------
    script
        How copies end.
    hold
        Copies stay under way until `release`, or until they are cancelled.
    """

    def __init__(self, script: Script = always_succeeds, *, hold: bool = False) -> None:
        self._script = script
        self._lock = threading.Lock()
        self._under_way: deque[PlannedCopy] = deque()
        self._cancelled: set[int] = set()
        self._released = threading.Event()
        self.copied: list[PlannedCopy] = []
        self.told: dict[int, int] = {}
        if not hold:
            self._released.set()

    def submit(self, copies: Sequence[PlannedCopy], slots: Mapping[Link, int]) -> None:  # noqa: ARG002
        """Note the copies."""
        with self._lock:
            self._under_way.extend(copies)

    def poll(self, timeout_s: float) -> list[Finished]:
        """End what can be ended."""
        if not self._released.is_set() and not self._cancelled:
            time.sleep(timeout_s)
        with self._lock:
            waiting = list(self._under_way)
            ended = [one for one in waiting if self._released.is_set() or one.request.id in self._cancelled]
            self._under_way = deque(one for one in waiting if one not in ended)
        return [self._end(copy) for copy in ended]

    def cancel(self, request_ids: Collection[int]) -> None:
        """Have copies end as cancelled."""
        self._cancelled.update(request_ids)

    def progress(self) -> Mapping[int, int]:
        """Give what `told` has: the bytes at the destination so far, by request."""
        return self.told

    def close(self) -> None:
        """Forget what is under way."""
        with self._lock:
            self._under_way.clear()

    def under_way(self) -> list[PlannedCopy]:
        """Give the copies that have not ended."""
        with self._lock:
            return list(self._under_way)

    def release(self) -> None:
        """Let the copies end."""
        self._released.set()

    def _end(self, copy: PlannedCopy) -> Finished:
        if copy.request.id in self._cancelled:
            return Finished(copy, None, "cancelled", "taken back")
        error = self._script(copy)
        if error is not None:
            return Finished(copy, None, error.code, str(error), error.retryable, error.rse)
        self.copied.append(copy)
        adler32 = copy.order.adler32 or "00000001"
        return Finished(copy, CopyResult("third_party_pull", "scripted", copy.order.bytes, adler32, 0.001))
