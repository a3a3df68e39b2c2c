"""What rules that rest have yet to look at, thinned out by sets (docs/adr/0016).

A rule that goes on is looked at as a whole. So while it rests it needs the items of what it holds and what may have left
it; all others ask what is going to be asked anyhow, or ask it twice.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, and_, delete, exists, func, or_, select

from arriero.registry.schema.tables import (
    dataset_locks,
    evaluation_items,
    locks,
    rules,
    unplaced_groups,
)
from arriero.registry.states import RESTING, EvaluationItem


def crowded(connection: Connection, *, spare: int, limit: int) -> Sequence[int]:
    """Draw some of the rules that rest and have items, by lot; give the ids of those of them that have too many.

    Parameters
    ----------
    spare
        So many more than a rule has locks are not too many: whom `compact` has left what it needs is not drawn again.
    limit
        Rules to draw: what this costs does not grow with how many there are.
    """
    has_items = exists().where(evaluation_items.c.rule_id == rules.c.id)
    held = rules.c.locks_ok + rules.c.locks_replicating + rules.c.locks_stuck
    drawn = (
        select(rules.c.id, held.label("held"))
        .where(rules.c.state.in_(RESTING), has_items)
        .order_by(func.random())
        .limit(limit)
        .subquery("drawn")
    )
    query = (
        select(drawn.c.id)
        .join(evaluation_items, evaluation_items.c.rule_id == drawn.c.id)
        .group_by(drawn.c.id, drawn.c.held)
        .having(func.count() > drawn.c.held + spare)
        .order_by(drawn.c.id)
    )
    return list(connection.scalars(query))


def hold_resting(connection: Connection, rule_id: int) -> bool:
    """Hold a rule, so that it goes on resting; False when it does not rest any more, or somebody else has it."""
    query = (
        select(rules.c.id)
        .where(rules.c.id == rule_id, rules.c.state.in_(RESTING))
        .with_for_update(key_share=True, skip_locked=True)
    )
    return connection.scalar(query) is not None


def compact(connection: Connection, rule_id: int) -> int:
    """Take away the items of a rule that is held and rests which it does not need; give how many.

    It needs one for each file that it has a lock on, and one for each collection, if it holds anything at all.
    """
    items = evaluation_items
    mine = items.c.rule_id == rule_id
    is_file = items.c.kind == EvaluationItem.FILE
    lock = exists().where(locks.c.rule_id == rule_id, locks.c.file_id == items.c.did_id).correlate(items)
    holds = or_(
        *(exists().where(table.c.rule_id == rule_id) for table in (locks, dataset_locks, unplaced_groups))
    )
    # of several about the same the one that begins first looks at all that the others do
    turn = func.row_number().over(
        partition_by=(items.c.kind, items.c.did_id), order_by=(items.c.after_file_id, items.c.id)
    )
    numbered = select(items.c.id, turn.label("turn")).where(mine).subquery("numbered")
    again = select(numbered.c.id).where(numbered.c.turn > 1)
    idle = or_(and_(is_file, ~lock), ~holds)
    return connection.execute(delete(items).where(mine, or_(idle, items.c.id.in_(again)))).rowcount
