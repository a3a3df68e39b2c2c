"""Evaluates rules: what each of their files lacks, where it goes, and what has to be copied.

One transaction a chunk, with the same few statements whatever the number of files in it (DESIGN 4.2); the choice is the
pure core's. After a chunk the rule goes behind those that are due, so a large one delays no small one for long. A rule
that cannot be evaluated keeps its reason and waits; it holds up no other.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy import Connection, select

from arriero.registry.ports import Bell
from arriero.registry.schema.base import now
from arriero.registry.services.context import Context
from arriero.registry.states import RESTING, LockState, RuleState
from arriero.scheduler import evaluation_effects as effects
from arriero.scheduler import evaluation_items as items
from arriero.scheduler import evaluation_queue as queue
from arriero.scheduler import rule_changes, rule_events
from arriero.scheduler.core.retry import back_off, stuck_wait
from arriero.scheduler.errors import LeaseLost
from arriero.scheduler.evaluation_chunk import decide_chunk
from arriero.scheduler.evaluation_rule import RuleFacts, lock_rule, stuck_reason, unplaced_reason
from arriero.scheduler.evaluation_rule import eligible as eligible_rses
from arriero.scheduler.rse_catalogue import hold_rses, load_rses
from arriero.scheduler.workers import TIME_BUDGET_S, never, take_turns, worker_name

log = structlog.get_logger(__name__)

SECOND_LOOK_S = 60.0
"""When a rule is looked at again that has just become STUCK, or whose locks have just begun to wait, seconds.

