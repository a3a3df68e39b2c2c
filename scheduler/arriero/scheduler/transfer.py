"""Runs copies: claim, plan, move, settle, round and round until nothing is due.

No transaction is open while bytes move. A thread shows a sign of life for all that is held; work whose lease was lost
is ended, and its report would not count anyway.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from arriero.registry.errors import Busy
from arriero.registry.ports import Bell
from arriero.registry.services.context import Context
from arriero.rse.pool import ProtocolPool
from arriero.scheduler.claim import ClaimedRequest, claim_requests, extend_leases, note_sources
from arriero.scheduler.mover import Finished, Mover, ThreadMover
from arriero.scheduler.plan import PlannedCopy, Unplanned, plan_copies, read_credentials
from arriero.scheduler.reports import Report, Transfer, failure, released, success
from arriero.scheduler.rse_catalogue import load_rses
from arriero.scheduler.settle import Settled, settle
from arriero.scheduler.workers import TIME_BUDGET_S, never, worker_name

log = structlog.get_logger(__name__)

LINGER_S = 0.05
"""How long the first report of a batch waits for others, seconds."""

CLAIM_AGAIN_S = 0.25
"""How soon a queue that was found empty is looked at again while copies run, seconds."""


@dataclass(slots=True)
class RunSummary:
    """What one run did."""

    claimed: int = 0
    done: int = 0
    retried: int = 0
    failed: int = 0
    released: int = 0
    dropped: int = 0
    discarded: int = 0

    def add(self, result: Settled) -> None:
        """Count a settled batch."""
        self.done += result.done
        self.retried += result.retried
        self.failed += result.failed
        self.released += result.released
        self.dropped += result.dropped
        self.discarded += result.discarded


@dataclass(slots=True)
class _Run:
    """The state of one run."""

    mover: Mover
    held: "HeldLeases"
    summary: RunSummary = field(default_factory=RunSummary)
    reports: list[Report] = field(default_factory=list)
    oldest: float = 0.0
    next_claim: float = 0.0

    def note(self, reports: Sequence[Report]) -> None:
        if reports and not self.reports:
            self.oldest = time.monotonic()
        self.reports.extend(reports)


class HeldLeases:
    """Extends the leases of what a worker holds, every third of their time, in a thread of its own.

    Parameters
    ----------
    extend
        Given the ids, extends them and gives the (id, fence) that are still held.
    lost
        Called with the ids that are not, from the thread.
    lease_s
        Length of a lease, seconds.
    """

    def __init__(
        self,
        extend: Callable[[list[int]], frozenset[tuple[int, int]]],
        lost: Callable[[set[int]], None],
        *,
        lease_s: float,
    ) -> None:
        self._extend = extend
        self._lost = lost
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}
        self._extended_at = time.monotonic()
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
            if not self._held:
                self._extended_at = time.monotonic()
            self._held.update((request.id, request.fence) for request in requests)

    def drop(self, reports: Sequence[Report]) -> None:
        """Hold these no longer."""
        with self._lock:
            for report in reports:
                self._held.pop(report.request_id, None)

    def ids(self) -> set[int]:
        """Requests that are held."""
        with self._lock:
            return set(self._held)

    def _run(self) -> None:
        while not self._ended.wait(self._lease_s / 3):
            self.beat()

    def beat(self) -> None:
        """Extend once."""
        with self._lock:
            held = dict(self._held)
        if not held:
            return
        begun = time.monotonic()
        try:
            still = self._extend(sorted(held))
        except (SQLAlchemyError, Busy) as error:
            log.warning("leases not extended", cause=type(error).__name__)
            if begun - self._extended_at > self._lease_s:
                self._lost(set(held))
            return
        self._extended_at = begun
        with self._lock:
            gone = {
                request_id
                for request_id, fence in held.items()
                if (request_id, fence) not in still and self._held.get(request_id) == fence
            }
        if gone:
            log.warning("leases lost", count=len(gone))
            self._lost(gone)


class TransferRunner:
    """Works on the queue of requests.

    Parameters
    ----------
    context
        Database, settings, doorbell.
    pool
        Protocols of this process.
    make_mover
        Makes what does the copies of one run; threads with `copy_file` when None.
    stopping
        Asked all the time; True ends `run`: copies under way are taken back and their requests released.
    """

    def __init__(
        self,
        context: Context,
        *,
        pool: ProtocolPool | None = None,
        make_mover: Callable[[], Mover] | None = None,
        stopping: Callable[[], bool] = never,
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._pool = pool or ProtocolPool()
        threads = context.settings.transfer_threads
        self._make_mover = make_mover or (lambda: ThreadMover(self._pool, threads=threads))
        self._credentials = read_credentials(context.settings.credentials_file)
        self._owner = worker_name("transfer")
        self._stopping = stopping

    def run(self, *, budget_s: float = TIME_BUDGET_S) -> RunSummary:
        """Copy what is due until nothing is, or the time is up; then the bell is rung for the rest.

        Parameters
        ----------
        budget_s
            How long requests are claimed, seconds; copies under way are waited for.
        """
        mover = self._make_mover()
        try:
            with HeldLeases(self._extend, mover.cancel, lease_s=self._settings.transfer_lease_s) as held:
                run = _Run(mover, held)
                self._rounds(run, until=time.monotonic() + budget_s)
        finally:
            mover.close()
        if run.summary.claimed:
            log.info("transfers run", **_figures(run.summary))
        return run.summary

    def _rounds(self, run: _Run, *, until: float) -> None:
        while True:
            stopping = self._stopping()
            if stopping:
                run.mover.cancel(run.held.ids())
            in_time = time.monotonic() < until
            taken = 0
            if in_time and not stopping and self._wants_more(run):
                taken = self._take(run)
            under_way = len(run.held) - len(run.reports)
            if under_way > 0:
                run.note([self._report(finished) for finished in run.mover.poll(LINGER_S)])
            self._settle_when_due(run)
            if not len(run.held):
                if stopping or (in_time and not taken and run.next_claim > time.monotonic()):
                    return
                if not in_time:
                    self._context.doorbell.ring(Bell.REQUESTS)
                    return

    def _wants_more(self, run: _Run) -> bool:
        return len(run.held) <= self._settings.transfer_batch // 2 and time.monotonic() >= run.next_claim

    def _take(self, run: _Run) -> int:
        settings = self._settings
        limit = settings.transfer_batch - len(run.held)
        claimed = self._context.database.run(
            lambda tx: claim_requests(tx, self._owner, limit=limit, lease_s=settings.transfer_lease_s)
        )
        run.next_claim = 0.0 if claimed else time.monotonic() + CLAIM_AGAIN_S
        if not claimed:
            return 0
        run.summary.claimed += len(claimed)
        run.held.add(claimed)
        planned, unplanned = self._plan(claimed)
        run.mover.submit(planned)
        run.note([self._report_unplanned(fault) for fault in unplanned])
        return len(claimed)

    def _plan(self, claimed: Sequence[ClaimedRequest]) -> tuple[list[PlannedCopy], list[Unplanned]]:
        with self._context.database.snapshot() as connection:
            planned, unplanned = plan_copies(connection, claimed, load_rses(connection), self._credentials)
        sources = {copy.request.id: copy.source_id for copy in planned}
        self._context.database.run(lambda tx: note_sources(tx, self._owner, sources))
        return planned, unplanned

    def _report(self, finished: Finished) -> Report:
        copy = finished.copy
        order = copy.order
        result = finished.result
        transfer = Transfer(
            mode=None if result is None else result.mode,
            seconds=None if result is None else result.seconds,
            source_rse=order.source.rse,
            source_url=order.source.pfn(order.source_path),
            destination_url=order.destination.pfn(order.destination_path),
            scheme=order.destination.scheme,
        )
        if result is not None:
            return success(copy.request, transfer)
        if finished.code == "cancelled":
            return released(copy.request, finished.reason)
        return failure(
            copy.request,
            self._settings,
            finished.code,
            finished.reason,
            retryable=finished.retryable,
            alternatives=copy.alternatives,
            transfer=transfer,
        )

    def _report_unplanned(self, fault: Unplanned) -> Report:
        return failure(fault.request, self._settings, fault.code, fault.reason, retryable=fault.retryable)

    def _settle_when_due(self, run: _Run) -> None:
        if not run.reports:
            return
        waited = time.monotonic() - run.oldest
        alone = len(run.reports) >= len(run.held)
        if not alone and len(run.reports) < self._settings.transfer_batch and waited < LINGER_S:
            return
        batch, run.reports = run.reports, []
        try:
            result = settle(self._context.database, batch, stuck_retry_s=self._settings.stuck_retry_s)
        except Busy as error:
            log.warning("batch not settled yet", reports=len(batch), cause=error.code)
            run.reports = batch
            return
        run.held.drop(batch)
        run.summary.add(result)
        if result.evaluations:
            self._context.doorbell.ring(Bell.EVALUATIONS)

    def _extend(self, ids: list[int]) -> frozenset[tuple[int, int]]:
        lease_s = self._settings.transfer_lease_s
        return self._context.database.run(lambda tx: extend_leases(tx, self._owner, ids, lease_s=lease_s))


def _figures(summary: RunSummary) -> dict[str, int]:
    return {name: getattr(summary, name) for name in RunSummary.__slots__ if getattr(summary, name)}
