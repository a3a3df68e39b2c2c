"""What a settlement means for rules: their counts and states, and which of them have to be looked at."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, and_, case, func, or_, select

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import evaluations, locks, unplaced_groups
from arriero.registry.states import RESTING, LockState
from arriero.registry.store.evaluations import look_at_files, look_at_stuck
from arriero.scheduler import rule_changes
from arriero.scheduler.errors import RulesJoined
from arriero.scheduler.evaluation_words import WAITING_CODES
from arriero.scheduler.reports import Outcome, Report
from arriero.scheduler.settle_effects import ENDED, SAME_REPLICA
from arriero.scheduler.temporary import settled

_WAITS_FOR_IT = and_(
    settled.c.outcome == Outcome.DONE.value,
    locks.c.state == LockState.STUCK,
    locks.c.code.in_(WAITING_CODES),
)

_CONCERNED = rule_changes.rule_counts(
    select(locks.c.rule_id)
    .join(settled, locks.c.file_id == settled.c.file_id)
    .where(or_(and_(SAME_REPLICA, settled.c.outcome.in_(ENDED)), _WAITS_FOR_IT))
)


def lock_rules(tx: Connection) -> list[rule_changes.RuleCounts]:
    """Hold the rules whose locks change, and those that wait for what has become AVAILABLE."""
    return [rule_changes.counted(row) for row in tx.execute(_CONCERNED)]


def settle_rules(
    tx: Connection,
    touched: Sequence[rule_changes.RuleCounts],
    deltas: Mapping[int, Counter[LockState]],
    failures: Mapping[int, Report],
    stuck_retry_s: float,
) -> int:
    """Write counts and states; give how many rules have to be looked at now."""
    if not touched:
        return 0
    ids = [rule.id for rule in touched]
    is_due = or_(evaluations.c.not_before <= now(), evaluations.c.lease_owner.is_not(None))
    rows = tx.execute(
        select(evaluations.c.rule_id, case((is_due, 1), else_=0).label("due")).where(
            evaluations.c.rule_id.in_(ids)
        )
    )
    awaited = {row.rule_id: bool(row.due) for row in rows}
    rows = tx.execute(
        select(unplaced_groups.c.rule_id, func.min(unplaced_groups.c.reason).label("reason"))
        .where(unplaced_groups.c.rule_id.in_(ids))
        .group_by(unplaced_groups.c.rule_id)
    )
    without_place = {row.rule_id: row.reason for row in rows}
    code, reason = _commonest(failures)
    changes: list[rule_changes.RuleChange] = []
    look_now: list[int] = []
    look_later: list[int] = []
    for rule in touched:
        delta = deltas.get(rule.id, Counter())
        stuck = rule.counts[LockState.STUCK] + delta[LockState.STUCK]
        replicating = rule.counts[LockState.REPLICATING] + delta[LockState.REPLICATING]
        unplaced = without_place.get(rule.id)
        # an evaluation that is to come knows what is not placed: it decides about a rule that seems complete
        left_to_it = rule.id in awaited and (awaited[rule.id] or not stuck)
        keeps = left_to_it or rule.state in RESTING
        changes.append(
            rule_changes.changed(
                rule,
                delta,
                keep_state=keeps,
                unplaced=unplaced,
                code=code if delta[LockState.STUCK] > 0 else None,
                reason=reason if delta[LockState.STUCK] > 0 else None,
            )
        )
        if rule.id in awaited and not stuck and not replicating:
            look_now.append(rule.id)
        if delta[LockState.STUCK] > 0:
            look_later.append(rule.id)
    rule_changes.write(tx, changes)
    look_at_stuck(tx, look_now)
    look_at_stuck(tx, look_later, delay_s=stuck_retry_s)
    return len(look_now)


def _commonest(failures: Mapping[int, Report]) -> tuple[str | None, str | None]:
    if not failures:
        return None, None
    code, count = Counter(report.code for report in failures.values()).most_common(1)[0]
    example = next(report for report in failures.values() if report.code == code)
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return code, f"{count} copies failed: {example.reason}{more}"


_WAITING = (
    select(locks.c.rule_id, locks.c.file_id)
    .select_from(settled)
    .join(locks, locks.c.file_id == settled.c.file_id)
    .where(_WAITS_FOR_IT)
)
_WAITING_RULES = _WAITING.with_only_columns(locks.c.rule_id).distinct()


def wake_waiting(tx: Connection, known: Collection[int]) -> int:
    """Have rules looked at that have waited for a source of what is AVAILABLE now.

    Parameters
    ----------
    known
        Rules whose rows are held: none of them can be taken away meanwhile.

    Raises
    ------
    RulesJoined
        Another has come.
    """
    ids = set(tx.scalars(_WAITING_RULES))
    if ids - set(known):
        raise RulesJoined("a rule has come that waits for one of these replicas")
    if ids:
        look_at_files(tx, _WAITING)
    return len(ids)