What it waits for may be coming in a transaction that has not committed: it sees nothing that waits, and the evaluation
does not see it. The second look sees it; transactions are far shorter than this.
"""


CHUNK_S = 0.6
"""How long a chunk is to take, seconds: so long a rule that has just become due waits for another."""

_SMALLEST_CHUNK = 5_000
"""Files; what a chunk costs whatever its size (limits of the account, RSEs) would outweigh the rest with fewer."""


@dataclass(frozen=True, slots=True)
class ChunkReport:
    """What became of one chunk."""

    files: int
    requests: int
    complete: bool
    """Nothing is left to look at."""
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
        self._files = context.settings.evaluation_chunk_files

    def run(self, *, budget_s: float = TIME_BUDGET_S) -> int:
        """Evaluate what is due, until nothing is or the time is up; then the bell is rung for the rest.

        Returns
        -------
        int
            Evaluations that ended.
        """
        return take_turns(
            self._context, Bell.EVALUATIONS, self._turn, budget_s=budget_s, stopping=self._stopping
        )

    def _turn(self) -> int | None:
        held = self._claim()
        return None if held is None else self._evaluate_guarded(held)

    def _claim(self) -> queue.Claimed | None:
        lease_s = self._context.settings.evaluation_lease_s

        def work(tx: Connection) -> queue.Claimed | None:
            held = queue.claim(tx, self._owner, lease_s=lease_s)
            if held is not None and held.retries:
                items.add_retries(tx, held.rule_id)
            return held

        return self._context.database.run(work)

    def _evaluate_guarded(self, held: queue.Claimed) -> bool:
        try:
            return self.evaluate(held).complete
        except LeaseLost as lost:
            log.warning("evaluation taken over by another worker", rule_id=held.rule_id, code=lost.code)
        except Exception as error:
            # the boundary between rules: one that cannot be evaluated must not hold up the others
            code = getattr(error, "stable_code", None) or getattr(error, "code", None) or "unexpected_error"
            log.exception("evaluation failed", rule_id=held.rule_id, attempt=held.attempt)
            self._put_back(held, str(code)[:64], f"{type(error).__name__}: {error}")
        return True

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

    def evaluate(self, held: queue.Claimed) -> ChunkReport:
        """Evaluate the next chunk of one rule.

        Parameters
        ----------
        held
            From the queue; given back.

        Raises
        ------
        LeaseLost
            Another worker has taken over; the chunk is undone.
        """
        begun = time.monotonic()
        report = self._context.database.run(partial(self._chunk, held=held))
        self._adapt(report.files, time.monotonic() - begun)
        if report.requests:
            self._context.doorbell.ring(Bell.REQUESTS)
        said = log.info if report.complete else log.debug
        said(
            "rule evaluated" if report.complete else "rule evaluated in part",
            rule_id=held.rule_id,
            state=report.state,
            files=report.files,
            requests=report.requests,
        )
        return report

    def _adapt(self, files: int, took_s: float) -> None:
        """Choose the size of the next chunk, by how long the last one took: a busy machine gets smaller ones."""
        most = self._context.settings.evaluation_chunk_files
        if files >= self._files // 2 or took_s > CHUNK_S:
            fitting = int(files * CHUNK_S / max(took_s, 0.001))
            self._files = min(most, max(fitting, self._files // 4, min(_SMALLEST_CHUNK, most)))

    def _chunk(self, tx: Connection, held: queue.Claimed) -> ChunkReport:
        settings = self._context.settings
        rule = lock_rule(tx, held.rule_id)
        if rule is None:
            # its evaluation and its items have gone with it
            return ChunkReport(0, 0, complete=True, state=None)
        if rule.counts.state in RESTING:
            # its items stay: what was detached meanwhile is found by them alone when it goes on
            queue.finish(tx, held)
            return ChunkReport(0, 0, complete=True, state=None)
        known = load_rses(tx)
        eligible = eligible_rses(rule, known)
        while not hold_rses(tx, eligible.weights.keys()):
            # one has been removed since it was read: the choice is made without it
            known = load_rses(tx)
            eligible = eligible_rses(rule, known)
        chunk = decide_chunk(tx, rule, known, eligible, settings, files=self._files)
        placed = effects.carry_out(
            tx, rule.scope, chunk.window, activity=rule.activity, priority=rule.priority
        )
        if not chunk.window.is_fresh:
            effects.let_go(tx, purge=rule.purge)
        chunk.dropped.update(placed.deltas)
        complete = not items.are_left(tx, rule.scope)
        stuck = rule.counts.counts[LockState.STUCK] + chunk.dropped[LockState.STUCK]
        code, reason = stuck_reason(tx, held.rule_id) if stuck else (None, None)
        change = rule_changes.changed(
            rule.counts,
            chunk.dropped,
            unplaced=unplaced_reason(tx, held.rule_id),
            unfinished=not complete,
            code=code,
            reason=reason,
        )
        rule_changes.write(tx, [change])
        rule_events.tell_evaluated(tx, rule.counts)
        # last: attaching to the rule's datasets waits for this row, and should not wait long
        newly_stuck = change.state is RuleState.STUCK and rule.counts.stuck_since is None
        waits = placed.newly_waiting > 0 or newly_stuck
        self._give_back(tx, held, rule, change, complete=complete, waits=waits)
        return ChunkReport(chunk.window.files, placed.copies, complete, change.state)

    def _give_back(
        self,
        tx: Connection,
        held: queue.Claimed,
        rule: RuleFacts,
        change: rule_changes.RuleChange,
        *,
        complete: bool,
        waits: bool,
    ) -> None:
        retry_s = SECOND_LOOK_S if waits else None
        if not complete:
            queue.go_on(tx, held, retry_s=retry_s)
        elif change.state is RuleState.STUCK:
            since = rule.counts.stuck_since
            stuck_for_s = (
                0.0 if since is None else (tx.execute(select(now())).scalar_one() - since).total_seconds()
            )
            queue.look_again(
                tx,
                held,
                wait_s=stuck_wait(stuck_for_s, base_s=self._context.settings.stuck_retry_s),
                retry_s=retry_s,
                code=change.code or "stuck",
                reason=change.reason or "locks are stuck",
            )
        else:
            queue.finish(tx, held)
