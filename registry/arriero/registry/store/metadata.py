"""Metadata of DIDs in the database: read, laid over, taken away, by sets."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    FromClause,
    Select,
    cast,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from arriero.registry.dialect import insert_into
from arriero.registry.schema.tables import accounts, contents, did_meta, dids, scopes
from arriero.registry.store.contents import everything_below
from arriero.registry.store.did_sets import staged_dids
from arriero.registry.store.json import json_merge, json_of
from arriero.registry.store.losses import is_lost

MAX_INHERITANCE = 20
"""Levels of collections from which a DID inherits."""


class _json_bytes(FunctionElement[int]):  # noqa: N801 - reads as the SQL function that it is
    """Length of a JSON document as text, bytes."""

    type = BigInteger()
    inherit_cache = True


@compiles(_json_bytes)
def _json_bytes_sql(element: _json_bytes, compiler: Any, **kw: Any) -> str:
    return f"octet_length(CAST({compiler.process(element.clauses, **kw)} AS text))"


@compiles(_json_bytes, "sqlite")
def _json_bytes_sqlite(element: _json_bytes, compiler: Any, **kw: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **kw)} AS BLOB))"


def merge_staged_metadata(connection: Connection) -> None:
    """Lay the staged metadata over what the staged DIDs have, in one statement."""
    staged = staged_dids.c
    rows = select(staged.did_id, json_of(connection, staged.meta)).where(staged.meta.is_not(None))
    _lay_over(connection, rows.order_by(staged.did_id))


def _lay_over(connection: Connection, rows: Select[Any]) -> None:
    statement = insert_into(connection, did_meta).from_select(["did_id", "meta"], rows)
    merged = json_merge(did_meta.c.meta, statement.excluded.meta)
    connection.execute(statement.on_conflict_do_update(index_elements=["did_id"], set_={"meta": merged}))


def _staged_roots() -> FromClause:
    staged = staged_dids.c
    return select(staged.did_id.label("id"), staged.did_id.label("root")).subquery("roots")


def staged_files(*, below: bool) -> Select[tuple[int]]:
    """Query for the ids of the staged DIDs; with `below`, of all that is in them, too."""
    if not below:
        return select(staged_dids.c.did_id)
    return select(everything_below(_staged_roots()).subquery("described").c.id)


def merge_below_staged(connection: Connection) -> None:
    """Lay the staged metadata over what everything below the staged DIDs has, at any depth, in one statement.

    Of several above, the one that was made last has the last word.
    """
    tree = everything_below(_staged_roots()).subquery("tree")
    staged = staged_dids.c
    above = (
        select(tree.c.id, func.max(tree.c.root).label("root"))
        .where(tree.c.id != tree.c.root)
        .group_by(tree.c.id)
        .subquery("above")
    )
    rows = (
        select(above.c.id, json_of(connection, staged.meta))
        .join(staged_dids, staged.did_id == above.c.root)
        .where(staged.meta.is_not(None))
        .order_by(above.c.id)
    )
    _lay_over(connection, rows)


def owners_below_staged(connection: Connection) -> dict[str, str]:
    """Scopes of everything below the staged DIDs, and the accounts that they belong to."""
    tree = everything_below(_staged_roots()).subquery("tree")
    within = select(dids.c.scope_id).join(tree, tree.c.id == dids.c.id).distinct().subquery("within")
    query = (
        select(scopes.c.name, accounts.c.name.label("owner"))
        .join(within, within.c.scope_id == scopes.c.id)
        .join(accounts, accounts.c.id == scopes.c.account_id)
        .order_by(scopes.c.name)
    )
    return {row.name: row.owner for row in connection.execute(query)}


def largest_staged(connection: Connection) -> int:
    """Bytes of the largest metadata that one of the staged DIDs has now."""
    query = (
        select(func.max(_json_bytes(did_meta.c.meta)))
        .select_from(staged_dids)
        .join(did_meta, did_meta.c.did_id == staged_dids.c.did_id)
    )
    return int(connection.scalar(query) or 0)


def described(keys: FromClause) -> Select[Any]:
    """Query for the columns and the metadata of DIDs, in the order of ``keys``; those that are not there are missing.

    Parameters
    ----------
    keys
        Of `arriero.registry.store.did_sets.named`.
    """
    return (
        select(
            dids,
            scopes.c.name.label("scope"),
            accounts.c.name.label("account"),
            did_meta.c.meta,
            is_lost(dids.c.id).label("is_lost"),
        )
        .select_from(keys)
        .join(dids, (dids.c.scope_id == keys.c.scope_id) & (dids.c.name == keys.c.name))
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(accounts, accounts.c.id == dids.c.account_id)
        .outerjoin(did_meta, did_meta.c.did_id == dids.c.id)
        .order_by(keys.c.position)
    )


def inherited(keys: FromClause) -> Select[Any]:
    """Query for the metadata of what stands above DIDs: ``position``, ``meta``; the nearest of each position first.

    Parameters
    ----------
    keys
        Of `arriero.registry.store.did_sets.named`.
    """
    up = (
        select(
            cast(keys.c.position, BigInteger).label("position"),
            dids.c.id.label("id"),
            literal(0, BigInteger).label("depth"),
        )
        .select_from(keys)
        .join(dids, (dids.c.scope_id == keys.c.scope_id) & (dids.c.name == keys.c.name))
        .cte("up", recursive=True)
    )
    up = up.union(
        select(up.c.position, contents.c.parent_id, up.c.depth + 1)
        .join(up, contents.c.child_id == up.c.id)
        .where(up.c.depth < MAX_INHERITANCE)
    )
    return (
        select(up.c.position, did_meta.c.meta)
        .join(did_meta, did_meta.c.did_id == up.c.id)
        .where(up.c.depth > 0)
        .order_by(up.c.position, up.c.depth, up.c.id)
    )


def metadata_of(connection: Connection, did_id: int) -> dict[str, Any]:
    """Metadata of one DID."""
    return dict(connection.scalar(select(did_meta.c.meta).where(did_meta.c.did_id == did_id)) or {})


def delete_metadata_key(connection: Connection, did_id: int, key: str) -> bool:
    """Remove a key from the metadata of a DID; False when it was not there."""
    meta = connection.scalar(select(did_meta.c.meta).where(did_meta.c.did_id == did_id).with_for_update())
    if meta is None or key not in meta:
        return False
    rest = {name: value for name, value in meta.items() if name != key}
    if rest:
        connection.execute(update(did_meta).where(did_meta.c.did_id == did_id).values(meta=rest))
    else:
        connection.execute(delete(did_meta).where(did_meta.c.did_id == did_id))
    return True
