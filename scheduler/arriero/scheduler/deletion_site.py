"""Deletes at one RSE: claim, ask the storage, settle, round and round until nothing is due.

No transaction is open while the storage works. Every second it is asked whether somebody has said stop, and whether the copies
that prove that others may go are still there; what has not been sent by then is taken back.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog
from sqlalchemy import Connection, and_, exists, select
from sqlalchemy.exc import SQLAlchemyError

from arriero.registry.errors import Busy
from arriero.registry.schema.tables import deletions, replicas
from arriero.registry.services.context import Context
from arriero.registry.states import ReplicaState
from arriero.registry.store.deletion_terms import read_terms
from arriero.rse.protocol import StorageProtocol
from arriero.scheduler.core.retry import back_off
from arriero.scheduler.deletion_claim import ClaimedDeletion, claim_deletions
from arriero.scheduler.deletion_leases import DeletionLeases
from arriero.scheduler.deletion_reports import Outcome, Report
from arriero.scheduler.deletion_settle import Settled, note_failure, settle_deletions
from arriero.scheduler.deletion_storage import StorageThreads, remover
from arriero.scheduler.rse_catalogue import Rse

log = structlog.get_logger(__name__)

LOOK_S = 1.0
"""How often it is asked whether to go on, seconds."""

LINGER_S = 0.25
"""How long the first report of a batch waits for others, seconds."""

HELD_S = 0.1
"""How soon it is looked on when all that was found was held by others, seconds."""

MOST_IN_A_ROW = 20
"""After so many failures without a success it is the storage, and not its files."""


@dataclass(slots=True)
class SiteSummary:
    """What was done at one RSE."""

    claimed: int = 0
    done: int = 0
    freed: int = 0
    failed: int = 0
    released: int = 0
    discarded: int = 0

    def add(self, result: Settled) -> None:
        """Count a settled batch."""
        for name in ("done", "freed", "failed", "released", "discarded"):
            setattr(self, name, getattr(self, name) + getattr(result, name))


@dataclass(slots=True)
class _State:
    """How far it has come."""

    held: dict[int, ClaimedDeletion] = field(default_factory=dict)
    """Claimed and not settled."""
    reports: list[Report] = field(default_factory=list)
    oldest: float = 0.0
    next_look: float = 0.0
    next_claim: float = 0.0
    is_empty: bool = False
    """A claim has found nothing more."""
    failures: int = 0
    """Of the storage, before this."""
    in_a_row: int = 0


class DeletionSite:
    """Works on the deletions of one RSE.

    Parameters
    ----------
    context
        Database, settings, doorbell.
    rse
        Where.
    protocol
        Its own.
    leases
        Of the worker, who owns the deletions by ``owner``.
    stopping
        Asked all the time; True ends `run`.
    """

    def __init__(
        self,
        context: Context,
        rse: Rse,
        protocol: StorageProtocol,
        *,
        owner: str,
        leases: DeletionLeases,
        stopping: Callable[[], bool],
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._rse = rse
        self._remove = remover(protocol, rse.algorithm)
        self._owner = owner
        self._leases = leases
        self._stopping = stopping

    def run(self, until: float) -> SiteSummary:
        """Delete what is due until nothing is, somebody says stop, or the storage fails.

        Parameters
        ----------
        until
            `time.monotonic` after which nothing is claimed any more; what has been sent is waited for.
        """
        summary, state = SiteSummary(), _State()
        settings = self._settings
        with StorageThreads(
            self._remove, threads=settings.deletion_threads, may_begin=self._leases.is_held
        ) as threads:
            while True:
                if self._stopping():
                    threads.halt()
                self._look_when_due(state, threads)
                if self._wants_more(state, threads, until):
                    self._take(state, threads, summary)
                if len(state.held) > len(state.reports):
                    self._note(state, threads, threads.poll(LINGER_S))
                self._settle_when_due(state, summary)
                if not state.held:
                    if threads.is_halted or state.is_empty or time.monotonic() >= until:
                        return summary
                    self._pause(state, until)

    def _wants_more(self, state: _State, threads: StorageThreads, until: float) -> bool:
        at = time.monotonic()
        if threads.is_halted or state.is_empty or not state.next_claim <= at < until:
            return False
        # after a failure one is tried, and nothing beside it
        room = 0 if state.failures else self._settings.deletion_batch // 2
        return len(state.held) - len(state.reports) <= room

    def _pause(self, state: _State, until: float) -> None:
        """Wait for the pace."""
        wait_s = min(state.next_claim, until) - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, LOOK_S))

    def _take(self, state: _State, threads: StorageThreads, summary: SiteSummary) -> None:
        settings = self._settings
        asked_at = time.monotonic()
        claim = self._context.database.run(
            lambda tx: claim_deletions(
                tx,
                self._rse.id,
                self._owner,
                limit=settings.deletion_batch,
                most=settings.deletion_batch,
                lease_s=settings.deletion_lease_s,
            )
        )
        if claim is None or not claim.terms.is_open:
            state.is_empty = True
            return
        state.failures = claim.terms.failures
        # another worker may hold, at its RSE, the same files
        wait_s = claim.terms.pace_wait_s or (HELD_S if claim.passed_over and not claim.deletions else 0.0)
        state.next_claim = asked_at + wait_s
        if not claim.deletions:
            state.is_empty = wait_s <= 0
            return
        summary.claimed += len(claim.deletions)
        self._leases.add(claim.deletions, asked_at)
        state.held.update((one.id, one) for one in claim.deletions)
        threads.submit(claim.deletions)

    def _look_when_due(self, state: _State, threads: StorageThreads) -> None:
        """Halt when somebody has said stop, or nobody can be asked; leave what has lost its proof."""
        if threads.is_halted or time.monotonic() < state.next_look:
            return
        state.next_look = time.monotonic() + LOOK_S
        try:
            with self._context.database.snapshot() as connection:
                terms = read_terms(connection, self._rse.id)
                unproven = _unproven(connection, self._rse.id, self._owner)
        except (SQLAlchemyError, Busy) as error:
            log.warning("deletions halted", rse=self._rse.name, cause=type(error).__name__)
            threads.halt()
            return
        if terms is None or not terms.is_open:
            log.info("deletions halted", rse=self._rse.name, cause="stopped, paused or waiting")
            threads.halt()
        if unproven:
            log.warning("deletions without proof left", rse=self._rse.name, count=len(unproven))
            threads.leave(unproven)

    def _note(self, state: _State, threads: StorageThreads, reports: Sequence[Report]) -> None:
        if reports and not state.reports:
            state.oldest = time.monotonic()
        for report in reports:
            delay_s = 0.0
            if report.outcome is Outcome.FAILED:
                state.in_a_row += 1
                delay_s = self._back_off(report.deletion.attempt, f"deletion {report.deletion.id}")
            elif report.outcome is Outcome.UNREACHABLE:
                state.in_a_row += MOST_IN_A_ROW
                delay_s = self._back_off(state.failures + 1, self._rse.name)
            elif report.outcome is not Outcome.UNSENT:
                state.in_a_row = 0
            state.reports.append(replace(report, delay_s=delay_s))
            if state.in_a_row >= MOST_IN_A_ROW and not threads.is_halted:
                threads.halt()
                self._give_up(state, report)

    def _back_off(self, attempt: int, seed: str) -> float:
        settings = self._settings
        return back_off(
            attempt, base_s=settings.deletion_backoff_s, maximum_s=settings.deletion_backoff_max_s, seed=seed
        )

    def _give_up(self, state: _State, report: Report) -> None:
        """Leave the storage alone for a while: it does not answer, or refuses everything."""
        code, reason = report.code or "failed", report.reason or "it failed"
        wait_s = self._back_off(state.failures + 1, self._rse.name)
        log.warning("deletions given up for now", rse=self._rse.name, code=code, wait_s=round(wait_s, 1))
        self._context.database.run(
            lambda tx: note_failure(tx, self._rse.id, code=code, reason=reason, wait_s=wait_s)
        )

    def _settle_when_due(self, state: _State, summary: SiteSummary) -> None:
        if not state.reports:
            return
        alone = len(state.reports) >= len(state.held)
        waited_s = time.monotonic() - state.oldest
        if not alone and len(state.reports) < self._settings.deletion_batch and waited_s < LINGER_S:
            return
        batch, state.reports = state.reports, []
        settled = [report.deletion for report in batch]
        self._leases.settling(settled)
        try:
            result = settle_deletions(self._context, self._rse.id, self._owner, batch)
        except Busy as error:
            log.warning("deletions not settled yet", reports=len(batch), cause=error.code)
            state.reports = batch
            return
        self._leases.drop(settled)
        for one in settled:
            state.held.pop(one.id, None)
        summary.add(result)


def _unproven(connection: Connection, rse_id: int, owner: str) -> list[int]:
    """Ids of this worker's deletions whose proof is not AVAILABLE and verified any more."""
    still = exists().where(
        replicas.c.file_id == deletions.c.file_id,
        replicas.c.rse_id == deletions.c.proof_rse_id,
        replicas.c.state == ReplicaState.AVAILABLE,
        replicas.c.verified_at.is_not(None),
    )
    mine = and_(deletions.c.rse_id == rse_id, deletions.c.lease_owner == owner)
    query = select(deletions.c.id).where(mine, deletions.c.proof_rse_id.is_not(None), ~still)
    return list(connection.scalars(query))
