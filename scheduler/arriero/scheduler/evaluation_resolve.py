"""The statements that resolve the files of a chunk: which are the rule's, in which groups, and which locks are not wanted.

Each takes a connection within the chunk's transaction and leaves its result in a temporary table
(`arriero.scheduler.temporary`). They begin with the files of the chunk and go up from there, so they cost what the
chunk is, however large the rule. None begins or ends a transaction.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Table,
    and_,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    select,
    true,
    update,
)

from arriero.registry.dialect import among, bulk_insert, look_up
from arriero.registry.schema.tables import contents, dataset_locks, dids, locks, scopes, unplaced_groups
from arriero.registry.states import DidType, EvaluationItem
from arriero.scheduler.evaluation_words import Scope, Window
from arriero.scheduler.temporary import (
    eval_files,
    eval_gone,
    eval_items,
    eval_parents,
    eval_rses,
    eval_sets,
    eval_window,
)


def note_rses(connection: Connection, candidates: Iterable[int], sources: Iterable[int]) -> None:
    """Have the RSEs that can be chosen and those that can be read from in a table."""
    chosen_from, read_from = set(candidates), set(sources)
    rows = [
        (rse_id, rse_id in chosen_from, rse_id in read_from) for rse_id in sorted(chosen_from | read_from)
    ]
    bulk_insert(connection, eval_rses, ("rse_id", "is_candidate", "is_source"), rows)


def resolve_sets(connection: Connection, scope: Scope) -> None:
    """Find the datasets of the chunk's files that are below the rule's DID, and number them by (scope, name)."""
    columns = ["did_id", "position", "group_id", "is_new", "is_unplaced"]
    if scope.did_type is not DidType.CONTAINER:
        did_id = literal(scope.did_id, BigInteger)
        only = select(did_id, literal(1), did_id, false(), _is_unplaced(scope, did_id))
        connection.execute(insert(eval_sets).from_select(columns, only))
        return
    found, content = look_up(connection, eval_window, contents, contents.c.child_id == eval_window.c.file_id)
    held_by = select(content.parent_id).select_from(found)
    looked_at = select(eval_items.c.did_id).where(eval_items.c.kind == EvaluationItem.DATASET)
    connection.execute(insert(eval_parents).from_select(["did_id"], held_by.union(looked_at)))
    up = select(eval_parents.c.did_id.label("set_id"), eval_parents.c.did_id.label("id")).cte(
        "up", recursive=True
    )
    above, content = look_up(connection, up, contents, contents.c.child_id == up.c.id)
    up = up.union(select(up.c.set_id, content.parent_id).select_from(above))
    own = select(up.c.set_id).where(up.c.id == scope.did_id).subquery("own")
    named, did = look_up(connection, own, dids, dids.c.id == own.c.set_id)
    group_id = did.id if scope.has_many_groups else literal(scope.did_id, BigInteger)
    below = (
        select(
            did.id,
            func.row_number().over(order_by=(scopes.c.name, did.name)),
            # the DID itself stands for all that have no groups
            group_id,
            false(),
            _is_unplaced(scope, group_id),
        )
        .select_from(named)
        .join(scopes, scopes.c.id == did.scope_id)
        .where(did.type == DidType.DATASET)
    )
    connection.execute(insert(eval_sets).from_select(columns, below))


def _is_unplaced(scope: Scope, group_id: ColumnElement[int]) -> ColumnElement[bool]:
    if scope.by_file:
        return false()
    return exists().where(unplaced_groups.c.rule_id == scope.rule_id, unplaced_groups.c.group_id == group_id)


def drop_places(connection: Connection, scope: Scope) -> None:
    """Forget the places of the datasets of this chunk that are below the rule's DID no more."""
    if not scope.has_many_groups or scope.did_type is not DidType.CONTAINER:
        return
    for table in (dataset_locks, unplaced_groups):
        connection.execute(
            delete(table).where(
                table.c.rule_id == scope.rule_id,
                among(connection, table.c.group_id, select(eval_parents.c.did_id)),
                table.c.group_id.not_in(select(eval_sets.c.group_id)),
            )
        )


def find_gone(connection: Connection, scope: Scope) -> int:
    """Find locks that nothing asks for any more: on detached files, and on files whose group lies elsewhere.

    Returns
    -------
    int
        How many there are.
    """
    if scope.did_type is DidType.FILE:
        return 0
    found, lock = locks_of(connection, scope, eval_window)
    covered = (
        select(literal(1))
        .select_from(contents)
        .join(eval_sets, eval_sets.c.did_id == contents.c.parent_id)
        .where(contents.c.child_id == lock.file_id)
    )
    if scope.has_many_groups:
        covered = covered.join(
            dataset_locks,
            and_(
                dataset_locks.c.rule_id == scope.rule_id,
                dataset_locks.c.group_id == eval_sets.c.group_id,
                dataset_locks.c.rse_id == lock.rse_id,
            ),
        )
    gone = (
        select(lock.file_id, lock.rse_id)
        .select_from(found)
        .where(~covered.correlate_except(contents, eval_sets, dataset_locks).exists())
    )
    return _note_gone(connection, gone)


