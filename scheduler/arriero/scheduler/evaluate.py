"""Evaluates rules: what each of their files lacks, where it goes, and what has to be copied.

One transaction a chunk, with the same few statements whatever the number of files in it (DESIGN 4.2); the choice is the
pure core's. A rule that cannot be evaluated keeps its reason and waits; it holds up no other.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog
from sqlalchemy import Connection, select

from arriero.registry.ports import Bell
from arriero.registry.schema.base import now
from arriero.registry.services.context import Context
from arriero.registry.states import DidType, LockState, RuleState
from arriero.scheduler import evaluation_effects as effects
from arriero.scheduler import evaluation_place as place
from arriero.scheduler import evaluation_queue as queue
from arriero.scheduler import evaluation_resolve as resolve
from arriero.scheduler import rule_changes, temporary
from arriero.scheduler.core.choose import Group, choose
from arriero.scheduler.core.retry import back_off, stuck_wait
from arriero.scheduler.core.spread import SLOTS, Slot, spread
from arriero.scheduler.errors import LeaseLost
from arriero.scheduler.evaluation_rule import Eligible, RuleFacts, lock_rule, sources, stuck_reason
from arriero.scheduler.evaluation_rule import eligible as eligible_rses
from arriero.scheduler.evaluation_words import Window
from arriero.scheduler.rse_catalogue import load_rses
from arriero.scheduler.workers import TIME_BUDGET_S, never, worker_name

log = structlog.get_logger(__name__)

_WAITS = (RuleState.SUSPENDED, RuleState.WAITING_APPROVAL)

SECOND_LOOK_S = 60.0
"""When a rule is looked at again whose locks have just begun to wait, seconds.

What they wait for may be coming in a transaction that has not committed: it sees no lock that waits, and the evaluation
does not see it. The second look sees it; transactions are far shorter than this.
"""


@dataclass(slots=True)
class _Pass:
    """What the chunks of one evaluation have in common."""

    after_file_id: int = 0
    unplaced: int = 0
    newly_waiting: int = 0
    refusals: list[str] = field(default_factory=list)

    def refuse(self, groups: int, reason: str) -> None:
        self.unplaced += groups
        if len(self.refusals) < 3:
            self.refusals.append(reason)

    @property
    def reason(self) -> str | None:
        """Why groups have no place; None when all have."""
        if not self.unplaced:
            return None
        more = self.unplaced - len(self.refusals)
        return "; ".join(self.refusals) + (f"; and {more} more groups" if more > 0 else "")


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
        progress = _Pass()
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

    def _chunk(self, tx: Connection, held: queue.Claimed, before: _Pass) -> tuple[ChunkReport, _Pass]:
        # a transaction that lost a race runs again: it must not see what the first try noted
        progress = _Pass(before.after_file_id, before.unplaced, before.newly_waiting, list(before.refusals))
        settings = self._context.settings
        rule = lock_rule(tx, held.rule_id)
        if rule is None or rule.counts.state in _WAITS:
            queue.finish(tx, held)
            return ChunkReport(0, 0, complete=True, state=None), progress
        temporary.prepare(tx, *temporary.EVALUATION_TABLES)
        known = load_rses(tx)
        eligible = eligible_rses(rule, known)
        resolve.note_rses(tx, eligible.weights, sources(rule, known))
        resolve.resolve_sets(tx, rule.scope)
        first = progress.after_file_id == 0
        deltas: Counter[LockState] = Counter()
        if first:
            resolve.find_gone(tx, rule.scope)
            deltas.subtract(effects.drop_gone(tx, rule.scope))
            effects.drop_places(tx, rule.scope)
        chunk = resolve.resolve_files(
            tx,
            rule.scope,
            after_file_id=progress.after_file_id,
            limit=settings.evaluation_chunk_files,
        )
        temporary.analyze(tx, temporary.eval_files)
        slots = _place(tx, rule, eligible, progress, files=chunk.files)
        resolve.find_elsewhere(tx, rule.scope)
        deltas.subtract(effects.drop_gone(tx, rule.scope))
        upto = None if chunk.complete else chunk.last_file_id
        window = Window(progress.after_file_id, upto, settings.stuck_retry_s)
        place.lock_replicas(tx, rule.scope, window)
        place.decide_locks(tx, rule.scope, window, slots=slots)
        temporary.analyze(tx, temporary.eval_placed)
        placed = effects.carry_out(tx, rule.scope, activity=rule.activity, priority=rule.priority)
        effects.let_go(tx, purge=rule.purge)
        deltas.update(placed.deltas)
        progress.newly_waiting += placed.newly_waiting
        progress.after_file_id = chunk.last_file_id
        state = self._conclude(tx, held, rule, deltas, progress, complete=chunk.complete)
        return ChunkReport(chunk.files, placed.copies, chunk.complete, state), progress

    def _conclude(
        self,
        tx: Connection,
        held: queue.Claimed,
        rule: RuleFacts,
        deltas: Counter[LockState],
        progress: _Pass,
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


def _place(
    tx: Connection,
    rule: RuleFacts,
    eligible: Eligible,
    progress: _Pass,
    *,
    files: int,
) -> int:
    """Choose the RSEs of the groups of this chunk; give the number of slots when files are placed by themselves."""
    policy: tuple[Slot, ...] = ()
    fault = eligible.fault
    slots = 1
    name = f"{rule.counts.scope}:{rule.counts.name}"
    if rule.scope.by_file and rule.scope.did_type is not DidType.FILE:
        slots = SLOTS
        if fault is None:
            policy = spread(eligible.weights, rule.scope.copies, seed=rule.seed)
        elif files:
            progress.refuse(1, f"{name}: {fault}")
    else:
        groups = resolve.find_groups_to_choose(tx, rule.scope)
        present = resolve.present_bytes(tx, rule.scope)
        chosen: list[tuple[int, int]] = []
        room = {one.rse_id: one for one in eligible.candidates}
        for group in groups:
            if fault is not None:
                progress.refuse(1, f"{group.name}: {fault}")
                continue
            there = present.get(group.group_id, {})
            choice = choose(
                Group(group.name, group.bytes, there),
                list(room.values()),
                rule.scope.copies,
                seed=rule.seed,
                weight=rule.weight,
                ignore_availability=rule.ignore_availability,
            )
            if not choice.placed:
                progress.refuse(1, f"{group.name}: {choice.reason}")
            for rse_id in choice.rse_ids:
                chosen.append((group.group_id, rse_id))
                room[rse_id] = room[rse_id].taken(group.bytes - there.get(rse_id, 0))
        if rule.scope.did_type is DidType.FILE:
            policy = tuple(Slot(0, rank, rse_id) for rank, (_, rse_id) in enumerate(chosen))
        else:
            place.place_groups(tx, rule.scope, chosen)
    place.note_slots(tx, policy)
    return slots
