"""What becomes of rules when their locks change: counts, state, history, event. One place for evaluation and settlement.

The caller holds the rules' rows. Counts are kept by the transaction that changes the locks (DESIGN 4.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, bindparam, case, func, insert, null, select, update

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import dids, rule_history, rules, scopes
from arriero.registry.states import LockState, RuleGrouping, RuleState
from arriero.registry.store import events
from arriero.scheduler import rule_events
from arriero.scheduler.core import states

REASON_LIMIT = 1000
"""Characters kept of a reason."""


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """A rule's row, as far as its locks change it."""

    id: int
    uuid: UUID
    did_id: int
    scope: str
    name: str
    expression: str
    grouping: RuleGrouping
    notification: str
    """Rucio's letter: of what its owner is told."""
    state: RuleState
    code: str | None
    reason: str | None
    counts: Mapping[LockState, int]
    stuck_since: datetime | None
    """Since when nothing of it has succeeded while something was STUCK; outlives each retry."""


@dataclass(frozen=True, slots=True)
class RuleChange:
    """What a rule's row becomes."""

    rule: RuleCounts
    state: RuleState
    counts: Mapping[LockState, int]
    code: str | None
    reason: str | None
    is_total_known: bool = True
    """Whether the rule has all its locks, as far as who works it out knows."""

    @property
    def moves(self) -> bool:
        """Whether the state changes."""
        return self.state != self.rule.state

    @property
    def succeeds(self) -> bool:
        """Whether more locks are OK than before."""
        return self.counts[LockState.OK] > self.rule.counts[LockState.OK]


