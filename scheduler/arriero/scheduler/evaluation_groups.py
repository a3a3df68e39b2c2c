"""The statements about groups that get their place now: how large they are, and what of them is where already.

A group is measured as a whole, once: when it is placed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Table,
    and_,
    func,
    insert,
    literal,
    select,
    true,
    update,
)

from arriero.registry.dialect import insert_into, join_as_planned, join_as_written, look_up, one_of
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    contents,
    dataset_locks,
    dids,
    locks,
    replicas,
    rules,
    scopes,
    unplaced_groups,
)
from arriero.registry.states import DidType, RuleGrouping
from arriero.registry.store.contents import file_ids_below
from arriero.scheduler.evaluation_words import GroupTotal, Scope
from arriero.scheduler.temporary import eval_files, eval_rses, eval_sets

REASON_LIMIT = 1000
"""Characters kept of a reason."""

_LARGE = 100_000
"""Files; to measure more, it pays to read whole tables."""

_FEW = 8
"""RSEs that are asked for one by one; of more, all replicas of a file are read."""


def find_new_groups(connection: Connection, scope: Scope) -> int:
    """Find the groups of this chunk's files that have no place yet; give how many datasets are in them."""
    there = (
        select(literal(1))
        .where(dataset_locks.c.rule_id == scope.rule_id, dataset_locks.c.group_id == eval_sets.c.group_id)
        .correlate(eval_sets)
    )
    return connection.execute(
        update(eval_sets)
        .where(one_of(eval_sets.c.group_id, select(eval_files.c.group_id)), ~there.exists())
        .values(is_new=true())
    ).rowcount


def measure_groups(connection: Connection, scope: Scope, candidates: Collection[int]) -> Sequence[GroupTotal]:
    """Measure the new groups, as a whole; in the order of their names.

    Parameters
    ----------
    candidates
        RSEs of which somebody asks what of the groups is there already.
    """
    large = _are_large(connection, scope)
    # the same statements for any number of files
    (join_as_planned if large else join_as_written)(connection)
    member = _members(connection, scope, large=large).subquery("member")
    found, did = _joined(connection, member, dids, dids.c.id == member.c.file_id, large=large)
    total = (
        select(member.c.group_id, func.sum(func.coalesce(did.bytes, 0)).label("bytes"))
        .select_from(found)
        .group_by(member.c.group_id)
        .subquery("total")
    )
    rows = connection.execute(
        select(total.c.group_id, scopes.c.name.label("scope"), dids.c.name, total.c.bytes)
        .select_from(total)
        .join(dids, dids.c.id == total.c.group_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .order_by(scopes.c.name, dids.c.name)
    ).all()
    there = _present_bytes(connection, scope, candidates, large=large) if candidates else {}
    join_as_written(connection)
    return [
        GroupTotal(row.group_id, f"{row.scope}:{row.name}", int(row.bytes), there.get(row.group_id, {}))
        for row in rows
    ]


def _are_large(connection: Connection, scope: Scope) -> bool:
    some = _members(connection, scope, large=False).limit(_LARGE).subquery("some")
    return connection.execute(select(func.count()).select_from(some)).scalar_one() == _LARGE


def _joined(
    connection: Connection, rows: FromClause, table: Table, on: ColumnElement[bool], *, large: bool
) -> tuple[FromClause, Any]:
    return (rows.join(table, on), table.c) if large else look_up(connection, rows, table, on)


def _present_bytes(
    connection: Connection, scope: Scope, candidates: Collection[int], *, large: bool
) -> dict[int, dict[int, int]]:
    """Bytes of each new group that are there already, by group and RSE."""
    member = _members(connection, scope, large=large).subquery("member")
    at_one: ColumnElement[bool]
    if len(candidates) <= _FEW:
        at_one = replicas.c.rse_id.in_(sorted(candidates))
    else:
        at_one = one_of(replicas.c.rse_id, select(eval_rses.c.rse_id).where(eval_rses.c.is_candidate))
    on = and_(replicas.c.file_id == member.c.file_id, replicas.c.state.in_(scope.there), at_one)
    found, replica = _joined(connection, member, replicas, on, large=large)
    rows = connection.execute(
        select(member.c.group_id, replica.rse_id, func.sum(replica.bytes).label("bytes"))
        .select_from(found)
        .group_by(member.c.group_id, replica.rse_id)
    )
    return _by_group(rows)


def held_bytes(connection: Connection, scope: Scope, account_id: int) -> dict[int, dict[int, int]]:
    """Bytes of each new group that rules of an account hold already, by group and RSE."""
    member = _members(connection, scope, large=True).subquery("member")
    held = (
        select(member.c.group_id, locks.c.rse_id, func.max(locks.c.bytes).label("bytes"))
        .select_from(member)
        .join(locks, locks.c.file_id == member.c.file_id)
        .join(rules, rules.c.id == locks.c.rule_id)
        .where(rules.c.account_id == account_id)
        .group_by(member.c.group_id, locks.c.rse_id, locks.c.file_id)
        .subquery("held")
    )
    return _by_group(
        connection.execute(
            select(held.c.group_id, held.c.rse_id, func.sum(held.c.bytes).label("bytes")).group_by(
                held.c.group_id, held.c.rse_id
            )
        )
    )


def _by_group(rows: Iterable[Any]) -> dict[int, dict[int, int]]:
    found: dict[int, dict[int, int]] = {}
    for row in rows:
        found.setdefault(row.group_id, {})[row.rse_id] = int(row.bytes)
    return found


def _members(connection: Connection, scope: Scope, *, large: bool) -> Select[Any]:
    """All files of the new groups: ``group_id`` and ``file_id``, each file once in a group."""
    if scope.did_type is DidType.FILE:
        return select(eval_sets.c.group_id, eval_sets.c.did_id.label("file_id")).where(eval_sets.c.is_new)
    if scope.did_type is DidType.DATASET:
        # it is the only group
        return _all_of(scope, contents.c.child_id).where(contents.c.parent_id == scope.did_id)
    if scope.grouping is RuleGrouping.ALL:
        return _all_of(scope, file_ids_below([scope.did_id]).c.id)
    found, content = _joined(
        connection, eval_sets, contents, contents.c.parent_id == eval_sets.c.did_id, large=large
    )
    return (
        select(eval_sets.c.group_id, content.child_id.label("file_id"))
        .select_from(found)
        .where(eval_sets.c.is_new)
    )


def _all_of(scope: Scope, file_id: ColumnElement[int]) -> Select[Any]:
    return select(literal(scope.did_id, dids.c.id.type).label("group_id"), file_id.label("file_id"))


def note_places(connection: Connection, scope: Scope, places: Iterable[tuple[int, int, str]]) -> None:
    """Keep where groups go: (group, RSE, why)."""
    rows = [
        {"rule_id": scope.rule_id, "group_id": group, "rse_id": rse, "reason": why[:REASON_LIMIT]}
        for group, rse, why in places
    ]
    if rows:
        connection.execute(insert(dataset_locks), rows)


def note_unplaced(connection: Connection, scope: Scope, refused: Mapping[int, tuple[str, str]]) -> None:
    """Keep why groups have no place: (code, reason) by group."""
    if not refused:
        return
    statement = insert_into(connection, unplaced_groups).values(created_at=now())
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["rule_id", "group_id"],
            set_={"code": statement.excluded.code, "reason": statement.excluded.reason},
        ),
        [
            {"rule_id": scope.rule_id, "group_id": group, "code": code, "reason": why[:REASON_LIMIT]}
            for group, (code, why) in sorted(refused.items())
        ],
    )