def locks_of(connection: Connection, scope: Scope, files: Table) -> tuple[FromClause, Any]:
    """The rule's locks on each of some files: a join, and the columns of the locks in it."""
    on = and_(locks.c.rule_id == scope.rule_id, locks.c.file_id == files.c.file_id)
    return look_up(connection, files, locks, on)


def find_elsewhere(connection: Connection, scope: Scope) -> int:
    """Find locks of files that lack some, and that lie elsewhere than the dataset which places the files now.

    A file that lost the dataset that had placed it may lie, with some of its copies, where another of its datasets does.

    Returns
    -------
    int
        How many there are.
    """
    if scope.by_file:
        return 0
    found, lock = locks_of(connection, scope, eval_files)
    of_the_group = and_(
        dataset_locks.c.rule_id == scope.rule_id, dataset_locks.c.group_id == eval_files.c.group_id
    )
    placed = select(literal(1)).where(of_the_group).correlate_except(dataset_locks)
    there = (
        select(literal(1))
        .where(of_the_group, dataset_locks.c.rse_id == lock.rse_id)
        .correlate_except(dataset_locks)
    )
    elsewhere = select(lock.file_id, lock.rse_id).select_from(found).where(placed.exists(), ~there.exists())
    return _note_gone(connection, elsewhere)


def _note_gone(connection: Connection, gone: Select[Any]) -> int:
    return connection.execute(
        insert(eval_gone).from_select(["file_id", "rse_id"], gone),
        execution_options={"preserve_rowcount": True},
    ).rowcount


def resolve_files(connection: Connection, scope: Scope, window: Window) -> int:
    """Find the files of the chunk that have fewer locks than copies, each with the first dataset that may place it.

    Returns
    -------
    int
        How many were found.
    """
    found = _grouped(connection, scope, window).subquery("found")
    rows = (
        select(found.c.file_id, func.coalesce(dids.c.bytes, 0), dids.c.spread, found.c.group_id)
        .select_from(found)
        .join(dids, dids.c.id == found.c.file_id)
    )
    if not window.is_fresh:
        held = (
            select(func.count())
            .where(locks.c.rule_id == scope.rule_id, locks.c.file_id == found.c.file_id)
            .correlate(found)
            .scalar_subquery()
        )
        rows = rows.where(held < scope.copies)
    return connection.execute(
        insert(eval_files).from_select(["file_id", "bytes", "spread", "group_id"], rows),
        execution_options={"preserve_rowcount": True},
    ).rowcount


def _grouped(connection: Connection, scope: Scope, window: Window) -> Select[Any]:
    """Files of the chunk that are the rule's, each with the group of the first dataset that may place it."""
    free = ~eval_sets.c.is_unplaced
    if scope.did_type is not DidType.CONTAINER:
        # one group
        file_and_group = select(eval_window.c.file_id, eval_sets.c.group_id)
        if window.is_content:
            return file_and_group.select_from(eval_window).join(eval_sets, free)
        if scope.did_type is DidType.FILE:
            own = and_(eval_sets.c.did_id == eval_window.c.file_id, free)
            return file_and_group.select_from(eval_window).join(eval_sets, own)
        on = and_(contents.c.parent_id == scope.did_id, contents.c.child_id == eval_window.c.file_id)
        found, _ = look_up(connection, eval_window, contents, on)
        return file_and_group.select_from(found).join(eval_sets, free)
    found, content = look_up(connection, eval_window, contents, contents.c.child_id == eval_window.c.file_id)
    first = (
        select(content.child_id.label("file_id"), func.min(eval_sets.c.position).label("position"))
        .select_from(found)
        .join(eval_sets, and_(eval_sets.c.did_id == content.parent_id, free))
        .group_by(content.child_id)
        .subquery("first")
    )
    return select(first.c.file_id, eval_sets.c.group_id).join(
        eval_sets, eval_sets.c.position == first.c.position
    )


def forget_groups(connection: Connection, scope: Scope) -> None:
    """Let no group that has turned out to have no place place the files of the chunk, which are to be found again."""
    refused = select(unplaced_groups.c.group_id).where(unplaced_groups.c.rule_id == scope.rule_id)
    connection.execute(
        update(eval_sets).where(eval_sets.c.group_id.in_(refused)).values(is_unplaced=true(), is_new=false())
    )
    connection.execute(delete(eval_files))
