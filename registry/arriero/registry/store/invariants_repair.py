"""Mending what the invariants name: counts made anew, rules looked at as a whole."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, or_, select, update

from arriero.registry.schema.tables import locks, rules
from arriero.registry.states import RESTING, LockState, RuleState
from arriero.registry.store.evaluations import look_at_rules

_COUNTED = {
    "locks_ok": LockState.OK,
    "locks_replicating": LockState.REPLICATING,
    "locks_stuck": LockState.STUCK,
}


def hold_rules(connection: Connection, rule_ids: Sequence[int]) -> list[tuple[int, str, RuleState]]:
    """Lock rules in the order of their ids; give id, id as a person writes it, and state of those that are there.

    Locks of a rule change only where its row is held, so that what is counted afterwards holds.
    """
    rows = connection.execute(
        select(rules.c.id, rules.c.uuid, rules.c.state)
        .where(rules.c.id.in_(rule_ids))
        .order_by(rules.c.id)
        .with_for_update(key_share=True)
    )
    return [(row.id, row.uuid.hex, row.state) for row in rows]


def recount(connection: Connection, rule_ids: Sequence[int]) -> int:
    """Count the locks of rules that are held anew; give how many had wrong counts."""
    counted = {
        name: select(func.count())
        .where(locks.c.rule_id == rules.c.id, locks.c.state == state)
        .correlate(rules)
        .scalar_subquery()
        for name, state in _COUNTED.items()
    }
    differs = or_(*(rules.c[name] != count for name, count in counted.items()))
    statement = update(rules).where(rules.c.id.in_(rule_ids), differs).values(**counted)
    return connection.execute(statement).rowcount


def look_again(connection: Connection, held: Sequence[tuple[int, str, RuleState]]) -> int:
    """Have rules that are held looked at as a whole, but for those that rest; give how many.

    A rule that rests is looked at as a whole when it goes on.
    """
    working = [rule_id for rule_id, _, state in held if state not in RESTING]
    look_at_rules(connection, working)
    return len(working)
