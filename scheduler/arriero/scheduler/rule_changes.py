"""What becomes of rules when their locks change: counts, state, history, event. One place for evaluation and settlement.

The caller holds the rules' rows. Counts are kept by the transaction that changes the locks (DESIGN 4.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, bindparam, case, insert, null, select, update

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import dids, rule_history, rules, scopes
from arriero.registry.states import LockState, RuleState
from arriero.registry.store import events
from arriero.scheduler.core import states

REASON_LIMIT = 1000
"""Characters kept of a reason."""


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """A rule's row, as far as its locks change it."""

    id: int
    uuid: UUID
    scope: str
    name: str
    expression: str
    state: RuleState
    code: str | None
    reason: str | None
    counts: Mapping[LockState, int]
    stuck_at: datetime | None


@dataclass(frozen=True, slots=True)
class RuleChange:
    """What a rule's row becomes."""

    rule: RuleCounts
    state: RuleState
    counts: Mapping[LockState, int]
    code: str | None
    reason: str | None

    @property
    def moves(self) -> bool:
        """Whether the state changes."""
        return self.state != self.rule.state


def rule_counts(rule_ids: Select[Any] | Sequence[int]) -> Select[Any]:
    """Query for `counted`, which locks the rules in the order of their ids.

    Only against each other and against removal: who attaches to a rule's datasets does not wait.
    """
    return (
        select(
            rules.c.id,
            rules.c.uuid,
            scopes.c.name.label("scope"),
            dids.c.name,
            rules.c.rse_expression,
            rules.c.state,
            rules.c.code,
            rules.c.reason,
            rules.c.locks_ok,
            rules.c.locks_replicating,
            rules.c.locks_stuck,
            rules.c.stuck_at,
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
        scope=row.scope,
        name=row.name,
        expression=row.rse_expression,
        state=row.state,
        code=row.code,
        reason=row.reason,
        counts={
            LockState.OK: row.locks_ok,
            LockState.REPLICATING: row.locks_replicating,
            LockState.STUCK: row.locks_stuck,
        },
        stuck_at=row.stuck_at,
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
    change = RuleChange(rule, rule.state, counts, rule.code, rule.reason)
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


def _history(change: RuleChange) -> dict[str, Any]:
    return {
        "rule_uuid": change.rule.uuid,
        "from_state": change.rule.state,
        "to_state": change.state,
        "code": change.code,
        "reason": change.reason,
    }


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
