"""The queue of evaluations that are due, one row a rule."""

from collections.abc import Collection

from sqlalchemy import Connection, Select, literal, select

from arriero.registry.dialect import insert_into
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import evaluations, rules


def raise_evaluations(
    connection: Connection, rule_ids: Select[tuple[int]] | Collection[int], *, delay_s: float = 0
) -> None:
    """Have every rule of ``rule_ids`` looked at, in one statement; the last of a transaction that locks rows.

    A rule that is being evaluated right now is looked at once more afterwards: its row's generation has moved.

    Parameters
    ----------
    connection
        In the transaction that makes the change which the rules have to see.
    rule_ids
        Ids, or a query for one column, ``rules.id``; distinct.
    delay_s
        Not before this many seconds from now; an evaluation that is due earlier stays so.
    """
    if not isinstance(rule_ids, Select):
        if not rule_ids:
            return
        rule_ids = select(rules.c.id).where(rules.c.id.in_(sorted(rule_ids)))
    due = after(literal(delay_s)) if delay_s else now()
    source = rule_ids.subquery()
    rows = select(source.c[0], literal(1), due, literal(0), literal(0), now()).where(literal(True))
    # in one order everywhere: who raises the same rules at the same moment waits, and does not deadlock
    rows = rows.order_by(source.c[0])
    statement = insert_into(connection, evaluations).from_select(
        ["rule_id", "generation", "not_before", "attempt", "fence", "created_at"], rows
    )
    earlier = {"not_before": statement.excluded.not_before} if not delay_s else {}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[evaluations.c.rule_id],
            set_={"generation": evaluations.c.generation + 1, **earlier},
        )
    )
