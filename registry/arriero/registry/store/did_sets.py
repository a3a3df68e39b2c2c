"""Sets of DIDs that a call names: looked up, or changed, in a number of statements that does not depend on theirs.

Readers hand the set over as arrays (a transaction that only reads makes no temporary table); writers stage it.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    FromClause,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    case,
    func,
    insert,
    literal,
    null,
    select,
    update,
)

from arriero.registry.dialect import is_postgresql
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import dids
from arriero.registry.store.staging import stage

staged_dids = Table(
    "staged_dids",
    MetaData(),
    Column("scope_id", Integer),
    Column("name", String(500)),
    Column("type", String(24)),
    Column("monotonic", Boolean),
    Column("spread", Integer),
    Column("meta", Text),
    # a lifetime of null is one too: never
    Column("has_lifetime", Boolean),
    Column("lifetime_s", Float),
    Column("did_id", BigInteger),
    prefixes=["TEMPORARY"],
)
"""DIDs to be added, or whose metadata or lifetime changes."""


def named(connection: Connection, keys: Sequence[tuple[int, str]]) -> FromClause:
    """Pairs of scope and name as a table: columns ``scope_id``, ``name`` and ``position``, counted from 0.

    Parameters
    ----------
    keys
        Ids of scopes, and names.
    """
    if is_postgresql(connection):
        pairs = func.unnest(
            bindparam("key_scopes", [scope_id for scope_id, _ in keys], ARRAY(Integer), unique=True),
            bindparam("key_names", [name for _, name in keys], ARRAY(Text), unique=True),
        ).table_valued("scope_id", "name", with_ordinality="ordinal", name="pairs")
        found = pairs.render_derived().c
        return select(found.scope_id, found.name, (found.ordinal - 1).label("position")).subquery("keys")
    document = orjson.dumps([[scope_id, name] for scope_id, name in keys]).decode()
    rows = func.json_each(document).table_valued("key", "value", name="pairs").c
    return select(
        func.json_extract(rows.value, "$[0]", type_=Integer).label("scope_id"),
        func.json_extract(rows.value, "$[1]", type_=Text).label("name"),
        rows.key.label("position"),
    ).subquery("keys")


def numbered(connection: Connection, ids: Sequence[int]) -> FromClause:
    """Ids of DIDs as a table: columns ``id`` and ``root``, which counts them from 0."""
    if is_postgresql(connection):
        array = bindparam("ids", list(ids), ARRAY(BigInteger), unique=True)
        rows = func.unnest(array).table_valued("id", with_ordinality="ordinal", name="roots")
        found = rows.render_derived().c
        return select(found.id, (found.ordinal - 1).label("root")).subquery("keys")
    document = orjson.dumps(list(ids)).decode()
    row = func.json_each(document).table_valued("key", "value", name="roots").c
    return select(row.value.label("id"), row.key.label("root")).subquery("keys")


def stage_dids(connection: Connection, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Fill `staged_dids`."""
    stage(connection, staged_dids, columns, rows)


def _expiry() -> ColumnElement[Any]:
    lifetime = staged_dids.c.lifetime_s
    return case((lifetime.is_not(None), after(lifetime)), else_=null())


def insert_staged(connection: Connection, account_id: int) -> None:
    """Insert the staged collections, open, and give the staged rows their ids; two statements.

    Raises
    ------
    sqlalchemy.exc.IntegrityError
        One is there already.
    """
    staged = staged_dids.c
    names = ["scope_id", "name", "type", "monotonic", "spread"]
    rows = select(
        *(staged[name] for name in names), literal(account_id), literal(True), _expiry(), now(), now()
    ).order_by(staged.scope_id, staged.name)
    columns = [*names, "account_id", "is_open", "expired_at", "created_at", "updated_at"]
    connection.execute(insert(dids).from_select(columns, rows, include_defaults=False))
    connection.execute(
        update(staged_dids)
        .values(did_id=dids.c.id)
        .where(dids.c.scope_id == staged.scope_id, dids.c.name == staged.name)
    )


def set_staged_lifetimes(connection: Connection) -> None:
    """Have the staged DIDs expire when they say, or never, where they say anything."""
    staged = staged_dids.c
    connection.execute(
        update(dids).values(expired_at=_expiry()).where(dids.c.id == staged.did_id, staged.has_lifetime)
    )
