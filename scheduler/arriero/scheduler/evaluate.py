"""Evaluates rules: what each of their files lacks, where it goes, and what has to be copied.

One transaction a chunk, with the same few statements whatever the number of files in it (DESIGN 4.2); the choice is the
pure core's. A rule that cannot be evaluated keeps its reason and waits; it holds up no other.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import Connection, select

from arriero.registry.ports import Bell
from arriero.registry.schema.base import now
from arriero.registry.services.context import Context
from arriero.registry.states import LockState, RuleState
from arriero.scheduler import evaluation_effects as effects
from arriero.scheduler import evaluation_queue as queue
from arriero.scheduler import rule_changes
from arriero.scheduler.core.retry import back_off, stuck_wait
from arriero.scheduler.errors import LeaseLost
from arriero.scheduler.evaluation_chunk import Pass, decide_chunk
from arriero.scheduler.evaluation_rule import RuleFacts, lock_rule, stuck_reason
from arriero.scheduler.evaluation_rule import eligible as eligible_rses
from arriero.scheduler.rse_catalogue import hold_rses, load_rses
from arriero.scheduler.workers import TIME_BUDGET_S, never, worker_name

log = structlog.get_logger(__name__)

_WAITS = (RuleState.SUSPENDED, RuleState.WAITING_APPROVAL)

SECOND_LOOK_S = 60.0
"""When a rule is looked at again whose locks have just begun to wait, seconds.

What they wait for may be coming in a transaction that has not committed: it sees no lock that waits, and the evaluation
does not see it. The second look sees it; transactions are far shorter than this.
"""


@dataclass(frozen=True, slots=True)
class ChunkReport:
    """What became of one chunk."""

    files: int
    requests: int
    complete: bool
    state: RuleState | None
    """None when the rule has gone, or waits for somebody."""


class Evaluator:
    """Evaluates the rules that are due.

    Parameters
    ----------
    context
        Database, settings, and the doorbell that tells of new requests.
    stopping
        Asked between chunks; True ends `run`.
    """

    def __init__(self, context: Context, *, stopping: Callable[[], bool] = never) -> None:
        self._context = context
        self._owner = worker_name("evaluator")
        self._stopping = stopping

    def run(self, *, budget_s: float = TIME_BUDGET_S) -> int:
        """Evaluate what is due, until nothing is or the time is up; then the bell is rung for the rest.

        Returns
        -------
        int
            Evaluations that ended.
        """
        ended = 0
        until = time.monotonic() + budget_s
        while not self._stopping():
            if time.monotonic() >= until:
                self._context.doorbell.ring(Bell.EVALUATIONS)
                break
            held = self._claim()
            if held is None:
                break
            self._evaluate_guarded(held)
            ended += 1
        return ended

    def _claim(self) -> queue.Claimed | None:
        lease_s = self._context.settings.evaluation_lease_s
        return self._context.database.run(lambda tx: queue.claim(tx, self._owner, lease_s=lease_s))

    def _evaluate_guarded(self, held: queue.Claimed) -> None:
        try:
            self.evaluate(held)
        except LeaseLost as lost:
            log.warning("evaluation taken over by another worker", rule_id=held.rule_id, code=lost.code)
        except Exception as error:
            # the boundary between rules: one that cannot be evaluated must not hold up the others
            code = getattr(error, "stable_code", None) or getattr(error, "code", None) or "unexpected_error"
            log.exception("evaluation failed", rule_id=held.rule_id, attempt=held.attempt)
            self._put_back(held, str(code)[:64], f"{type(error).__name__}: {error}")

    def _put_back(self, held: queue.Claimed, code: str, reason: str) -> None:
        settings = self._context.settings
        wait_s = back_off(
            held.attempt,
            base_s=settings.transfer_backoff_s,
            maximum_s=settings.transfer_backoff_max_s,
            seed=f"evaluation {held.rule_id}",
        )
        self._context.database.run(
            lambda tx: queue.put_back(tx, held, wait_s=wait_s, code=code, reason=reason)
        )

    def evaluate(self, held: queue.Claimed) -> list[ChunkReport]:
        """Evaluate one rule, chunk by chunk.

        Parameters
        ----------
        held
            From the queue.

        Raises
        ------
        LeaseLost
            Another worker has taken over; the last chunk is undone.
        """
        progress = Pass()
        reports: list[ChunkReport] = []
        while True:
            report, progress = self._context.database.run(partial(self._chunk, held=held, before=progress))
            reports.append(report)
            if report.requests:
                self._context.doorbell.ring(Bell.REQUESTS)
            if report.complete:
                log.info(
                    "rule evaluated",
                    rule_id=held.rule_id,
                    state=report.state,
                    files=sum(one.files for one in reports),
                    requests=sum(one.requests for one in reports),
                )
                return reports
            if self._stopping():
                self._put_back(held, "interrupted", "the worker was stopped; it goes on where it was")
                return reports

    def _chunk(self, tx: Connection, held: queue.Claimed, before: Pass) -> tuple[ChunkReport, Pass]:
        # a transaction that lost a race runs again: it must not see what the first try noted
        progress = Pass(before.after_file_id, before.unplaced, before.newly_waiting, list(before.refusals))
        settings = self._context.settings
        rule = lock_rule(tx, held.rule_id)
        if rule is None or rule.counts.state in _WAITS:
            queue.finish(tx, held)
            return ChunkReport(0, 0, complete=True, state=None), progress
        known = load_rses(tx)
        eligible = eligible_rses(rule, known)
        while not hold_rses(tx, eligible.weights.keys()):
            # one has been removed since it was read: the choice is made without it
            known = load_rses(tx)
            eligible = eligible_rses(rule, known)
        chunk, deltas = decide_chunk(
            tx,
            rule,
            known,
            eligible,
            progress,
            limit=settings.evaluation_chunk_files,
            stuck_retry_s=settings.stuck_retry_s,
        )
        placed = effects.carry_out(tx, rule.scope, activity=rule.activity, priority=rule.priority)
        effects.let_go(tx, purge=rule.purge)
        deltas.update(placed.deltas)
        progress.newly_waiting += placed.newly_waiting
        state = self._conclude(tx, held, rule, deltas, progress, complete=chunk.complete)
        return ChunkReport(chunk.files, placed.copies, chunk.complete, state), progress

    def _conclude(
        self,
        tx: Connection,
        held: queue.Claimed,
        rule: RuleFacts,
        deltas: Counter[LockState],
        progress: Pass,
        *,
        complete: bool,
    ) -> RuleState:
        settings = self._context.settings
        code, reason = stuck_reason(tx, rule.scope.rule_id)
        change = rule_changes.changed(
            rule.counts,
            deltas,
            unplaced=progress.reason,
            unfinished=not complete,
            code=code,
            reason=reason,
        )
        rule_changes.write(tx, [change])
        # last: attaching to the rule's datasets waits for this row, and should not wait long
        if not complete:
            queue.extend(tx, held, lease_s=settings.evaluation_lease_s)
        elif change.state is RuleState.STUCK:
            since = rule.counts.stuck_at
            stuck_for_s = (
                0.0 if since is None else (tx.execute(select(now())).scalar_one() - since).total_seconds()
            )
            wait_s = stuck_wait(stuck_for_s, base_s=settings.stuck_retry_s)
            if progress.newly_waiting:
                wait_s = min(wait_s, SECOND_LOOK_S)
            queue.look_again(
                tx,
                held,
                wait_s=wait_s,
                code=change.code or "stuck",
                reason=change.reason or "locks are stuck",
            )
        else:
            queue.finish(tx, held)
        return change.state
