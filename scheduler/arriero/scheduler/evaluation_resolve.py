"""The statements that resolve a rule's files: the same few for ten of them and for a hundred thousand.

Each takes a connection within the chunk's transaction and leaves its result in a temporary table
(`arriero.scheduler.temporary`). None begins or ends a transaction.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    FromClause,
    Select,
    and_,
    delete,
    false,
    func,
    insert,
    literal,
    select,
    true,
    update,
)

from arriero.registry.dialect import bulk_insert
from arriero.registry.schema.tables import contents, dataset_locks, dids, locks, replicas, rules, scopes
from arriero.registry.states import DidType, RuleGrouping
from arriero.scheduler.evaluation_words import (
    Chunk,
    GroupTotal,
    Scope,
)
from arriero.scheduler.temporary import eval_files, eval_gone, eval_rses, eval_sets


def note_rses(connection: Connection, candidates: Iterable[int], sources: Iterable[int]) -> None:
    """Have the RSEs that can be chosen and those that can be read from in a table."""
    chosen_from, read_from = set(candidates), set(sources)
    rows = [
        (rse_id, rse_id in chosen_from, rse_id in read_from) for rse_id in sorted(chosen_from | read_from)
    ]
    bulk_insert(connection, eval_rses, ("rse_id", "is_candidate", "is_source"), rows)


def resolve_sets(connection: Connection, scope: Scope) -> None:
    """Find the datasets below the rule's DID, however deep, and number them by (scope, name)."""
    columns = ["did_id", "position", "group_id", "is_chosen_now"]
    if scope.did_type is DidType.FILE:
        only = select(
            literal(scope.did_id, BigInteger), literal(1), literal(scope.did_id, BigInteger), false()
        )
        connection.execute(insert(eval_sets).from_select(columns, only))
        return
    tree = select(literal(scope.did_id, BigInteger).label("did_id")).cte("tree", recursive=True)
    parent = dids.alias("parent")
    below = (
        select(contents.c.child_id)
        .select_from(tree)
        .join(parent, and_(parent.c.id == tree.c.did_id, parent.c.type == DidType.CONTAINER))
        .join(contents, contents.c.parent_id == tree.c.did_id)
    )
    tree = tree.union(below)
    group: Any = {
        RuleGrouping.ALL: literal(scope.did_id, BigInteger),
        RuleGrouping.DATASET: dids.c.id,
        RuleGrouping.NONE: literal(0),
    }[scope.grouping]
    found = (
        select(
            dids.c.id,
            func.row_number().over(order_by=(scopes.c.name, dids.c.name)),
            group,
            false(),
        )
        .select_from(tree)
        .join(dids, dids.c.id == tree.c.did_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(dids.c.type == DidType.DATASET)
    )
    connection.execute(insert(eval_sets).from_select(columns, found))


def resolve_files(connection: Connection, scope: Scope, *, after_file_id: int, limit: int) -> Chunk:
    """Find the next files that have fewer locks than copies, each with the first dataset that it is in."""
    held = (
        select(locks.c.file_id, func.count().label("held"))
        .where(locks.c.rule_id == scope.rule_id, locks.c.file_id > after_file_id)
        .group_by(locks.c.file_id)
        .subquery("held")
    )
    member = _members(scope).subquery("member")
    first = (
        select(member.c.file_id, func.min(member.c.position).label("position"))
        .where(member.c.file_id > after_file_id)
        .group_by(member.c.file_id)
        .subquery("first")
    )
    lacking = (
        select(first.c.file_id, first.c.position)
        .outerjoin(held, held.c.file_id == first.c.file_id)
        .where(func.coalesce(held.c.held, 0) < scope.copies)
        .order_by(first.c.file_id)
        .limit(limit + 1)
        .subquery("lacking")
    )
    rows = (
        select(lacking.c.file_id, func.coalesce(dids.c.bytes, 0), dids.c.spread, eval_sets.c.group_id)
        .select_from(lacking)
        .join(dids, dids.c.id == lacking.c.file_id)
        .join(eval_sets, eval_sets.c.position == lacking.c.position)
    )
    connection.execute(insert(eval_files).from_select(["file_id", "bytes", "spread", "group_id"], rows))
    found, last = _extent(connection)
    complete = found <= limit
    if not complete:
        # one more than wanted, only to see that there is more
        connection.execute(delete(eval_files).where(eval_files.c.file_id == last))
        found, last = _extent(connection)
    return Chunk(found, last or after_file_id, complete)


def _extent(connection: Connection) -> tuple[int, int | None]:
    row = connection.execute(select(func.count(), func.max(eval_files.c.file_id))).one()
    return int(row[0]), row[1]


def find_gone(connection: Connection, scope: Scope) -> None:
    """Find the rule's locks that nothing asks for any more: detached files, and files whose group lies elsewhere."""
    member = _members(scope).subquery("member")
    covered = select(literal(1)).select_from(member).where(member.c.file_id == locks.c.file_id)
    if scope.did_type is not DidType.FILE and scope.grouping is RuleGrouping.DATASET:
        covered = covered.join(
            dataset_locks,
            and_(dataset_locks.c.rule_id == scope.rule_id, dataset_locks.c.group_id == member.c.group_id),
        ).where(dataset_locks.c.rse_id == locks.c.rse_id)
    gone = select(locks.c.file_id, locks.c.rse_id).where(
        locks.c.rule_id == scope.rule_id, ~covered.correlate(locks).exists()
    )
    connection.execute(insert(eval_gone).from_select(["file_id", "rse_id"], gone))


def find_elsewhere(connection: Connection, scope: Scope) -> None:
    """Find locks of this chunk's files that lie elsewhere than the dataset which places them now.

    A file that lost the dataset that had placed it may lie, with some of its copies, where another of its datasets does.
    """
    if scope.did_type is DidType.FILE or scope.grouping is not RuleGrouping.DATASET:
        return
    of_the_group = and_(
        dataset_locks.c.rule_id == scope.rule_id, dataset_locks.c.group_id == eval_files.c.group_id
    )
    placed = select(literal(1)).where(of_the_group).correlate(eval_files)
    there = (
        select(literal(1))
        .where(of_the_group, dataset_locks.c.rse_id == locks.c.rse_id)
        .correlate(eval_files, locks)
    )
    elsewhere = (
        select(locks.c.file_id, locks.c.rse_id)
        .join(eval_files, eval_files.c.file_id == locks.c.file_id)
        .where(locks.c.rule_id == scope.rule_id, placed.exists(), ~there.exists())
    )
    connection.execute(insert(eval_gone).from_select(["file_id", "rse_id"], elsewhere))


def _members(scope: Scope) -> Select[Any]:
    """Files below the rule's DID: ``file_id``, ``position`` and ``group_id`` of each dataset that a file is in."""
    position, group_id = eval_sets.c.position, eval_sets.c.group_id
    if scope.did_type is DidType.FILE:
        return select(eval_sets.c.did_id.label("file_id"), position, group_id)
    return select(contents.c.child_id.label("file_id"), position, group_id).join(
        eval_sets, eval_sets.c.did_id == contents.c.parent_id
    )


def find_groups_to_choose(connection: Connection, scope: Scope) -> Sequence[GroupTotal]:
    """Find the groups of this chunk that have no place yet, and how large each is as a whole."""
    there = (
        select(literal(1))
        .where(dataset_locks.c.rule_id == scope.rule_id, dataset_locks.c.group_id == eval_sets.c.group_id)
        .correlate(eval_sets)
    )
    connection.execute(
        update(eval_sets)
        .where(eval_sets.c.group_id.in_(select(eval_files.c.group_id)), ~there.exists())
        .values(is_chosen_now=true())
    )
    member = _chosen_now(scope)
    total = (
        select(
            member.c.group_id,
            func.count().label("files"),
            func.sum(func.coalesce(dids.c.bytes, 0)).label("bytes"),
        )
        .select_from(member)
        .join(dids, dids.c.id == member.c.file_id)
        .group_by(member.c.group_id)
        .subquery("total")
    )
    rows = connection.execute(
        select(total.c.group_id, scopes.c.name.label("scope"), dids.c.name, total.c.files, total.c.bytes)
        .select_from(total)
        .join(dids, dids.c.id == total.c.group_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .order_by(scopes.c.name, dids.c.name)
    )
    return [GroupTotal(row.group_id, f"{row.scope}:{row.name}", row.files, int(row.bytes)) for row in rows]


def present_bytes(connection: Connection, scope: Scope) -> dict[int, dict[int, int]]:
    """Bytes of each group without a place that are there already, by group and RSE."""
    member = _chosen_now(scope)
    rows = connection.execute(
        select(member.c.group_id, replicas.c.rse_id, func.sum(replicas.c.bytes).label("bytes"))
        .select_from(member)
        .join(replicas, replicas.c.file_id == member.c.file_id)
        .join(eval_rses, and_(eval_rses.c.rse_id == replicas.c.rse_id, eval_rses.c.is_candidate))
        .where(replicas.c.state.in_(scope.there))
        .group_by(member.c.group_id, replicas.c.rse_id)
    )
    present: dict[int, dict[int, int]] = {}
    for row in rows:
        present.setdefault(row.group_id, {})[row.rse_id] = int(row.bytes)
    return present


def held_bytes(connection: Connection, scope: Scope, account_id: int) -> dict[int, dict[int, int]]:
    """Bytes of each group without a place that rules of an account hold already, by group and RSE."""
    member = _chosen_now(scope)
    held = (
        select(member.c.group_id, locks.c.rse_id, func.max(locks.c.bytes).label("bytes"))
        .select_from(member)
        .join(locks, locks.c.file_id == member.c.file_id)
        .join(rules, rules.c.id == locks.c.rule_id)
        .where(rules.c.account_id == account_id)
        .group_by(member.c.group_id, locks.c.rse_id, locks.c.file_id)
        .subquery("held")
    )
    rows = connection.execute(
        select(held.c.group_id, held.c.rse_id, func.sum(held.c.bytes).label("bytes")).group_by(
            held.c.group_id, held.c.rse_id
        )
    )
    found: dict[int, dict[int, int]] = {}
    for row in rows:
        found.setdefault(row.group_id, {})[row.rse_id] = int(row.bytes)
    return found


def _chosen_now(scope: Scope) -> FromClause:
    member = _members(scope).where(eval_sets.c.is_chosen_now).subquery("member")
    files = select(member.c.group_id, member.c.file_id)
    # only with ALL can a file be in its group twice, through two datasets
    return (files.distinct() if scope.grouping is RuleGrouping.ALL else files).subquery("chosen_now")
