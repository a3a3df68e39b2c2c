"""Taking replicas out of the catalogue by sets, and what stands against it.

The set is the temporary table of `arriero.registry.store.replica_sets`; files and replicas are held by the caller.
"""

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    delete,
    exists,
    or_,
    select,
    true,
    tuple_,
    update,
)

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import arrivals, dids, locks, replicas, requests, scopes
from arriero.registry.states import ArrivalState, ReplicaState, RequestState
from arriero.registry.store.arrivals import is_held
from arriero.registry.store.replica_sets import staged_replicas

LOCKED = "locked"
COPYING = "copying"
HELD_BY_BUTLER = "held_by_butler"
LAST = "last"
"""What stands against taking a replica away, the first that does."""

_GOOD = (ReplicaState.AVAILABLE, ReplicaState.TEMPORARY_UNAVAILABLE)
_STAGED = select(staged_replicas.c.file_id, staged_replicas.c.rse_id)


def locked() -> ColumnElement[bool]:
    """Condition that a rule holds the replica."""
    return exists().where(locks.c.file_id == replicas.c.file_id, locks.c.rse_id == replicas.c.rse_id)


def under_way() -> ColumnElement[bool]:
    """Condition that a copy is being made there, or waits to be."""
    return exists().where(
        requests.c.file_id == replicas.c.file_id,
        requests.c.destination_id == replicas.c.rse_id,
        requests.c.state.in_((RequestState.QUEUED, RequestState.SUBMITTED)),
    )


def in_a_butler() -> ColumnElement[bool]:
    """Condition that a Butler refers to the replica, or may from one moment to the next."""
    return exists().where(
        arrivals.c.file_id == replicas.c.file_id,
        arrivals.c.rse_id == replicas.c.rse_id,
        is_held(),
    )


def drop_waiting_arrivals(connection: Connection) -> None:
    """Forget the arrivals of the staged replicas that no Butler has; before `first_fault`, which sees the others.

    One that an agent claims at this moment is waited for, and then is not one of them.
    """
    connection.execute(
        delete(arrivals).where(
            tuple_(arrivals.c.file_id, arrivals.c.rse_id).in_(_STAGED),
            arrivals.c.state.in_((ArrivalState.PENDING, ArrivalState.PARKED, ArrivalState.FAILED)),
            arrivals.c.may_hold.is_(False),
        )
    )


def first_fault(connection: Connection) -> RowMapping | None:
    """First staged replica that must stay.

    Returns
    -------
    row
        ``scope``, ``name``, ``state``, ``fault``: one of the words of this module.
    """
    fault = case(
        (locked(), LOCKED),
        (or_(under_way(), replicas.c.state == ReplicaState.BEING_DELETED), COPYING),
        (in_a_butler(), HELD_BY_BUTLER),
        (and_(replicas.c.state.in_(_GOOD), ~_another_is_good()), LAST),
    ).label("fault")
    query = (
        select(scopes.c.name.label("scope"), dids.c.name, replicas.c.state, fault)
        .join(staged_replicas, _key())
        .join(dids, dids.c.id == replicas.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(fault.is_not(None))
        .order_by(staged_replicas.c.place)
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def _another_is_good() -> ColumnElement[bool]:
    """Condition that another replica is AVAILABLE; a verified one where this one is (DESIGN 4.7)."""
    another = replicas.alias("another")
    return exists().where(
        another.c.file_id == replicas.c.file_id,
        another.c.rse_id != replicas.c.rse_id,
        another.c.state == ReplicaState.AVAILABLE,
        or_(replicas.c.verified_at.is_(None), another.c.verified_at.is_not(None)),
    )


def _key() -> ColumnElement[bool]:
    return and_(
        replicas.c.file_id == staged_replicas.c.file_id, replicas.c.rse_id == staged_replicas.c.rse_id
    )


def remove(connection: Connection) -> int:
    """Take the staged replicas away, with the requests that have ended; give how many."""
    connection.execute(
        delete(requests).where(tuple_(requests.c.file_id, requests.c.destination_id).in_(_STAGED))
    )
    gone = delete(replicas).where(tuple_(replicas.c.file_id, replicas.c.rse_id).in_(_STAGED))
    return connection.execute(gone).rowcount


def elsewhere() -> Select[tuple[int, int]]:
    """Query for where the staged files are AVAILABLE: columns ``file_id`` and ``rse_id``."""
    return select(replicas.c.file_id.label("file_id"), replicas.c.rse_id.label("rse_id")).where(
        replicas.c.state == ReplicaState.AVAILABLE,
        replicas.c.file_id.in_(select(staged_replicas.c.file_id)),
    )


def first_locked(connection: Connection) -> RowMapping | None:
    """First staged replica that a rule holds: ``scope``, ``name``, ``rse_id``."""
    query = (
        select(scopes.c.name.label("scope"), dids.c.name, replicas.c.rse_id)
        .join(staged_replicas, _key())
        .join(dids, dids.c.id == replicas.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(locked())
        .order_by(staged_replicas.c.place)
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def bury(connection: Connection) -> None:
    """Give the staged replicas a tombstone that is due at once."""
    connection.execute(
        update(replicas)
        .where(tuple_(replicas.c.file_id, replicas.c.rse_id).in_(_STAGED))
        .values(tombstone=select(now()).scalar_subquery(), purge=true(), updated_at=now())
    )
