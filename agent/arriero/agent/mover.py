"""The mover of a site: claims requests of its RSEs over HTTP, copies them in threads, keeps their leases, reports.

Why it exists: `file` RSEs, and storage that only the site can reach, are out of reach of the central workers. A fence, not
a clock, decides whose report counts. The mover may die at any line: leases run out, another attempt begins under another
name, and what was finished is adopted. It keeps nothing on disk and must not know a database.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

import structlog

from arriero.agent.backoff import Backoff, may_pass
from arriero.registry.moving import OrderEndpoint, RequestOrder, RequestOutcome
from arriero.registry.rse_credentials import Credentials, RseCredentials
from arriero.rse.attempts import earlier_attempts, remove_attempts
from arriero.rse.copy import CopyOrder, CopyResult, copy_file
from arriero.rse.errors import Cancelled, RSEError
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint

log = structlog.get_logger(__name__)

AHEAD = 2
"""Copies held for each thread: one that runs, and one that begins when it ends."""

BATCH = 500
"""Most outcomes of one report."""

LINGER_S = 0.05
"""How long the first outcome of a batch waits for others, seconds."""

IDLE_PAUSE_S = 0.5
"""Pause after an empty answer that came without waiting, seconds."""


class RequestQueue(Protocol):
    """The catalogue as a mover sees it (`arriero.registry.calls.movers.MoverCalls`)."""

    def claim_requests(
        self, worker: str, limit: int, wait_s: float, lease_s: float, *, rses: Sequence[str] = ()
    ) -> list[RequestOrder]: ...
    def extend_requests(
        self,
        worker: str,
        ids_and_fences: Sequence[tuple[int, int]],
        lease_s: float,
        *,
        copied: Mapping[int, int],
    ) -> list[int]: ...
    def report_requests(self, worker: str, outcomes: Sequence[RequestOutcome]) -> list[int]: ...


class SiteMover:
    """Claims, copies and reports until it is told to stop.

    Parameters
    ----------
    catalogue
        The registry.
    worker_name
        Who holds the leases; one name for each process.
    credentials
        Of the RSEs, by name; the registry has none to give.
    rses
        Only of these; all that the token is bound to when empty.
    threads
        Copies at once.
    lease_s
        Length of a lease, seconds; it is extended every third of it.
    wait_s
        Long poll, seconds; also how long a stop may take when there is nothing to do.
    copy
        Does one copy.
    """

    def __init__(
        self,
        catalogue: RequestQueue,
        worker_name: str,
        *,
        credentials: Credentials | None = None,
        rses: Sequence[str] = (),
        threads: int = 4,
        lease_s: float = 60.0,
        wait_s: float = 3.0,
        copy: Callable[..., CopyResult] = copy_file,
    ) -> None:
        self._catalogue = catalogue
        self._name = worker_name
        self._credentials = credentials or {}
        self._rses = tuple(rses)
        self._threads = threads
        self._lease_s = lease_s
        self._wait_s = wait_s
        self._copy = copy
        self._pool = ProtocolPool()
        self._lock = threading.Condition()
        self._held: dict[int, int] = {}
        """Fences of what is claimed and not reported."""
        self._progress: dict[int, int] = {}
        """Bytes at the destination so far of what runs."""
        self._lost: set[tuple[int, int]] = set()
        """What is held no more, though it may still run."""
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._outcomes: queue.SimpleQueue[RequestOutcome] = queue.SimpleQueue()
        self._fault: Exception | None = None

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; copies under way are ended then, and their requests given back.

        Raises
        ------
        Exception
            What the registry says that waiting will not mend: the token is not bound to these RSEs, say.
        """
        with structlog.contextvars.bound_contextvars(worker=self._name):
            log.info("mover started", threads=self._threads, lease_s=self._lease_s)
            reporter = threading.Thread(target=self._report_all, name="reports", daemon=True)
            keeper = threading.Thread(target=self._keep_leases, name="leases", daemon=True)
            reporter.start()
            keeper.start()
            executor = ThreadPoolExecutor(self._threads, thread_name_prefix="copy")
            try:
                self._claim_all(stop, executor)
            finally:
                self._stopping.set()
                executor.shutdown(wait=True)
                self._ended.set()
                reporter.join()
                keeper.join()
                self._pool.close()
            log.info("mover stopped", unreported=len(self._held))
        if self._fault is not None:
            raise self._fault

    # -- claiming, in the thread of `run` --

    def _claim_all(self, stop: threading.Event, executor: ThreadPoolExecutor) -> None:
        backoff = Backoff()
        while not stop.is_set() and self._fault is None:
            room = self._room()
            if room <= 0:
                continue
            asked = time.monotonic()
            wait_s = self._wait_s if room == AHEAD * self._threads else min(self._wait_s, IDLE_PAUSE_S)
            try:
                orders = self._catalogue.claim_requests(
                    self._name, room, wait_s, self._lease_s, rses=self._rses
                )
            except Exception as error:
                if not may_pass(error):
                    raise
                log.warning("catalogue unreachable", reason=str(error))
                backoff.wait(stop)
                continue
            backoff.reset()
            with self._lock:
                self._held.update((order.id, order.fence) for order in orders)
            for order in orders:
                executor.submit(self._work, order)
            if not orders and time.monotonic() - asked < wait_s / 2:
                stop.wait(IDLE_PAUSE_S)

    def _room(self) -> int:
        """Wait a moment for a thread to have too little to do; give how many more may be held."""
        most = AHEAD * self._threads
        with self._lock:
            self._lock.wait_for(lambda: len(self._held) <= most // 2, timeout=IDLE_PAUSE_S)
            return most - len(self._held) if len(self._held) <= most // 2 else 0

    # -- copying --

    def _work(self, claimed: RequestOrder) -> None:
        try:
            outcome = self._outcome(claimed)
        except Exception as error:
            # the boundary of a copy: the thread and the other copies go on
            log.exception("copy failed unexpectedly", request_id=claimed.id)
            outcome = _failed(claimed, "unexpected_error", f"{type(error).__name__}: {error}", retryable=True)
        self._outcomes.put(outcome)

    def _outcome(self, claimed: RequestOrder) -> RequestOutcome:
        def cancelled() -> bool:
            return self._stopping.is_set() or (claimed.id, claimed.fence) in self._lost

        def on_progress(count: int) -> None:
            self._progress[claimed.id] = count

        if cancelled():
            return _released(claimed, "not begun")
        names = earlier_attempts(claimed.id, claimed.fence)
        try:
            order = replace(self._order(claimed), earlier_attempts=tuple(names))
            result = self._copy(order, self._pool, cancelled=cancelled, on_progress=on_progress)
            remove_attempts(order, self._pool, names)
        except Cancelled as error:
            return _released(claimed, str(error))
        except RSEError as error:
            return _failed(claimed, error.code, str(error), retryable=error.retryable, rse=error.rse)
        finally:
            self._progress.pop(claimed.id, None)
        return RequestOutcome(
            id=claimed.id,
            fence=claimed.fence,
            state="done",
            mode=result.mode,
            mode_reason=result.mode_reason[:1000],
            bytes=result.bytes,
            adler32=result.adler32,
            seconds=result.seconds,
        )

    def _order(self, claimed: RequestOrder) -> CopyOrder:
        return CopyOrder(
            source=self._endpoint(claimed.source),
            source_path=claimed.source_path,
            destination=self._endpoint(claimed.destination),
            destination_path=claimed.destination_path,
            bytes=claimed.bytes,
            adler32=claimed.adler32,
            md5=claimed.md5,
            attempt_name=claimed.attempt_name,
            replaces_bad=claimed.replaces_bad,
        )

    def _endpoint(self, told: OrderEndpoint) -> Endpoint:
        bare = Endpoint(told.rse, told.scheme, told.hostname, told.port, told.prefix)
        return self._credentials.get(told.rse, RseCredentials()).of(bare)

    # -- leases and reports, each in a thread --

    def _keep_leases(self) -> None:
        extended_at = time.monotonic()
        while not self._ended.wait(self._lease_s / 3):
            with self._lock:
                held = dict(self._held)
            begun = time.monotonic()
            try:
                lost = self._extended(held)
            except Exception as error:  # noqa: BLE001 - a thread's border: the next turn tries again
                log.warning("leases not extended", reason=str(error), kind=type(error).__name__)
                lost = list(held) if begun - extended_at > self._lease_s else []
            else:
                extended_at = begun
            with self._lock:
                gone = {(key, held[key]) for key in lost if self._held.get(key) == held[key]}
                self._lost |= gone
            if gone:
                log.warning("leases lost", requests=sorted(key for key, _ in gone))

    def _extended(self, held: Mapping[int, int]) -> list[int]:
        if not held:
            return []
        return self._catalogue.extend_requests(
            self._name, sorted(held.items()), self._lease_s, copied=self._progress.copy()
        )

    def _report_all(self) -> None:
        backoff = Backoff()
        batch: list[RequestOutcome] = []
        while True:
            last = self._ended.is_set()
            batch += self._take(BATCH - len(batch))
            if not batch:
                if last:
                    return
                continue
            try:
                rejected = self._catalogue.report_requests(self._name, batch)
            except Exception as error:  # noqa: BLE001 - a thread's border: `run` raises it
                log.warning("not reported yet", outcomes=len(batch), reason=str(error))
                if last or not may_pass(error):
                    # what is left is claimed again when the leases have run out
                    self._fault = None if may_pass(error) else error
                    if last:
                        return
                    self._let_go(batch)
                    batch = []
                    continue
                backoff.wait(self._ended)
                continue
            backoff.reset()
            if rejected:
                log.warning("reports rejected", requests=sorted(rejected))
            self._let_go(batch)
            batch = []

    def _take(self, most: int) -> list[RequestOutcome]:
        """Take outcomes: wait a moment for the first, and a shorter one for others."""
        found: list[RequestOutcome] = []
        wait_s = LINGER_S * 4
        while len(found) < most:
            try:
                found.append(self._outcomes.get(timeout=wait_s))
            except queue.Empty:
                return found
            wait_s = LINGER_S
        return found

    def _let_go(self, reported: Sequence[RequestOutcome]) -> None:
        with self._lock:
            for one in reported:
                if self._held.get(one.id) == one.fence:
                    del self._held[one.id]
                self._lost.discard((one.id, one.fence))
            self._lock.notify_all()


def _released(claimed: RequestOrder, reason: str) -> RequestOutcome:
    return RequestOutcome(
        id=claimed.id, fence=claimed.fence, state="released", code="released", reason=reason[:4000]
    )


def _failed(
    claimed: RequestOrder, code: str, reason: str, *, retryable: bool, rse: str | None = None
) -> RequestOutcome:
    return RequestOutcome(
        id=claimed.id,
        fence=claimed.fence,
        state="failed",
        code=code,
        reason=reason[:4000],
        retryable=retryable,
        rse=rse,
    )