def rule_counts(rule_ids: Select[Any] | Sequence[int]) -> Select[Any]:
    """Query for `counted`, which locks the rules in the order of their ids.

    Only against each other and against removal: who attaches to a rule's datasets does not wait.
    """
    return (
        select(
            rules.c.id,
            rules.c.uuid,
            rules.c.did_id,
            scopes.c.name.label("scope"),
            dids.c.name,
            rules.c.rse_expression,
            rules.c.grouping,
            rules.c.notification,
            rules.c.state,
            rules.c.code,
            rules.c.reason,
            rules.c.locks_ok,
            rules.c.locks_replicating,
            rules.c.locks_stuck,
            rules.c.stuck_since,
        )
        .join(dids, dids.c.id == rules.c.did_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(rules.c.id.in_(rule_ids))
        .order_by(rules.c.id)
        .with_for_update(of=rules, key_share=True)
    )


def counted(row: Any) -> RuleCounts:
    """Make a row of `rule_counts` a value."""
    return RuleCounts(
        id=row.id,
        uuid=row.uuid,
        did_id=row.did_id,
        scope=row.scope,
        name=row.name,
        expression=row.rse_expression,
        grouping=row.grouping,
        notification=row.notification,
        state=row.state,
        code=row.code,
        reason=row.reason,
        counts={
            LockState.OK: row.locks_ok,
            LockState.REPLICATING: row.locks_replicating,
            LockState.STUCK: row.locks_stuck,
        },
        stuck_since=row.stuck_since,
    )


def changed(
    rule: RuleCounts,
    deltas: Mapping[LockState, int],
    *,
    unplaced: str | None = None,
    unfinished: bool = False,
    keep_state: bool = False,
    code: str | None = None,
    reason: str | None = None,
) -> RuleChange:
    """Work out what a rule becomes when so many locks came to or left each state.

    Parameters
    ----------
    rule
        As it is.
    deltas
        Change of the number of locks in each state.
    unplaced
        Why groups of the rule have no place.
    unfinished
        There is more to place.
    keep_state
        Change the counts only: an evaluation that is due decides about the state.
    code, reason
        Why locks are STUCK; what the rule says already stays when they are None.
    """
    counts = {state: rule.counts[state] + deltas.get(state, 0) for state in LockState}
    change = RuleChange(
        rule, rule.state, counts, rule.code, rule.reason, is_total_known=not (keep_state or unfinished)
    )
    if keep_state:
        return change
    event = states.rule_event(
        replicating=counts[LockState.REPLICATING],
        stuck=counts[LockState.STUCK],
        unplaced=unplaced is not None,
        unfinished=unfinished,
    )
    state = RuleState(states.advance(states.RULE_TRANSITIONS, states.Rule(rule.state.value), event).value)
    if state is not RuleState.STUCK:
        return replace(change, state=state, code=None, reason=None)
    if unplaced is not None:
        return replace(change, state=state, code="not_enough_rses", reason=unplaced[:REASON_LIMIT])
    said = (reason or rule.reason or "locks are stuck")[:REASON_LIMIT]
    return replace(change, state=state, code=code or rule.code or "stuck", reason=said)


def write(connection: Connection, changes: Sequence[RuleChange]) -> None:
    """Write the rules' rows, and history and events of those whose state changes."""
    if not changes:
        return
    stays_stuck = (rules.c.state == RuleState.STUCK, rules.c.stuck_at)
    entered = case(stays_stuck, else_=now())
    # a retry makes a rule REPLICATING for a while: only what succeeds ends the time without success
    fruitless = case((bindparam("succeeds"), null()), else_=rules.c.stuck_since)
    connection.execute(
        update(rules)
        .where(rules.c.id == bindparam("rule"))
        .values(
            locks_ok=bindparam("ok"),
            locks_replicating=bindparam("replicating"),
            locks_stuck=bindparam("stuck"),
            code=bindparam("why"),
            reason=bindparam("sentence"),
            state=bindparam("becomes"),
            stuck_at=case((bindparam("is_stuck"), entered), else_=null()),
            stuck_since=case(
                (bindparam("is_ok"), null()),
                (bindparam("is_stuck"), func.coalesce(fruitless, now())),
                else_=fruitless,
            ),
            updated_at=now(),
        ),
        [
            {
                "rule": change.rule.id,
                "ok": change.counts[LockState.OK],
                "replicating": change.counts[LockState.REPLICATING],
                "stuck": change.counts[LockState.STUCK],
                "why": change.code,
                "sentence": change.reason,
                "becomes": change.state,
                "is_stuck": change.state is RuleState.STUCK,
                "is_ok": change.state is RuleState.OK,
                "succeeds": change.succeeds,
            }
            for change in changes
        ],
    )
    moved = [change for change in changes if change.moves]
    if moved:
        connection.execute(insert(rule_history), [_history(change) for change in moved])
    complete = [change for change in moved if change.state is RuleState.OK]
    if complete:
        events.append(connection, "rule-ok", [_rule_ok(change) for change in complete])
    rule_events.tell(connection, changes)


def _history(change: RuleChange) -> dict[str, Any]:
    return {
        "rule_uuid": change.rule.uuid,
        "from_state": change.rule.state,
        "to_state": change.state,
        "code": change.code or _SAID[change.state],
        "reason": change.reason or _why(change),
    }


_SAID = {state: state.lower() for state in RuleState} | {RuleState.OK: "complete"}
"""Code of a change for which nothing is at fault."""


def _why(change: RuleChange) -> str:
    ok, total = change.counts[LockState.OK], sum(change.counts.values())
    if change.state is RuleState.OK:
        return f"all {total} locks are OK" if total else "there is nothing to copy"
    return f"{ok} of {total} locks are OK" if change.is_total_known else f"{total} locks placed so far"


def _rule_ok(change: RuleChange) -> tuple[str, dict[str, Any]]:
    rule = change.rule
    payload = {
        "rule_id": rule.uuid.hex,
        "scope": rule.scope,
        "name": rule.name,
        "rse_expression": rule.expression,
        "locks_ok": change.counts[LockState.OK],
    }
    return f"rule:{rule.uuid}", payload
