"""Rules that wait for a change of an RSE: one that opens something has them looked at again.

Whether it was the change that a rule waited for only its evaluation can tell, so all STUCK rules are raised. Such
changes are made by people, and are few.
"""

from collections.abc import Callable

from sqlalchemy import Connection, exists, or_, select, update

from arriero.registry.dialect import id_rows
from arriero.registry.ports import Bell
from arriero.registry.schema.tables import locks, rules, unplaced_groups
from arriero.registry.services.context import Context
from arriero.registry.states import LockState, RuleState
from arriero.registry.store.evaluations import look_at_stuck
from arriero.registry.store.rule_work import RETRY_NOW

NO_SPACE = "no_space"
"""Code of locks whose copy found the storage full."""


def run_and_wake(context: Context, work: Callable[[Connection], bool]) -> bool:
    """Do some work in a transaction; if it says that it has opened something, have STUCK rules looked at.

    Parameters
    ----------
    work
        Gives whether a rule may now succeed that could not before.

    Returns
    -------
    bool
        What it gave.
    """

    def whole(connection: Connection) -> tuple[bool, bool]:
        opened = work(connection)
        return opened, opened and wake_stuck(connection)

    opened, woken = context.database.run(whole)
    if woken:
        context.doorbell.ring(Bell.EVALUATIONS)
    return opened


def wake_stuck(connection: Connection) -> bool:
    """Have all STUCK rules looked at again; False when there is none."""
    stuck = rules.c.state == RuleState.STUCK
    if not connection.scalar(select(exists().where(stuck))):
        return False
    # held: one that is being taken away at this moment is waited for, and passed over
    waiting = select(rules.c.id).where(stuck).with_for_update(read=True, key_share=True)
    look_at_stuck(connection, waiting)
    return True


def wake_for_space(connection: Connection, rse_id: int) -> bool:
    """Have the rules looked at that wait for room: those with groups without a place, and those with copies that found
    this RSE full; False when there is none.
    """
    found_full = (
        locks.c.rse_id == rse_id,
        locks.c.state == LockState.STUCK,
        locks.c.code == NO_SPACE,
    )
    waits = or_(
        exists().where(unplaced_groups.c.rule_id == rules.c.id),
        exists().where(locks.c.rule_id == rules.c.id, *found_full),
    )
    query = (
        select(rules.c.id)
        .where(rules.c.state == RuleState.STUCK, waits)
        .order_by(rules.c.id)
        .with_for_update(of=rules, key_share=True)
    )
    waiting = list(connection.scalars(query))
    if not waiting:
        return False
    # however short ago they failed: the cause has gone
    connection.execute(
        update(locks)
        .where(locks.c.rule_id.in_(id_rows(connection, waiting)), *found_full)
        .values(code=RETRY_NOW)
    )
    look_at_stuck(connection, waiting)
    return True
