"""Rules that wait for a change of an RSE: one that opens something has them looked at again.

Whether it was the change that a rule waited for only its evaluation can tell, so all STUCK rules are raised. Such
changes are made by people, and are few.
"""

from collections.abc import Callable

from sqlalchemy import Connection, exists, select

from arriero.registry.ports import Bell
from arriero.registry.schema.tables import rules
from arriero.registry.services.context import Context
from arriero.registry.states import RuleState
from arriero.registry.store.evaluations import raise_evaluations


def run_and_wake(context: Context, work: Callable[[Connection], bool]) -> None:
    """Do some work in a transaction; if it says that it has opened something, have STUCK rules looked at.

    Parameters
    ----------
    work
        Gives whether a rule may now succeed that could not before.
    """

    def whole(connection: Connection) -> bool:
        return work(connection) and wake_stuck(connection)

    if context.database.run(whole):
        context.doorbell.ring(Bell.EVALUATIONS)


def wake_stuck(connection: Connection) -> bool:
    """Have all STUCK rules looked at again; False when there is none."""
    stuck = rules.c.state == RuleState.STUCK
    if not connection.scalar(select(exists().where(stuck))):
        return False
    # held: one that is being taken away at this moment is waited for, and passed over
    waiting = select(rules.c.id).where(stuck).with_for_update(read=True, key_share=True)
    raise_evaluations(connection, waiting)
    return True
