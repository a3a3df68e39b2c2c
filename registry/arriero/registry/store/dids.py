"""Data identifiers in the database: finding them, adding collections, their metadata."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    delete,
    insert,
    literal,
    or_,
    select,
    update,
)

from arriero.registry.dialect import insert_into, like_pattern
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import accounts, did_meta, dids, events, scopes
from arriero.registry.states import DidType
from arriero.registry.store.json import json_merge, json_of, json_value
from arriero.registry.store.staging import staged_files

T = TypeVar("T")

KEYS_A_STATEMENT = 500
"""DIDs that one statement looks up by name."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope and the account that it belongs to."""

    id: int
    name: str
    owner: str


def spread_of(scope: str, name: str) -> int:
    """Stable 31-bit hash that spreads the files of a rule with grouping NONE over the RSEs."""
    return zlib.crc32(f"{scope}:{name}".encode()) & 0x7FFFFFFF


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut into lists of at most ``size``."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


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
    """Those of some DIDs that exist, by (scope, name).

    Parameters
    ----------
    keys
        Pairs of scope and name.
    """
    found: dict[tuple[str, str], RowMapping] = {}
    for chunk in in_chunks(dict.fromkeys(keys), KEYS_A_STATEMENT):
        if conditions := _named(connection, chunk):
            for row in connection.execute(did_query().where(or_(*conditions))).mappings():
                found[row["scope"], row["name"]] = row
    return found


def _named(connection: Connection, keys: Iterable[tuple[str, str]]) -> list[ColumnElement[bool]]:
    """Conditions, one a scope, that the index serves: comparing pairs across the join would read every DID."""
    by_scope: dict[str, list[str]] = {}
    for scope, name in keys:
        by_scope.setdefault(scope, []).append(name)
    if len(by_scope) == 1:
        return [and_(scopes.c.name == scope, dids.c.name.in_(names)) for scope, names in by_scope.items()]
    known = scopes_by_name(connection, by_scope)
    return [
        and_(dids.c.scope_id == known[scope].id, dids.c.name.in_(names))
        for scope, names in by_scope.items()
        if scope in known
    ]


def lock_dids(connection: Connection, ids: Iterable[int], *, shared: bool = False) -> None:
    """Lock the rows of DIDs: containers, then datasets, then files, each by id (DESIGN section 11).

    Parameters
    ----------
    shared
        Keep others from changing what they hold, not from reading or locking them the same way.
    """
    chosen = sorted(set(ids))
    rank = case((dids.c.type == DidType.CONTAINER, 0), (dids.c.type == DidType.DATASET, 1), else_=2)
    for chunk in in_chunks(chosen, 10_000):
        query = select(dids.c.id).where(dids.c.id.in_(chunk)).order_by(rank, dids.c.id)
        locked = query.with_for_update(read=True) if shared else query.with_for_update(key_share=True)
        connection.execute(locked).all()


def insert_collections(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert datasets and containers, in one statement."""
    connection.execute(insert(dids), list(rows))


def set_open(connection: Connection, did_id: int, *, is_open: bool) -> None:
    """Open or close a collection."""
    connection.execute(
        update(dids)
        .where(dids.c.id == did_id)
        .values(is_open=is_open, closed_at=None if is_open else now(), updated_at=now())
    )


def set_lifetime(connection: Connection, did_id: int, lifetime_s: float | None) -> None:
    """Have a DID expire in so many seconds; None: never."""
    expired_at = None if lifetime_s is None else after(literal(lifetime_s))
    connection.execute(update(dids).where(dids.c.id == did_id).values(expired_at=expired_at))


def metadata_of(connection: Connection, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Metadata of DIDs; those that have none are missing."""
    found: dict[int, dict[str, Any]] = {}
    for chunk in in_chunks(ids, KEYS_A_STATEMENT):
        query = select(did_meta.c.did_id, did_meta.c.meta).where(did_meta.c.did_id.in_(chunk))
        found.update({row.did_id: dict(row.meta) for row in connection.execute(query)})
    return found


def merge_metadata(connection: Connection) -> None:
    """Lay the metadata of ``staged_files`` (with ``file_id``) over what is there, in one statement."""
    statement = insert_into(connection, did_meta).from_select(
        ["did_id", "meta"],
        select(staged_files.c.file_id, json_of(connection, staged_files.c.meta))
        .where(staged_files.c.meta.is_not(None))
        .order_by(staged_files.c.file_id),
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["did_id"], set_={"meta": json_merge(did_meta.c.meta, statement.excluded.meta)}
        )
    )


def delete_metadata_key(connection: Connection, did_id: int, key: str) -> bool:
    """Remove a key from the metadata of a DID; False when it was not there."""
    query = select(did_meta.c.meta).where(did_meta.c.did_id == did_id).with_for_update()
    meta = connection.scalar(query)
    if meta is None or key not in meta:
        return False
    rest = {name: value for name, value in meta.items() if name != key}
    if rest:
        connection.execute(update(did_meta).where(did_meta.c.did_id == did_id).values(meta=rest))
    else:
        connection.execute(delete(did_meta).where(did_meta.c.did_id == did_id))
    return True


def append_event(connection: Connection, event_type: str, key: str, payload: Mapping[str, Any]) -> None:
    """Write an event into the outbox, in Rucio's message shape.

    Parameters
    ----------
    key
        Events with the same key are delivered in order.
    """
    connection.execute(insert(events).values(event_type=event_type, key=key, payload=dict(payload)))


def search(scope: str, groups: Sequence[Mapping[str, str]], types: Iterable[DidType]) -> Select[Any]:
    """Query for the DIDs of a scope that one of several groups of conditions fits.

    Parameters
    ----------
    groups
        Each a mapping of ``name`` (with ``*``), ``account`` or a key of the metadata to the value that it must have.
    types
        Types that are wanted.
    """
    alternatives = [
        and_(literal(True), *(_condition(key, value) for key, value in group.items())) for group in groups
    ]
    query = did_query().where(scopes.c.name == scope, dids.c.type.in_(list(types)))
    if any(set(group) - {"name", "account"} for group in groups):
        query = query.outerjoin(did_meta, did_meta.c.did_id == dids.c.id)
    if alternatives:
        query = query.where(or_(*alternatives))
    return query.order_by(dids.c.name)


def _condition(key: str, value: str) -> ColumnElement[bool]:
    if key == "name":
        if value == "*":
            return literal(True)
        if "*" in value:
            return dids.c.name.like(like_pattern(value), escape="\\")
        return dids.c.name == value
    if key == "account":
        return accounts.c.name == value
    text = json_value(did_meta.c.meta, literal(key))
    return text.like(like_pattern(value), escape="\\") if "*" in value else text == value
