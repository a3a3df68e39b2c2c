"""What holds what: attaching and detaching by sets, and walking the tree up and down in SQL."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    Connection,
    RowMapping,
    Select,
    Subquery,
    and_,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    union,
    update,
)

from arriero.registry.dialect import insert_into
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import contents, dids, rules, scopes
from arriero.registry.states import DidType, RuleState
from arriero.registry.store.staging import staged_children

_NOT_EVALUATED = (RuleState.SUSPENDED, RuleState.WAITING_APPROVAL)
"""Rules that no change of contents wakes; being resumed or approved has them look at everything."""


def ancestors(ids: Iterable[int]) -> CTE:
    """DIDs and everything above them, one column ``id``; ends on circles too."""
    up = select(dids.c.id).where(dids.c.id.in_(list(ids))).cte("ancestors", recursive=True)
    return up.union(select(contents.c.parent_id).join(up, contents.c.child_id == up.c.id))


def ancestor_ids(connection: Connection, ids: Iterable[int]) -> frozenset[int]:
    """DIDs and everything above them."""
    return frozenset(connection.scalars(select(ancestors(ids).c.id)))


def collections_below(ids: Iterable[int]) -> CTE:
    """DIDs and the collections below them, columns ``id`` and ``type``; the files of datasets are not looked at."""
    down = select(dids.c.id, dids.c.type).where(dids.c.id.in_(list(ids))).cte("collections", recursive=True)
    child = dids.alias("child")
    return down.union(
        select(child.c.id, child.c.type)
        .join(contents, contents.c.child_id == child.c.id)
        .join(down, and_(down.c.id == contents.c.parent_id, down.c.type == DidType.CONTAINER))
    )


def file_ids_below(ids: Sequence[int]) -> Subquery:
    """Files that DIDs are or hold, at any depth, each once; one column ``id``.

    What is a file follows from what holds it: a condition on ``dids.type`` here has the planner of a database without
    statistics expect a handful of rows, and join them one by one.
    """
    tree = collections_below(ids)
    held = (
        select(contents.c.child_id.label("id"))
        .join(tree, contents.c.parent_id == tree.c.id)
        .where(tree.c.type == DidType.DATASET)
    )
    named = select(tree.c.id).where(tree.c.type == DidType.FILE)
    return union(held, named).subquery("below")


def files_below(ids: Sequence[int]) -> Select[Any]:
    """Query for the files that DIDs are or hold, at any depth, each once."""
    below = file_ids_below(ids)
    return (
        select(dids.c.id, scopes.c.name.label("scope"), dids.c.name, dids.c.bytes, dids.c.adler32, dids.c.md5)
        .join(below, below.c.id == dids.c.id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
    )


def children_of(parent_id: int) -> Select[Any]:
    """Query for what a collection holds, in the order of the ids."""
    return (
        select(
            scopes.c.name.label("scope"), dids.c.name, dids.c.type, dids.c.bytes, dids.c.adler32, dids.c.md5
        )
        .join(contents, contents.c.child_id == dids.c.id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(contents.c.parent_id == parent_id)
        .order_by(contents.c.child_id)
    )


def parents_of(child_id: int) -> Select[Any]:
    """Query for the collections that hold a DID."""
    return (
        select(scopes.c.name.label("scope"), dids.c.name, dids.c.type)
        .join(contents, contents.c.parent_id == dids.c.id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(contents.c.child_id == child_id)
        .order_by(scopes.c.name, dids.c.name)
    )


def totals_below(connection: Connection, did_id: int) -> tuple[int, int]:
    """Files and bytes that a collection holds, at any depth, each file once."""
    files = files_below([did_id]).subquery()
    query = select(func.count(), func.coalesce(func.sum(files.c.bytes), 0)).select_from(files)
    count, total = connection.execute(query).one()
    return int(count), int(total)


def resolve_children(connection: Connection) -> None:
    """Give the rows of ``staged_children`` the ids of the DIDs that they name."""
    connection.execute(
        update(staged_children)
        .values(child_id=dids.c.id)
        .where(dids.c.scope_id == staged_children.c.scope_id, dids.c.name == staged_children.c.name)
    )


def staged_collection_ids(connection: Connection) -> frozenset[int]:
    """Ids of the staged children that are collections."""
    query = (
        select(dids.c.id)
        .join(staged_children, staged_children.c.child_id == dids.c.id)
        .where(dids.c.type != DidType.FILE)
    )
    return frozenset(connection.scalars(query))


def staged_fault(connection: Connection) -> RowMapping | None:
    """First staged child that cannot be attached, with why: missing, wrong type, or not what was said of it.

    Returns
    -------
    row
        ``scope``, ``name``, ``type``, ``parent_type``, and what the catalogue and the call say of bytes and checksums.
    """
    parent = dids.alias("parent")
    staged = staged_children.c
    wrong_type = or_(
        and_(parent.c.type == DidType.DATASET, dids.c.type != DidType.FILE),
        and_(parent.c.type == DidType.CONTAINER, dids.c.type == DidType.FILE),
    )
    differs = and_(
        dids.c.type == DidType.FILE,
        or_(
            staged.bytes != dids.c.bytes,
            staged.adler32 != dids.c.adler32,
            staged.md5 != dids.c.md5,
        ),
    )
    query = (
        select(
            scopes.c.name.label("scope"),
            staged.name,
            dids.c.type,
            parent.c.type.label("parent_type"),
            dids.c.bytes,
            dids.c.adler32,
            dids.c.md5,
            staged.bytes.label("said_bytes"),
            staged.adler32.label("said_adler32"),
            staged.md5.label("said_md5"),
        )
        .select_from(staged_children)
        .join(scopes, scopes.c.id == staged.scope_id)
        .join(parent, parent.c.id == staged.parent_id)
        .outerjoin(dids, dids.c.id == staged.child_id)
        .where(or_(staged.child_id.is_(None), wrong_type, differs))
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def staged_presence(connection: Connection, *, attached: bool) -> RowMapping | None:
    """First staged child that is attached already, or that is not.

    Returns
    -------
    row
        ``scope``, ``name``, ``type``.
    """
    staged = staged_children.c
    held = exists().where(contents.c.parent_id == staged.parent_id, contents.c.child_id == staged.child_id)
    query = (
        select(scopes.c.name.label("scope"), staged.name, dids.c.type)
        .select_from(staged_children)
        .join(scopes, scopes.c.id == staged.scope_id)
        .outerjoin(dids, dids.c.id == staged.child_id)
        .where(held if attached else ~held)
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def attach_staged(connection: Connection) -> int:
    """Attach the staged children that are not attached yet; give how many."""
    staged = staged_children.c
    statement = insert_into(connection, contents).from_select(
        ["parent_id", "child_id", "created_at"],
        select(staged.parent_id, staged.child_id, now())
        .where(staged.child_id.is_not(None))
        .order_by(staged.parent_id, staged.child_id),
    )
    return connection.execute(
        statement.on_conflict_do_nothing(), execution_options={"preserve_rowcount": True}
    ).rowcount


def detach_staged(connection: Connection) -> int:
    """Detach the staged children; give how many were attached."""
    staged = select(staged_children.c.parent_id, staged_children.c.child_id)
    return connection.execute(
        delete(contents).where(tuple_(contents.c.parent_id, contents.c.child_id).in_(staged))
    ).rowcount


def is_circular(connection: Connection, ids: Iterable[int]) -> bool:
    """Whether any of these DIDs stands above itself."""
    chosen = list(ids)
    up = (
        select(contents.c.child_id.label("start"), contents.c.parent_id.label("id"))
        .where(contents.c.child_id.in_(chosen))
        .cte("above", recursive=True)
    )
    up = up.union(select(up.c.start, contents.c.parent_id).join(up, contents.c.child_id == up.c.id))
    return connection.scalar(select(exists().where(up.c.start == up.c.id))) is True


def rules_above(ids: Iterable[int]) -> Select[tuple[int]]:
    """Query for the ids of the rules on DIDs or anything above them that changes of contents wake.

    It waits for a rule that is being taken away at this moment, and passes it over.
    """
    return (
        select(rules.c.id)
        .where(rules.c.did_id.in_(select(ancestors(ids).c.id)), rules.c.state.not_in(_NOT_EVALUATED))
        .with_for_update(read=True, key_share=True, of=rules)
    )
