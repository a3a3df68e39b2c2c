"""Data identifiers in the database: finding them by name, locking them, and what changes in their rows."""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, case, insert, select, update

from arriero.registry.pages import pages_of
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import accounts, dids, events, scopes
from arriero.registry.states import DidType
from arriero.registry.store.did_sets import named

KEYS_A_STATEMENT = 500
"""DIDs that a list is read for at once."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope and the account that it belongs to."""

    id: int
    name: str
    owner: str


def spread_of(scope: str, name: str) -> int:
    """Stable 31-bit hash that spreads the files of a rule with grouping NONE over the RSEs."""
    return zlib.crc32(f"{scope}:{name}".encode()) & 0x7FFFFFFF


def scopes_by_name(connection: Connection, names: Iterable[str]) -> dict[str, Scope]:
    """Scopes that exist, by name."""
    query = (
        select(scopes.c.id, scopes.c.name, accounts.c.name.label("owner"))
        .join(accounts, accounts.c.id == scopes.c.account_id)
        .where(scopes.c.name.in_(sorted(names)))
    )
    return {row.name: Scope(row.id, row.name, row.owner) for row in connection.execute(query)}


def did_query() -> Select[Any]:
    """Query for DIDs with the names of their scope and account."""
    return (
        select(dids, scopes.c.name.label("scope"), accounts.c.name.label("account"))
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(accounts, accounts.c.id == dids.c.account_id)
    )


def find_dids(connection: Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], RowMapping]:
    """Those of some DIDs that exist, by (scope, name); two statements for any number.

    Parameters
    ----------
    keys
        Pairs of scope and name.
    """
    wanted = list(dict.fromkeys(keys))
    if not wanted:
        return {}
    if len(wanted) == 1:
        [(scope, name)] = wanted
        query = did_query().where(scopes.c.name == scope, dids.c.name == name)
    else:
        known = scopes_by_name(connection, {scope for scope, _ in wanted})
        chosen = named(connection, [(known[scope].id, name) for scope, name in wanted if scope in known])
        query = did_query().join(
            chosen, and_(dids.c.scope_id == chosen.c.scope_id, dids.c.name == chosen.c.name)
        )
    return {(row["scope"], row["name"]): row for row in connection.execute(query).mappings()}


def lock_dids(connection: Connection, ids: Iterable[int], *, shared: bool = False) -> None:
    """Lock the rows of DIDs: containers, then datasets, then files, each by id (DESIGN section 11).

    Parameters
    ----------
    shared
        Keep others from changing what they hold, not from reading or locking them the same way.
    """
    chosen = sorted(set(ids))
    rank = case((dids.c.type == DidType.CONTAINER, 0), (dids.c.type == DidType.DATASET, 1), else_=2)
    for chunk in pages_of(chosen, 10_000):
        query = select(dids.c.id).where(dids.c.id.in_(chunk)).order_by(rank, dids.c.id)
        locked = query.with_for_update(read=True) if shared else query.with_for_update(key_share=True)
        connection.execute(locked).all()


def set_open(connection: Connection, did_id: int, *, is_open: bool) -> None:
    """Open or close a collection."""
    connection.execute(
        update(dids)
        .where(dids.c.id == did_id)
        .values(is_open=is_open, closed_at=None if is_open else now(), updated_at=now())
    )


def append_event(connection: Connection, event_type: str, key: str, payload: Mapping[str, Any]) -> None:
    """Write an event into the outbox, in Rucio's message shape.

    Parameters
    ----------
    key
        Events with the same key are delivered in order.
    """
    connection.execute(insert(events).values(event_type=event_type, key=key, payload=dict(payload)))
