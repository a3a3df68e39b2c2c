"""Which replicas deletion may take, and which only their guard keeps (DESIGN 4.7). Read only: nothing is deleted here."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
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
from arriero.registry.schema.tables import dids, replicas, rules, scopes
from arriero.registry.states import DeletionPass, DidType
from arriero.registry.store import deletion_guards as guards
from arriero.registry.store.deletion_guards import Place
from arriero.registry.store.replica_removal import locked

_COLUMNS = (
    scopes.c.name.label("scope"),
    dids.c.name,
    replicas.c.bytes,
    replicas.c.state,
    replicas.c.tombstone,
    replicas.c.accessed_at,
    guards.when().label("when"),
    guards.cause().label("why"),
)

_READ = case(
    (replicas.c.accessed_at > replicas.c.tombstone, replicas.c.accessed_at), else_=replicas.c.tombstone
)
"""Since when nobody has read or held a replica."""

_ORDER = (
    case((guards.when() == DeletionPass.AT_ONCE.value, 0), else_=1),
    func.coalesce(_READ, replicas.c.accessed_at, replicas.c.created_at),
    replicas.c.file_id,
)


def _described(*more: ColumnElement[Any]) -> Select[Any]:
    return (
        select(*_COLUMNS, *more)
        .join(dids, dids.c.id == replicas.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .order_by(*_ORDER)
    )


def candidates_query(place: Place) -> Select[Any]:
    """Query for the replicas at an RSE that deletion may take, those that go at once first, then the least read.

    None that a rule holds, that a Butler refers to, or that is being copied; and no last good one, unless its file has
    expired.

    Returns
    -------
    rows
        ``scope``, ``name``, ``bytes``, ``state``, ``tombstone``, ``accessed_at``, ``when``, ``why``.
    """
    return _described().where(
        replicas.c.rse_id == place.rse_id,
        or_(guards.buried(), guards.is_bad(), guards.expired()),
        guards.fault(place).is_(None),
    )


def judged_query(place: Place, which: ColumnElement[bool] | None = None) -> Select[Any]:
    """Query for replicas at an RSE, each with what stands against its deletion.

    Parameters
    ----------
    which
        Those, whether or not anything lets them go; None: those that have a tombstone, are bad or whose file has expired.

    Returns
    -------
    rows
        Those of `candidates_query`, with ``code``: of `arriero.registry.store.deletion_guards.REASONS`, null where nothing does.
    """
    query = _described(guards.fault(place).label("code")).where(replicas.c.rse_id == place.rse_id)
    if which is not None:
        return query.where(which)
    return query.where(or_(replicas.c.tombstone.is_not(None), guards.is_bad(), guards.expired()))


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
