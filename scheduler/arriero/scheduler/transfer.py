"""Runs copies: claim, plan, move, settle, round and round until nothing is due.

No transaction is open while bytes move. A thread shows a sign of life for all that is held; work whose lease was lost
is ended, and its report would not count anyway.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog
from sqlalchemy import Connection

from arriero.registry.errors import Busy
from arriero.registry.ports import Bell
from arriero.registry.services.context import Context
from arriero.rse.pool import ProtocolPool
from arriero.scheduler import hops
from arriero.scheduler.claim import ClaimedRequest, claim_requests, extend_leases
from arriero.scheduler.core.breaker import DOWN, FIRST_WAIT_S
from arriero.scheduler.held_leases import HeldLeases
from arriero.scheduler.lanes import Place, find_lanes
from arriero.scheduler.mover import Finished, Mover, ThreadMover
from arriero.scheduler.plan import PlannedCopy, Unplanned, plan_copies, read_credentials
from arriero.scheduler.reports import Outcome, Report, Transfer, failure, released, success
from arriero.scheduler.rse_catalogue import RseCatalogue, load_rses
from arriero.scheduler.settle import Settled, settle
from arriero.scheduler.traffic import Link, Traffic, load_traffic, note_probes
from arriero.scheduler.traffic_record import CopyOutcome, record
from arriero.scheduler.workers import TIME_BUDGET_S, never, worker_name

log = structlog.get_logger(__name__)

LINGER_S = 0.05
"""How long the first report of a batch waits for others, seconds."""

AHEAD_S = 1.0
"""How long what a worker holds keeps it busy, seconds."""

KNOWN_FOR_S = 1.0
"""How long what was read of the RSEs is believed, seconds."""

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
    held: HeldLeases
    size: int
    """Requests to hold: what is copied in a while, and no more."""
    summary: RunSummary = field(default_factory=RunSummary)
    finished: list[Finished] = field(default_factory=list)
    """Copies that have ended, of which no report is made yet."""
    reports: list[Report] = field(default_factory=list)
    oldest: float = 0.0
    next_claim: float = 0.0
    links: Counter[Link] = field(default_factory=Counter)
    """Copies that are under way here, by link."""
    beyond: Place | None = None
    """The lane at which the last claim has stopped."""
    began: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> int:
        """Requests that wait to be settled."""
        return len(self.finished) + len(self.reports)

    def note(self, finished: Sequence[Finished], reports: Sequence[Report] = ()) -> None:
        if not self.ended:
            self.oldest = time.monotonic()
        self.finished.extend(finished)
        self.links.subtract(one.copy.link for one in finished)
        self.reports.extend(reports)


@dataclass(slots=True)
class _Taken:
    """What one claim has brought."""

    traffic: Traffic
    beyond: Place | None
    claimed: Sequence[ClaimedRequest] = ()
    planned: Sequence[PlannedCopy] = ()
    unplanned: Sequence[Unplanned] = ()


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
        self._least = min(4 * threads, context.settings.transfer_batch)
        self._catalogue: tuple[float, RseCatalogue] | None = None

    def run(self, *, budget_s: float = TIME_BUDGET_S) -> RunSummary:
        """Copy what is due until nothing is, or the time is up; then the bell is rung for the rest.

        Parameters
        ----------
        budget_s
            How long requests are claimed, seconds; copies under way are waited for.
        """
        mover = self._make_mover()
        self._catalogue = None
        try:
            with HeldLeases(self._extend, mover.cancel, lease_s=self._settings.transfer_lease_s) as held:
                run = _Run(mover, held, self._least)
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
            if len(run.held) > run.ended:
                run.note(run.mover.poll(LINGER_S))
            self._settle_when_due(run)
            if not len(run.held):
                if stopping or (in_time and not taken and run.next_claim > time.monotonic()):
                    return
                if not in_time:
                    self._context.doorbell.ring(Bell.REQUESTS)
                    return

    def _wants_more(self, run: _Run) -> bool:
        return len(run.held) <= run.size // 2 and time.monotonic() >= run.next_claim

    def _take(self, run: _Run) -> int:
        taken = self._context.database.run(
            partial(self._claim, known=self._known(), limit=run.size - len(run.held), beyond=run.beyond)
        )
        run.beyond = taken.beyond
        again = taken.claimed or run.beyond is not None
        run.next_claim = 0.0 if again else time.monotonic() + CLAIM_AGAIN_S
        if not taken.claimed:
            return 0
        run.summary.claimed += len(taken.claimed)
        run.held.add(taken.claimed)
        wanted = [hops.Hop(one.request, one.hop_id) for one in taken.unplanned if one.hop_id is not None]
        if wanted:
            self._context.database.run(lambda tx: hops.ask_for(tx, wanted))
        run.links.update(copy.link for copy in taken.planned)
        run.mover.submit(taken.planned, taken.traffic.slots(run.links))
        run.note((), [self._report_unplanned(fault) for fault in taken.unplanned])
        return len(taken.claimed)

    def _known(self) -> RseCatalogue:
        """The RSEs, as they were a moment ago: what is claimed is planned with them too."""
        if self._catalogue is None or time.monotonic() - self._catalogue[0] > KNOWN_FOR_S:
            with self._context.database.snapshot() as connection:
                self._catalogue = time.monotonic(), load_rses(connection)
        return self._catalogue[1]

    def _claim(self, tx: Connection, *, known: RseCatalogue, limit: int, beyond: Place | None) -> _Taken:
        settings = self._settings
        traffic = load_traffic(tx, known, settings.activity_shares)
        lanes, more = find_lanes(tx, beyond=beyond)
        taken = _Taken(traffic, more)

        def choose_sources(claimed: Sequence[ClaimedRequest]) -> Mapping[int, int]:
            if any(request.destination_id not in traffic.known.by_id for request in claimed):
                traffic.known = load_rses(tx)
            taken.planned, taken.unplanned = plan_copies(tx, claimed, traffic, self._credentials)
            return {copy.request.id: copy.source_id for copy in taken.planned}

        taken.claimed = claim_requests(
            tx,
            self._owner,
            limit=limit,
            lease_s=settings.transfer_lease_s,
            traffic=traffic,
            lanes=lanes,
            choose_sources=choose_sources,
        )
        note_probes(tx, traffic.probed)
        return taken

    def _reports(self, finished: Sequence[Finished]) -> list[Report]:
        """Learn from copies that have ended, and say what becomes of their requests."""
        ids = {rse.name: rse.id for rse in self._known().by_id.values()}
        outcomes = [_outcome(one, ids) for one in finished if one.code != "cancelled"]
        down = self._context.database.run(lambda tx: record(tx, outcomes))
        return [self._report(one, ids.get(one.rse or "") in down and one.code in DOWN) for one in finished]

    def _report(self, finished: Finished, is_down: bool) -> Report:
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
        if is_down:
            # no fault of the file: no attempt is spent while the RSE is down
            return released(copy.request, finished.reason, code=finished.code, delay_s=FIRST_WAIT_S)
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
        if fault.wait_s is not None:
            return released(fault.request, fault.reason, code=fault.code, delay_s=fault.wait_s)
        return failure(fault.request, self._settings, fault.code, fault.reason, retryable=fault.retryable)

    def _settle_when_due(self, run: _Run) -> None:
        if not run.ended:
            return
        waited = time.monotonic() - run.oldest
        alone = run.ended >= len(run.held)
        if not alone and run.ended < self._settings.transfer_batch and waited < LINGER_S:
            return
        finished, run.finished = run.finished, []
        run.reports.extend(self._reports(finished))
        batch, run.reports = run.reports, []
        try:
            result = settle(self._context.database, batch, stuck_retry_s=self._settings.stuck_retry_s)
        except Busy as error:
            log.warning("batch not settled yet", reports=len(batch), cause=error.code)
            run.reports = batch
            return
        run.held.drop(batch)
        run.summary.add(result)
        self._go_on(batch)
        self._adapt(run)
        if result.evaluations:
            self._context.doorbell.ring(Bell.EVALUATIONS)

    def _go_on(self, batch: Sequence[Report]) -> None:
        """Have what waits for copies of this batch looked at again."""
        ended = [(one.file_id, one.rse_id) for one in batch if one.outcome is not Outcome.RELEASED]
        with self._context.database.snapshot() as connection:
            found = hops.are_hops(connection, ended)
        if found:
            self._context.database.run(lambda tx: hops.go_on(tx, found))
            self._context.doorbell.ring(Bell.REQUESTS)

    def _adapt(self, run: _Run) -> None:
        """Hold what is copied in `AHEAD_S`: short copies are taken and settled in large batches, long ones left to others."""
        rate = run.summary.done / max(time.monotonic() - run.began, 0.001)
        run.size = min(self._settings.transfer_batch, max(self._least, int(rate * AHEAD_S)))

    def _extend(self, ids: list[int]) -> frozenset[tuple[int, int]]:
        lease_s = self._settings.transfer_lease_s
        return self._context.database.run(lambda tx: extend_leases(tx, self._owner, ids, lease_s=lease_s))


def _outcome(finished: Finished, ids: Mapping[str, int]) -> CopyOutcome:
    copy, result = finished.copy, finished.result
    return CopyOutcome(
        copy.source_id,
        copy.request.destination_id,
        bytes=0 if result is None else copy.request.bytes,
        seconds=0.0 if result is None else result.seconds,
        mode=None if result is None else result.mode,
        mode_reason=None if result is None else result.mode_reason,
        code=finished.code or None,
        reason=finished.reason[:1000] or None,
        blamed_id=ids.get(finished.rse or ""),
    )


def _figures(summary: RunSummary) -> dict[str, int]:
    return {name: getattr(summary, name) for name in RunSummary.__slots__ if getattr(summary, name)}
