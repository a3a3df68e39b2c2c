"""Attaching and detaching by sets: what a call has staged becomes rows of ``contents``, or of its history."""

from collections.abc import Iterable

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    delete,
    exists,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from arriero.registry.dialect import insert_into
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import contents, contents_history, dids, scopes
from arriero.registry.states import DidType
from arriero.registry.store.staging import staged_children


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
        .where(or_(dids.c.id.is_(None), wrong_type, differs))
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


def pass_over_attached(connection: Connection) -> None:
    """Forget the staged children that are attached already."""
    staged = staged_children.c
    held = exists().where(contents.c.parent_id == staged.parent_id, contents.c.child_id == staged.child_id)
    connection.execute(delete(staged_children).where(held))


def staged_pairs() -> Select[tuple[int, int]]:
    """Query for the ids of the staged children that are there, each with its parent's first."""
    staged = staged_children.c
    return select(staged.parent_id, staged.child_id).where(staged.child_id.is_not(None))


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
    """Detach the staged children, into the history; give how many were attached."""
    staged = select(staged_children.c.parent_id, staged_children.c.child_id)
    return detach_where(connection, tuple_(contents.c.parent_id, contents.c.child_id).in_(staged))


def detach_where(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Detach what a condition on ``contents`` chooses, into the history; give how much that was.

    Parameters
    ----------
    connection
        In a transaction that has locked the parents.
    """
    attached = select(contents.c.parent_id, contents.c.child_id, contents.c.created_at, now()).where(
        condition
    )
    connection.execute(
        insert(contents_history).from_select(
            ["parent_id", "child_id", "attached_at", "detached_at"], attached, include_defaults=False
        )
    )
    return connection.execute(delete(contents).where(condition)).rowcount


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
