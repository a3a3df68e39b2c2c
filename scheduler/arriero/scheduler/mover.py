"""How copies are done: a port, so that another mover (an FTS, a site's own) can take the place of this one.

A mover knows nothing of the database: it gets orders and gives back how each ended.
"""

import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import structlog

from arriero.rse.attempts import earlier_attempts, remove_attempts
from arriero.rse.copy import CopyResult, copy_file
from arriero.rse.errors import RSEError
from arriero.rse.pool import ProtocolPool
from arriero.scheduler.plan import PlannedCopy
from arriero.scheduler.traffic import Link

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a copy ended."""

    copy: PlannedCopy
    result: CopyResult | None
    """None when it failed."""
    code: str = ""
    reason: str = ""
    retryable: bool = False
    rse: str | None = None
    """The one that failed, by name, where the storage library can tell."""


class Mover(Protocol):
    """Does copies."""

    def submit(self, copies: Sequence[PlannedCopy], slots: Mapping[Link, int]) -> None:
        """Begin copies, or queue them; returns at once.

        Parameters
        ----------
        slots
            How many run at once on each link, from now on.
        """

    def poll(self, timeout_s: float) -> list[Finished]:
        """Give the copies that have ended; waits for the first of them at most ``timeout_s`` seconds."""

    def cancel(self, request_ids: Collection[int]) -> None:
        """Have copies end soon, with code ``cancelled``; those that have ended are passed over."""

    def progress(self) -> Mapping[int, int]:
        """Give the bytes at the destination so far, by request, of the copies under way of which that is known."""

    def close(self) -> None:
        """End what runs and wait for it."""


class CopiesUnderWay:
    """What a mover with threads keeps of its copies: how they have ended, and which are to end."""

    def __init__(self) -> None:
        self._finished: queue.SimpleQueue[Finished] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._closing = threading.Event()

    def poll(self, timeout_s: float) -> list[Finished]:
        """Give the copies that have ended."""
        ended: list[Finished] = []
        try:
            ended.append(self._finished.get(timeout=timeout_s))
            while True:
                ended.append(self._finished.get_nowait())
        except queue.Empty:
            return ended

    def cancel(self, request_ids: Collection[int]) -> None:
        """Have copies end soon."""
        self._cancelled.update(request_ids)

    def _expect(self, copies: Sequence[PlannedCopy]) -> None:
        """Forget that copies which begin now were taken back before."""
        self._cancelled.difference_update(copy.request.id for copy in copies)

    def _is_cancelled(self, copy: PlannedCopy) -> bool:
        return copy.request.id in self._cancelled or self._closing.is_set()

    @contextmanager
    def _told(self, copy: PlannedCopy) -> Iterator[None]:
        """Tell how a copy has failed: its boundary, after which the thread and the other copies go on."""
        try:
            yield
        except RSEError as error:
            self._finished.put(Finished(copy, None, error.code, str(error), error.retryable, error.rse))
        except Exception as error:
            log.exception("copy failed unexpectedly", request_id=copy.request.id)
            reason = f"{type(error).__name__}: {error}"
            self._finished.put(Finished(copy, None, "unexpected_error", reason, retryable=True))


class ThreadMover(CopiesUnderWay):
    """Copies with `arriero.rse.copy.copy_file` in threads of this process.

    Parameters
    ----------
    pool
        Protocols of this process.
    threads
        Copies at once.
    copy
        Does one copy.
    """

    def __init__(
        self, pool: ProtocolPool, *, threads: int, copy: Callable[..., CopyResult] = copy_file
    ) -> None:
        super().__init__()
        self._pool = pool
        self._copy = copy
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="arriero-copy")
        self._lock = threading.Lock()
        self._slots: dict[Link, int] = {}
        self._waiting: dict[Link, deque[PlannedCopy]] = {}
        self._running: Counter[Link] = Counter()
        self._not_begun = 0
        """Copies that have a slot, and wait for a thread."""
        self._progress: dict[int, int] = {}

    def submit(self, copies: Sequence[PlannedCopy], slots: Mapping[Link, int]) -> None:
        """Queue copies for the threads: as many of a link at once as it has slots."""
        self._expect(copies)
        with self._lock:
            self._slots.update(slots)
            for copy in copies:
                self._waiting.setdefault(copy.link, deque()).append(copy)
            for link in self._slots:
                self._begin(link)

    def _begin(self, link: Link) -> None:
        waiting = self._waiting.get(link)
        while waiting and self._running[link] < self._at_once(link):
            self._running[link] += 1
            self._not_begun += 1
            self._executor.submit(self._work_and_go_on, waiting.popleft())

    def _work_and_go_on(self, copy: PlannedCopy) -> None:
        with self._lock:
            self._not_begun -= 1
        going_on: PlannedCopy | None = copy
        while going_on is not None:
            self._work(going_on)
            with self._lock:
                going_on = self._next_of(copy.link)

    def _next_of(self, link: Link) -> PlannedCopy | None:
        """Give the copy that a thread goes on with at once; None where others wait for threads, or nothing may begin."""
        waiting, closing = self._waiting.get(link), self._closing.is_set()
        if waiting and not self._not_begun and not closing and self._running[link] <= self._at_once(link):
            return waiting.popleft()
        self._running[link] -= 1
        if not closing:
            self._begin(link)
        return None

    def _at_once(self, link: Link) -> int:
        return min(self._slots.get(link, 1), self._threads)

    def progress(self) -> Mapping[int, int]:
        """Give the bytes at the destination so far, by request."""
        return self._progress.copy()

    def close(self) -> None:
        """End what runs and wait for it."""
        self._closing.set()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _work(self, copy: PlannedCopy) -> None:
        request_id = copy.request.id

        def on_progress(count: int) -> None:
            self._progress[request_id] = count

        if self._is_cancelled(copy):
            self._finished.put(Finished(copy, None, "cancelled", "not begun"))
            return
        try:
            with self._told(copy):
                earlier = earlier_attempts(copy.request.id, copy.request.fence)
                order = replace(copy.order, earlier_attempts=tuple(earlier)) if earlier else copy.order
                result = self._copy(
                    order, self._pool, cancelled=partial(self._is_cancelled, copy), on_progress=on_progress
                )
                # once more: a storage may have gone on writing for a worker that was killed
                remove_attempts(order, self._pool, earlier)
                self._finished.put(Finished(copy, result))
        finally:
            self._progress.pop(request_id, None)
