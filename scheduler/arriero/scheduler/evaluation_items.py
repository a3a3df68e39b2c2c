"""What an evaluation has to look at: it takes items of the rule, and with them the files of one chunk.

Whoever adds an item commits it with the change that it tells of. An item is taken before anything else is read, so what
is read afterwards has the change in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, exists, func, insert, literal, null, select, update

from arriero.registry.dialect import among, id_rows, look_up, one_of
from arriero.registry.schema.tables import (
    contents,
    dids,
    evaluation_items,
    locks,
    replicas,
    scopes,
    unplaced_groups,
)
from arriero.registry.states import DidType, EvaluationItem, LockState
from arriero.registry.store.contents import collections_below
from arriero.registry.store.evaluations import add_items
from arriero.scheduler.evaluation_words import Scope, Window, is_due
from arriero.scheduler.temporary import eval_items, eval_seen, eval_window

_MANY = 8192
"""Datasets of one chunk, at most."""


@dataclass(frozen=True, slots=True)
class _Sized:
    id: int
    did_id: int
    after_file_id: int
    files: int
    rows: int


def add_retries(connection: Connection, rule_id: int) -> None:
    """Have what is STUCK, and the groups that have no place, looked at."""
    stuck = select(literal(rule_id), literal(EvaluationItem.STUCK.value), null()).where(
        exists().where(locks.c.rule_id == rule_id, locks.c.state == LockState.STUCK)
    )
    unplaced = (
        select(unplaced_groups.c.rule_id, dids.c.type, dids.c.id)
        .join(dids, dids.c.id == unplaced_groups.c.group_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(unplaced_groups.c.rule_id == rule_id)
        .order_by(scopes.c.name, dids.c.name)
    )
    add_items(connection, stuck)
    add_items(connection, unplaced)


def take(connection: Connection, scope: Scope, *, limit: int, stuck_retry_s: float) -> EvaluationItem | None:
    """Take the files of one chunk: of what was attached or detached first, then of what is STUCK, then of collections.

    Parameters
    ----------
    limit
        Files, about: what is attached meanwhile comes on top.
    stuck_retry_s
        After so many seconds a copy that failed is due again.

    Returns
    -------
    EvaluationItem, optional
        Of which kind the items were; None when there are none.
    """
    there = _kinds(connection, scope)
    taken = None
    if EvaluationItem.CONTAINER in there:
        _open_containers(connection, scope)
        there = {*there, EvaluationItem.DATASET}
    if EvaluationItem.FILE in there:
        taken = EvaluationItem.FILE
        _take_files(connection, scope, limit)
    elif EvaluationItem.STUCK in there:
        taken = EvaluationItem.STUCK
        _take_stuck(connection, scope, limit, stuck_retry_s)
    elif EvaluationItem.DATASET in there:
        taken = EvaluationItem.DATASET
        _take_datasets(connection, scope, limit)
    # a group without a place that is looked at from its beginning gets another chance
    from_the_beginning = select(eval_items.c.did_id).where(eval_items.c.after_file_id == 0)
    connection.execute(
        delete(unplaced_groups).where(
            unplaced_groups.c.rule_id == scope.rule_id, one_of(unplaced_groups.c.group_id, from_the_beginning)
        )
    )
    return taken


def window_of(connection: Connection, scope: Scope, taken: EvaluationItem | None) -> Window:
    """Describe the files that were taken.

    Parameters
    ----------
    taken
        From `take`.
    """
    row = connection.execute(
        select(func.count(), func.min(eval_window.c.file_id), func.max(eval_window.c.file_id))
    ).one()
    first, last = row[1] or 0, row[2] or 0
    known = exists().where(locks.c.rule_id == scope.rule_id, locks.c.file_id.between(first, last))
    return Window(
        row[0],
        first,
        last,
        is_fresh=not connection.scalar(select(known)),
        is_content=scope.did_type is DidType.DATASET and taken is EvaluationItem.DATASET,
    )


def are_left(connection: Connection, scope: Scope) -> bool:
    """Whether the rule has more items."""
    return connection.scalar(select(exists().where(evaluation_items.c.rule_id == scope.rule_id))) is True


def pass_over_seen(connection: Connection) -> None:
    """Leave out of a chunk of a plan what its chunks before have looked at."""
    connection.execute(delete(eval_window).where(eval_window.c.file_id.in_(select(eval_seen.c.file_id))))
    connection.execute(insert(eval_seen).from_select(["file_id"], select(eval_window.c.file_id)))


def _kinds(connection: Connection, scope: Scope) -> set[EvaluationItem]:
    of_the_rule = evaluation_items.c.rule_id == scope.rule_id
    there = [exists().where(of_the_rule, evaluation_items.c.kind == kind) for kind in EvaluationItem]
    row = connection.execute(select(*there)).one()
    return {kind for kind, is_there in zip(EvaluationItem, row, strict=True) if is_there}


_ITEM = [evaluation_items.c[column.name] for column in eval_items.c]


def _note(connection: Connection, scope: Scope, kind: EvaluationItem, limit: int | None) -> None:
    items = (
        select(*_ITEM)
        .where(evaluation_items.c.rule_id == scope.rule_id, evaluation_items.c.kind == kind)
        .order_by(evaluation_items.c.id)
        .limit(limit)
    )
    connection.execute(insert(eval_items).from_select(list(eval_items.c), items))


def _remove(connection: Connection, kind: EvaluationItem) -> None:
    taken = select(eval_items.c.id).where(eval_items.c.kind == kind)
    connection.execute(delete(evaluation_items).where(among(connection, evaluation_items.c.id, taken)))


def _open_containers(connection: Connection, scope: Scope) -> None:
    """Have the datasets below containers looked at, by (scope, name), instead of the containers."""
    _note(connection, scope, EvaluationItem.CONTAINER, None)
    chosen = select(eval_items.c.did_id).where(eval_items.c.kind == EvaluationItem.CONTAINER)
    below = collections_below(chosen)
    datasets = (
        select(literal(scope.rule_id), literal(EvaluationItem.DATASET.value), dids.c.id)
        .select_from(below)
        .join(dids, dids.c.id == below.c.id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(below.c.type == DidType.DATASET)
        .order_by(scopes.c.name, dids.c.name)
    )
    add_items(connection, datasets)
    _remove(connection, EvaluationItem.CONTAINER)


def _take_files(connection: Connection, scope: Scope, limit: int) -> None:
    _note(connection, scope, EvaluationItem.FILE, limit)
    files = select(eval_items.c.did_id).where(eval_items.c.kind == EvaluationItem.FILE).distinct()
    connection.execute(insert(eval_window).from_select(["file_id"], files))
    _remove(connection, EvaluationItem.FILE)


def _take_stuck(connection: Connection, scope: Scope, limit: int, stuck_retry_s: float) -> None:
    item = connection.execute(
        select(evaluation_items.c.id, evaluation_items.c.after_file_id)
        .where(evaluation_items.c.rule_id == scope.rule_id, evaluation_items.c.kind == EvaluationItem.STUCK)
        .order_by(evaluation_items.c.id)
        .limit(1)
    ).one()
    of_the_lock = and_(replicas.c.file_id == locks.c.file_id, replicas.c.rse_id == locks.c.rse_id)
    due = (
        select(locks.c.file_id)
        .outerjoin(replicas, of_the_lock)
        .where(
            locks.c.rule_id == scope.rule_id,
            locks.c.state == LockState.STUCK,
            locks.c.file_id > item.after_file_id,
            is_due(stuck_retry_s),
        )
        .group_by(locks.c.file_id)
        .order_by(locks.c.file_id)
        .limit(limit)
    )
    connection.execute(insert(eval_window).from_select(["file_id"], due))
    _go_on_after(connection, item.id, limit)


def _take_datasets(connection: Connection, scope: Scope, limit: int) -> None:
    sized = _sized(connection, scope, limit)
    if not sized:
        return
    if sized[0].files > limit:
        _take_part(connection, sized[0], limit)
        return
    if sum(one.rows for one in sized) > limit:
        # of the last one nobody knows how many there are beyond
        sized.pop()
    _take_whole(connection, sized[:_MANY])


def _sized(connection: Connection, scope: Scope, limit: int) -> list[_Sized]:
    """Datasets to look at, the oldest items first, with their numbers of files.

    One more row than ``limit`` is read of all of them together, an empty one being a row too: the last is counted in
    part only where so many were found.
    """
    of_the_item = and_(
        contents.c.parent_id == evaluation_items.c.did_id,
        contents.c.child_id > evaluation_items.c.after_file_id,
    )
    found, content = look_up(connection, evaluation_items, contents, of_the_item, outer=True)
    rows = (
        select(
            evaluation_items.c.id,
            evaluation_items.c.did_id,
            evaluation_items.c.after_file_id,
            content.child_id,
        )
        .select_from(found)
        .where(evaluation_items.c.rule_id == scope.rule_id, evaluation_items.c.kind == EvaluationItem.DATASET)
        .order_by(evaluation_items.c.id)
        .limit(limit + 1)
        .subquery("rows")
    )
    counted = (
        select(
            rows.c.id,
            func.min(rows.c.did_id).label("did_id"),
            func.min(rows.c.after_file_id).label("after_file_id"),
            func.count(rows.c.child_id).label("files"),
            func.count().label("rows"),
        )
        .group_by(rows.c.id)
        .order_by(rows.c.id)
    )
    return [_Sized(*row) for row in connection.execute(counted)]


def _take_part(connection: Connection, one: _Sized, limit: int) -> None:
    files = (
        select(contents.c.child_id)
        .where(contents.c.parent_id == one.did_id, contents.c.child_id > one.after_file_id)
        .order_by(contents.c.child_id)
        .limit(limit)
    )
    connection.execute(insert(eval_window).from_select(["file_id"], files))
    _note_ids(connection, [one.id])
    _go_on_after(connection, one.id, limit)


def _take_whole(connection: Connection, chosen: Sequence[_Sized]) -> None:
    _note_ids(connection, [one.id for one in chosen])
    files = (
        select(contents.c.child_id)
        .select_from(eval_items)
        .join(contents, contents.c.parent_id == eval_items.c.did_id)
        .where(eval_items.c.kind == EvaluationItem.DATASET, contents.c.child_id > eval_items.c.after_file_id)
        .distinct()
    )
    connection.execute(insert(eval_window).from_select(["file_id"], files))
    _remove(connection, EvaluationItem.DATASET)


def _note_ids(connection: Connection, ids: Sequence[int]) -> None:
    items = select(*_ITEM).where(evaluation_items.c.id.in_(id_rows(connection, ids)))
    connection.execute(insert(eval_items).from_select(list(eval_items.c), items))


def _go_on_after(connection: Connection, item_id: int, limit: int) -> None:
    """Have an item go on after the files of this chunk; it is done if there were fewer than there could be."""
    files, last = connection.execute(select(func.count(), func.max(eval_window.c.file_id))).one()
    item = evaluation_items.c.id == item_id
    if files < limit:
        connection.execute(delete(evaluation_items).where(item))
    else:
        connection.execute(update(evaluation_items).where(item).values(after_file_id=last))
