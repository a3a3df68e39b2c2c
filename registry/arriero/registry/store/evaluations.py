"""What of rules has to be looked at: one row a rule that is due, and beside it the items that it is due for.

Whoever changes what rules ask for, or what they find, says so here in the transaction of the change. Items are only
added and taken, so nobody waits for anybody, and what was added by a transaction that the evaluation did not see yet
raises the rule's generation: it is due again (docs/adr/0016).
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Select, SelectBase, insert, literal, null, select

from arriero.registry.dialect import id_rows, insert_into
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import dids, evaluation_items, evaluations, rules
from arriero.registry.states import EvaluationItem
from arriero.registry.store import contents as tree

RuleIds = Select[Any] | Collection[int]
"""Ids of rules, or a query for one column of them; distinct."""


def add_items(connection: Connection, items: SelectBase) -> None:
    """Add what a query finds to what has to be looked at: ids of rules, kinds, and ids of DIDs or null."""
    columns = ["rule_id", "kind", "did_id"]
    connection.execute(insert(evaluation_items).from_select(columns, items, include_defaults=False))


def look_at_rules(connection: Connection, rule_ids: RuleIds, *, delay_s: float = 0) -> None:
    """Have everything of rules looked at: each is new, resumed or approved.

    A rule that is being evaluated right now is looked at once more afterwards.

    Parameters
    ----------
    connection
        In the transaction that makes the change which the rules have to see. This is the last of its statements that
        lock rows.
    rule_ids
        Which.
    delay_s
        Not before this many seconds from now; an evaluation that is due earlier stays so.
    """
    whole = (
        select(rules.c.id, dids.c.type, dids.c.id)
        .join(dids, dids.c.id == rules.c.did_id)
        .where(rules.c.id.in_(_query(connection, rule_ids)))
        .order_by(rules.c.id)
    )
    add_items(connection, whole)
    _raise(connection, rule_ids, delay_s=delay_s)


def look_at_stuck(connection: Connection, rule_ids: RuleIds, *, delay_s: float = 0) -> None:
    """Have what is STUCK, or has no place, in rules tried again: its cause may have gone.

    Parameters
    ----------
    connection, rule_ids, delay_s
        As of `look_at_rules`.
    """
    _raise(connection, rule_ids, delay_s=delay_s, retries=True)


def look_at_files(connection: Connection, pairs: Select[Any]) -> None:
    """Have files looked at, each by a rule.

    Parameters
    ----------
    connection
        As of `look_at_rules`.
    pairs
        Query for a rule's id and a file's id. It is asked now: a lock that came since the transaction first looked is
        seen, if the transaction holds what the lock is on.
    """
    found = pairs.subquery("found")
    rule_id, file_id = found.c
    # those that are taken away at this moment are waited for, and passed over
    held = select(rules.c.id).where(rules.c.id.in_(select(rule_id))).order_by(rules.c.id)
    rule_ids: list[int] = list(connection.scalars(held.with_for_update(read=True, key_share=True)))
    if not rule_ids:
        return
    items = (
        select(rule_id, literal(EvaluationItem.FILE.value), file_id)
        .where(rule_id.in_(id_rows(connection, sorted(rule_ids))))
        .distinct()
    )
    add_items(connection, items)
    _raise(connection, rule_ids)


def look_at_contents(connection: Connection, parent_ids: Collection[int], changed: Select[Any]) -> None:
    """Have what is attached or detached looked at by every rule above it, whatever state the rule is in.

    A rule that rests keeps what it has to look at until it goes on; whether it rests is decided where its row is held.

    Parameters
    ----------
    connection
        As of `look_at_rules`; it has locked the parents.
    parent_ids
        What is attached to, or detached from.
    changed
        Query for the id of a parent and that of its child.
    """
    above: list[int] = list(connection.scalars(tree.rules_above(parent_ids)))
    if not above:
        return
    pair = changed.subquery("changed")
    parent_id, child_id = pair.c
    rule_of = tree.rules_above_each(parent_ids)
    child = dids.alias("child")
    items = (
        select(rule_of.c.rule_id, child.c.type, child.c.id)
        .select_from(pair)
        .join(rule_of, rule_of.c.parent_id == parent_id)
        .join(child, child.c.id == child_id)
        .where(rule_of.c.rule_id.in_(id_rows(connection, above)))
        .distinct()
    )
    add_items(connection, items)
    _raise(connection, above)


def _query(connection: Connection, rule_ids: RuleIds) -> Select[Any]:
    return rule_ids if isinstance(rule_ids, Select) else id_rows(connection, sorted(rule_ids))


def _raise(connection: Connection, rule_ids: RuleIds, *, delay_s: float = 0, retries: bool = False) -> None:
    """Have the rules be due.

    Parameters
    ----------
    retries
        For what is STUCK, too.
    """
    if not isinstance(rule_ids, Select) and not rule_ids:
        return
    due = after(literal(delay_s)) if delay_s else now()
    source = _query(connection, rule_ids).subquery()
    retry_at = due if retries else null()
    rows = select(source.c[0], literal(1), due, retry_at, literal(0), literal(0), now()).where(literal(True))
    # in one order everywhere: who raises the same rules at the same moment waits, and does not deadlock
    rows = rows.order_by(source.c[0])
    statement = insert_into(connection, evaluations).from_select(
        ["rule_id", "generation", "not_before", "retry_at", "attempt", "fence", "created_at"], rows
    )
    earlier: dict[str, Any] = {} if delay_s else {"not_before": statement.excluded.not_before}
    if retries and not delay_s:
        earlier["retry_at"] = statement.excluded.retry_at
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[evaluations.c.rule_id],
            set_={"generation": evaluations.c.generation + 1, **earlier},
        )
    )
