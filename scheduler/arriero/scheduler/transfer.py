"""Runs copies: claim, plan, move, settle, round and round until nothing is due.

No transaction is open while bytes move. A thread shows a sign of life for all that is held; work whose lease was lost
is ended, and its report would not count anyway.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog
from sqlalchemy import Connection

from arriero.registry.errors import Busy
from arriero.registry.ports import Bell
from arriero.registry.rse_credentials import read_credentials
from arriero.registry.services.context import Context
from arriero.rse.pool import ProtocolPool
from arriero.scheduler.claim import extend_leases, fair_part, still_held
from arriero.scheduler.copy_ends import CopyEnds
from arriero.scheduler.held_leases import HeldLeases
from arriero.scheduler.lanes import Place, find_lanes
from arriero.scheduler.mover import Finished, Mover
from arriero.scheduler.movers import mover_of
from arriero.scheduler.reports import Report
from arriero.scheduler.rse_catalogue import RseCatalogue, load_rses
from arriero.scheduler.settle import Settled
from arriero.scheduler.storage_memory import StorageMemory
from arriero.scheduler.take import Taken, ask_for_hops, take
from arriero.scheduler.traffic import Link, load_traffic
from arriero.scheduler.workers import TIME_BUDGET_S, never, worker_name

log = structlog.get_logger(__name__)

LINGER_S = 0.05
"""How long one look for copies that have ended waits for the first, seconds."""

SETTLE_AFTER_S = (0.2, 1.0)
"""How long the first report of a batch waits for others while copies are under way, seconds: at least, and at most.
Between them `SETTLE_PAUSE` times as long as the settlement before has taken."""

SETTLE_PAUSE = 8.0
"""So of all time a ninth at most goes into settlements, whatever one costs."""

RING_AGAIN_S = 1.0
"""How often a worker that takes all that it can hold rings for another one, seconds."""

AHEAD_S = 4.0
"""How long what a worker holds keeps it busy, seconds; it claims again when half of it is left."""

KNOWN_FOR_S = 1.0
"""How long what was read of the RSEs is believed, seconds."""

CLAIM_AGAIN_S = (0.25, 2.0)
"""How soon a queue that was found empty is looked at again while copies run, seconds: at first, and at most; each time
twice as long."""


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
    low: int = 0
    """Where no more than this is left to copy, more is claimed."""
    summary: RunSummary = field(default_factory=RunSummary)
    finished: list[Finished] = field(default_factory=list)
    """Copies that have ended, of which no report is made yet."""
    reports: list[Report] = field(default_factory=list)
    oldest: float = 0.0
    settle_after: float = SETTLE_AFTER_S[0]
    next_claim: float = 0.0
    look_after: float = CLAIM_AGAIN_S[0]
    next_ring: float = 0.0
    links: Counter[Link] = field(default_factory=Counter)
    """Copies that are under way here, by link."""
    beyond: Place | None = None
    """The lane at which the last claim has stopped."""
    began: float = 0.0
    """When the first requests were taken."""

    @property
    def ended(self) -> int:
        """Requests that wait to be settled."""
        return len(self.finished) + len(self.reports)

    @property
    def to_copy(self) -> int:
        """Requests that are held and have not ended."""
        return len(self.held) - self.ended

    def note(self, finished: Sequence[Finished], reports: Sequence[Report] = ()) -> None:
        if not self.ended:
            self.oldest = time.monotonic()
        self.finished.extend(finished)
        for one in finished:
            self.links[one.copy.link] -= 1
        self.reports.extend(reports)


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
        self._ends = CopyEnds(context)
        self._pool = pool or ProtocolPool()
        threads = context.settings.transfer_threads
        self._make_mover = make_mover or (lambda: mover_of(context.settings, self._pool))
        self._credentials = read_credentials(context.settings.credentials_file)
        self._memory = StorageMemory(context.database, self._pool)
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
        self._memory.recall()
        try:
            extend = partial(self._extend, mover)
            with HeldLeases(extend, mover.cancel, lease_s=self._settings.transfer_lease_s) as held:
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
            if run.to_copy > self._least // 2:
                # much is under way: one look at it for all that ends meanwhile
                time.sleep(LINGER_S)
                run.note(run.mover.poll(0.0))
            elif run.to_copy:
                run.note(run.mover.poll(LINGER_S))
            self._settle_when_due(run)
            if not len(run.held):
                if stopping or (in_time and not taken and run.next_claim > time.monotonic()):
                    return
                if not in_time:
                    self._context.doorbell.ring(Bell.REQUESTS)
                    return

    def _wants_more(self, run: _Run) -> bool:
        return run.to_copy <= run.low and time.monotonic() >= run.next_claim

    def _take(self, run: _Run) -> int:
        self._adapt(run)
        limit = run.size - run.to_copy
        taken = self._context.database.run(
            partial(self._claim, known=self._known(), limit=limit, beyond=run.beyond)
        )
        run.beyond = taken.beyond
        run.summary.claimed += taken.put_off
        run.summary.released += taken.put_off
        # where links are full it is looked again at once only by who has nothing else to do
        again = taken.claimed or run.beyond is not None or (taken.put_off and not len(run.held))
        first, most = CLAIM_AGAIN_S
        run.next_claim = 0.0 if again else time.monotonic() + run.look_after
        run.look_after = first if again else min(2 * run.look_after, most)
        if not taken.claimed:
            return 0
        run.summary.claimed += len(taken.claimed)
        run.began = run.began or time.monotonic()
        run.held.add(taken.claimed)
        run.low = min(run.size, run.to_copy) // 2
        self._ring_for_others(run, limit_reached=len(taken.claimed) >= taken.limit)
        ask_for_hops(self._context.database, taken)
        run.links.update(copy.link for copy in taken.planned)
        run.mover.submit(taken.planned, taken.traffic.slots(run.links))
        run.note((), [self._ends.unplanned(fault) for fault in taken.unplanned])
        return len(taken.claimed)

    def _ring_for_others(self, run: _Run, *, limit_reached: bool) -> None:
        """Ring for another worker when there is more than this one holds: one ring wakes one process."""
        if limit_reached and time.monotonic() >= run.next_ring:
            run.next_ring = time.monotonic() + RING_AGAIN_S
            self._context.doorbell.ring(Bell.REQUESTS)

    def _known(self) -> RseCatalogue:
        """The RSEs, as they were a moment ago: what is claimed is planned with them too."""
        if self._catalogue is None or time.monotonic() - self._catalogue[0] > KNOWN_FOR_S:
            with self._context.database.snapshot() as connection:
                self._catalogue = time.monotonic(), load_rses(connection)
        return self._catalogue[1]

    def _claim(self, tx: Connection, *, known: RseCatalogue, limit: int, beyond: Place | None) -> Taken:
        settings = self._settings
        traffic = load_traffic(tx, known, settings.activity_shares)
        lanes, more = find_lanes(tx, beyond=beyond)
        if limit > self._least:
            limit = min(limit, max(fair_part(tx, self._owner, limit), 2 * self._least))
        taken = take(
            tx,
            self._owner,
            limit=limit,
            lease_s=settings.transfer_lease_s,
            traffic=traffic,
            lanes=lanes,
            credentials=self._credentials,
        )
        taken.beyond = more
        return taken

    def _settle_when_due(self, run: _Run) -> None:
        if not run.ended:
            return
        began = time.monotonic()
        if (
            run.to_copy
            and run.ended < self._settings.transfer_batch
            and began - run.oldest < run.settle_after
        ):
            return
        finished, run.finished = run.finished, []
        known = self._known() if self._catalogue is None else self._catalogue[1]
        run.reports.extend(self._ends.reports(finished, known))
        batch, run.reports = run.reports, []
        run.held.settling(batch)
        try:
            result = self._ends.settle(batch)
        except Busy as error:
            log.warning("batch not settled yet", reports=len(batch), cause=error.code)
            run.reports = batch
            return
        least, most = SETTLE_AFTER_S
        run.settle_after = min(max(SETTLE_PAUSE * (time.monotonic() - began), least), most)
        run.held.drop(batch)
        run.summary.add(result)
        self._memory.keep()

    def _adapt(self, run: _Run) -> None:
        """Hold what is copied in `AHEAD_S`: short copies are taken and settled in large batches, long ones left to others."""
        rate = (run.summary.done + run.ended) / max(time.monotonic() - run.began, 0.1)
        run.size = min(self._settings.transfer_batch, max(self._least, int(rate * AHEAD_S)))

    def _extend(self, mover: Mover, ids: list[int], young: frozenset[int]) -> frozenset[tuple[int, int]]:
        lease_s = self._settings.transfer_lease_s
        copied = mover.progress()
        looked_for = young - copied.keys()
        extended = [one for one in ids if one not in looked_for]
        return self._context.database.run(
            lambda tx: (
                extend_leases(tx, self._owner, extended, lease_s=lease_s, copied=copied)
                | still_held(tx, self._owner, looked_for)
            )
        )


def _figures(summary: RunSummary) -> dict[str, int]:
    return {name: getattr(summary, name) for name in RunSummary.__slots__ if getattr(summary, name)}
