"""Which replicas deletion may take, and which only their guard keeps (DESIGN 4.7). Read only: nothing is deleted here."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    true,
    update,
)

from arriero.registry.dialect import id_rows
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import dids, lost_files, replicas, rules, scopes
from arriero.registry.states import DidType, ReplicaState
from arriero.registry.store.replica_removal import in_a_butler, locked, under_way

AT_ONCE = "at_once"
WHEN_NEEDED = "when_needed"
"""When a candidate goes: now (purge, bad, or its file has expired), or when space is needed, the least read first."""

EXPIRED = "expired"
BAD = "bad"
PURGE = "purge"
UNLOCKED = "unlocked"
"""Why it is one."""

_REAL = (ReplicaState.AVAILABLE, ReplicaState.UNAVAILABLE, ReplicaState.BAD)
"""States of replicas that may have bytes and that nobody works on or hopes for."""


def _expired() -> ColumnElement[bool]:
    return and_(dids.c.expired_at.is_not(None), dids.c.expired_at < now())


def _may_go() -> ColumnElement[bool]:
    """Condition that a replica is not the last good one: another is AVAILABLE and verified, or the file may go itself."""
    another = replicas.alias("another")
    verified = exists().where(
        another.c.file_id == replicas.c.file_id,
        another.c.rse_id != replicas.c.rse_id,
        another.c.state == ReplicaState.AVAILABLE,
        another.c.verified_at.is_not(None),
    )
    given_up = exists().where(
        lost_files.c.file_id == replicas.c.file_id, lost_files.c.accepted_at.is_not(None)
    )
    return or_(
        verified,
        _expired(),
        and_(replicas.c.state == ReplicaState.BAD, given_up),
    )


def candidates_query(rse_id: int) -> Select[Any]:
    """Query for the replicas at an RSE that deletion may take, those that go at once first, then the least read.

    None that a rule holds, that a Butler refers to, or that is being copied; and no last good one, unless its file has
    expired.

    Returns
    -------
    rows
        ``scope``, ``name``, ``bytes``, ``state``, ``tombstone``, ``accessed_at``, ``when``, ``why``.
    """
    is_bad = replicas.c.state == ReplicaState.BAD
    buried = and_(replicas.c.tombstone.is_not(None), replicas.c.tombstone <= now())
    why = case(
        (_expired(), EXPIRED),
        (is_bad, BAD),
        (replicas.c.purge.is_(True), PURGE),
        else_=UNLOCKED,
    )
    when = case((why == UNLOCKED, WHEN_NEEDED), else_=AT_ONCE)
    read = func.coalesce(replicas.c.accessed_at, replicas.c.tombstone, replicas.c.created_at)
    return (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            replicas.c.bytes,
            replicas.c.state,
            replicas.c.tombstone,
            replicas.c.accessed_at,
            when.label("when"),
            why.label("why"),
        )
        .join(dids, dids.c.id == replicas.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(
            replicas.c.rse_id == rse_id,
            replicas.c.state.in_(_REAL),
            or_(buried, is_bad, _expired()),
            ~locked(),
            ~under_way(),
            ~in_a_butler(),
            _may_go(),
        )
        .order_by(case((when == AT_ONCE, 0), else_=1), read, replicas.c.file_id)
    )


def expired_files(connection: Connection, *, limit: int, among: Collection[int] | None = None) -> list[int]:
    """Ids of files whose lifetime is over and that rules on themselves hold, or whose replicas have no tombstone yet.

    One on which a rule is locked is not among them.

    Parameters
    ----------
    limit
        At most so many, the oldest first.
    among
        Only of these.
    """
    kept = exists().where(rules.c.did_id == dids.c.id, rules.c.locked)
    asked_for = exists().where(rules.c.did_id == dids.c.id)
    unmarked = exists().where(
        replicas.c.file_id == dids.c.id,
        replicas.c.purge.is_not(True),
        ~locked(),
    )
    query = (
        select(dids.c.id)
        .where(
            dids.c.expired_at.is_not(None),
            dids.c.expired_at < select(now()).scalar_subquery(),
            dids.c.type == DidType.FILE,
            ~kept,
            or_(asked_for, unmarked),
        )
        .order_by(dids.c.expired_at, dids.c.id)
        .limit(limit)
    )
    if among is not None:
        query = query.where(dids.c.id.in_(id_rows(connection, sorted(among))))
    return list(connection.scalars(query))


def mark(connection: Connection, file_ids: Collection[int]) -> int:
    """Give the replicas of files that no lock holds a tombstone, with purge; give how many there are."""
    return connection.execute(
        update(replicas)
        .where(replicas.c.file_id.in_(id_rows(connection, sorted(file_ids))), ~locked())
        .values(tombstone=func.coalesce(replicas.c.tombstone, now()), purge=true(), updated_at=now())
    ).rowcount
