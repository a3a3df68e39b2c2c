"""What an evaluation has to know of its rule: the row, the RSEs that it may choose from, why its locks are stuck."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from arriero.registry.schema.tables import dids, locks, rules, unplaced_groups
from arriero.registry.states import DidType, LockState
from arriero.rse.errors import InvalidExpression
from arriero.scheduler import rule_changes
from arriero.scheduler.core.choose import Candidate, Dropped, refusal, usable
from arriero.scheduler.evaluation_words import Scope
from arriero.scheduler.rse_catalogue import READ, RseCatalogue


@dataclass(frozen=True, slots=True)
class RuleFacts:
    """The rule's row, beyond its counts."""

    counts: rule_changes.RuleCounts
    scope: Scope
    weight: str | None
    source_expression: str | None
    ignore_availability: bool
    purge: bool
    activity: str
    priority: int
    account_id: int
    ignore_limits: bool

    @property
    def seed(self) -> str:
        return self.counts.uuid.hex


def lock_rule(tx: Connection, rule_id: int) -> RuleFacts | None:
    counts = tx.execute(rule_changes.rule_counts([rule_id])).one_or_none()
    if counts is None:
        return None
    row: Any = tx.execute(
        select(rules, dids.c.type.label("did_type"))
        .join(dids, dids.c.id == rules.c.did_id)
        .where(rules.c.id == rule_id)
    ).one()
    scope = Scope(row.id, row.did_id, DidType(row.did_type), row.grouping, row.copies)
    return RuleFacts(
        counts=rule_changes.counted(counts),
        scope=scope,
        weight=row.weight,
        source_expression=row.source_replica_expression,
        ignore_availability=row.ignore_availability,
        purge=row.purge_replicas,
        activity=row.activity,
        priority=row.priority,
        account_id=row.account_id,
        ignore_limits=row.ignore_account_limit,
    )


@dataclass(frozen=True, slots=True)
class Eligible:
    """The RSEs of the rule's expression."""

    candidates: Sequence[Candidate]
    weights: Mapping[int, float]
    """Of those that can be chosen from; empty when they are too few."""
    fault: str | None
    """Why nothing can be placed."""
    dropped: tuple[Dropped, ...] = ()
    """Those that no group can go to."""


def eligible(rule: RuleFacts, known: RseCatalogue) -> Eligible:
    try:
        named = known.matching(rule.counts.expression)
    except InvalidExpression as error:
        return Eligible((), {}, f"RSE expression: {error}")
    return eligible_of(rule, [known.by_id[rse_id].as_candidate() for rse_id in sorted(named)])


def eligible_of(rule: RuleFacts, candidates: Sequence[Candidate]) -> Eligible:
    weights, dropped = usable(candidates, weight=rule.weight, ignore_availability=rule.ignore_availability)
    full: list[Dropped] = []
    if rule.scope.by_file:
        full = [
            Dropped(one.rse_id, one.name, "full", "is full")
            for one in candidates
            if one.rse_id in weights and one.free is not None and one.free <= 0
        ]
        weights = {rse_id: weights[rse_id] for rse_id in weights.keys() - {one.rse_id for one in full}}
    if len(weights) < rule.scope.copies:
        said = refusal(rule.scope.copies, len(weights), [*dropped, *full])
        return Eligible(candidates, {}, said, (*dropped, *full))
    return Eligible(candidates, weights, None, (*dropped, *full))


def sources(rule: RuleFacts, known: RseCatalogue) -> list[int]:
    wanted = None
    if rule.source_expression:
        try:
            wanted = known.matching(rule.source_expression)
        except InvalidExpression:
            return []
    return [
        rse.id
        for rse in known.by_id.values()
        if rse.readable and (wanted is None or rse.id in wanted) and rse.protocol_for(*READ) is not None
    ]


def unplaced_reason(tx: Connection, rule_id: int) -> str | None:
    """Sum up why groups of a rule have no place; None when all have one."""
    rows = tx.execute(
        select(unplaced_groups.c.reason, func.count().over().label("groups"))
        .where(unplaced_groups.c.rule_id == rule_id)
        .order_by(unplaced_groups.c.group_id)
        .limit(3)
    ).all()
    if not rows:
        return None
    more = rows[0].groups - len(rows)
    return "; ".join(row.reason for row in rows) + (f"; and {more} more groups" if more else "")


def stuck_reason(tx: Connection, rule_id: int) -> tuple[str | None, str | None]:
    """Sum up the STUCK locks of a rule: the commonest code, and a sentence with the count of each."""
    rows = tx.execute(
        select(locks.c.code, func.count().label("files"), func.min(locks.c.reason).label("reason"))
        .where(locks.c.rule_id == rule_id, locks.c.state == LockState.STUCK)
        .group_by(locks.c.code)
        .order_by(func.count().desc())
        .limit(3)
    ).all()
    if not rows:
        return None, None
    return rows[0].code, "; ".join(f"{row.files} locks: {row.reason or row.code}" for row in rows)
