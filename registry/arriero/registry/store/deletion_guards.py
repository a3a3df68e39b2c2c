"""What stands against deleting a replica (DESIGN 4.7), as conditions: the same ones for who asks and for who deletes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, and_, case, exists, or_, select, text

from arriero.registry.dialect import is_found
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    arrivals,
    bad_replicas,
    dids,
    locks,
    lost_files,
    replicas,
    requests,
    rse_attributes,
    rse_protocols,
    rses,
    scopes,
)
from arriero.registry.states import (
    BadReplicaState,
    DeletionCause,
    DeletionPass,
    ReplicaState,
    RequestState,
)
from arriero.registry.store.arrivals import is_held
from arriero.registry.store.rses import ALGORITHM_ATTRIBUTE
from arriero.rse.lfn2pfn import WITHOUT_SCOPE

BEING_DELETED = "being_deleted"
BEING_COPIED = "being_copied"
UNAVAILABLE_FOR_NOW = "temporarily_unavailable"
LOCKED = "locked"
IN_USE = "in_use"
HELD_BY_BUTLER = "held_by_butler"
SHARED_PATH = "shared_path"
UNPROVEN = "unproven"
LAST = "last_copy"

REASONS: Mapping[str, str] = {
    BEING_DELETED: "it is being deleted already (arriero deletion list)",
    BEING_COPIED: "it is being copied there: cancel what asks for it, or wait",
    UNAVAILABLE_FOR_NOW: "it is declared unavailable for a time: it is looked at again when that is over",
    LOCKED: "a rule holds it: remove the rule first (arriero trace shows which)",
    IN_USE: "a copy of the file is being made, or waits to be, and may be read from here: it goes when that has ended",
    HELD_BY_BUTLER: "a Butler refers to it: release it first (arriero arrival release)",
    SHARED_PATH: "another file of the same name lies at the same path of this RSE: their bytes are the same",
    UNPROVEN: "other copies are only said to be there: none is verified by Arriero on another storage; a rule for "
    "another RSE makes one",
    LAST: "it is the last good copy that is known: make another one (a rule for another RSE), or erase the file itself",
}
"""Why a replica stays, and what to do about it, by code; the first that applies."""

MAY_GO = (ReplicaState.AVAILABLE, ReplicaState.UNAVAILABLE, ReplicaState.BAD)
"""States of replicas that may have bytes and that nobody works on or hopes for."""

AT_ONCE = text("replicas.purge IS NOT NULL")
DECLARED_BAD = text("bad_replicas.state = 'BAD'")
"""What goes at once, spelt as the indexes have it, so that both databases see that they serve."""


@dataclass(frozen=True, slots=True)
class Place:
    """An RSE from which replicas are to go."""

    rse_id: int
    worthless: frozenset[int] = frozenset()
    """RSEs where a copy proves nothing: they keep nothing for certain, or may be the same storage under another name."""
    by_name: bool = False
    """Whether files of one name share a path, whatever their scope."""


def place_of(connection: Connection, rse_id: int) -> Place:
    """Learn of an RSE what the conditions have to know."""
    columns = (
        rse_protocols.c.rse_id,
        rse_protocols.c.scheme,
        rse_protocols.c.hostname,
        rse_protocols.c.port,
        rse_protocols.c.prefix,
    )
    beside = _beside(rse_id, connection.execute(select(*columns)).all())
    forgetful = connection.scalars(
        select(rses.c.id).where(or_(rses.c.volatile, rses.c.deleted_at.is_not(None)))
    )
    algorithm = connection.scalar(
        select(rse_attributes.c.value).where(
            rse_attributes.c.rse_id == rse_id, rse_attributes.c.key == ALGORITHM_ATTRIBUTE
        )
    )
    return Place(rse_id, beside | frozenset(forgetful), algorithm == WITHOUT_SCOPE)


_PLACES = 128
"""RSEs whose conditions are kept: to write them takes longer than to ask them."""

_PORTS = {"https": 443, "davs": 443, "http": 80, "dav": 80}


def _beside(rse_id: int, rows: Iterable[Any]) -> frozenset[int]:
    """Ids of RSEs with a protocol on the same server, or this machine, whose prefix is the same or one within the other."""
    roots: dict[int, set[tuple[str, int, str]]] = {}
    for row in rows:
        host = "" if row.scheme == "file" else row.hostname.casefold()
        port = 0 if row.scheme == "file" else row.port or _PORTS.get(row.scheme, 0)
        prefix = row.prefix.strip("/")
        roots.setdefault(row.rse_id, set()).add((host, port, f"/{prefix}/" if prefix else "/"))
    own = roots.pop(rse_id, set())
    return frozenset(
        other
        for other, there in roots.items()
        if any(
            one[:2] == mine[:2] and (one[2].startswith(mine[2]) or mine[2].startswith(one[2]))
            for one in there
            for mine in own
        )
    )


@cache
def expired() -> ColumnElement[bool]:
    """Condition that the lifetime of the file, which is joined, is over."""
    return and_(dids.c.expired_at.is_not(None), dids.c.expired_at < now())


@cache
def is_bad() -> ColumnElement[bool]:
    """Condition that the replica is bad."""
    return replicas.c.state == ReplicaState.BAD


@cache
def buried() -> ColumnElement[bool]:
    """Condition that the replica has a tombstone, and that it is due."""
    return and_(replicas.c.tombstone.is_not(None), replicas.c.tombstone <= now())


@cache
def cause() -> ColumnElement[str]:
    """Why a replica, joined with its file, may be deleted."""
    return case(
        (expired(), DeletionCause.EXPIRED.value),
        (is_bad(), DeletionCause.BAD.value),
        (replicas.c.purge.is_(True), DeletionCause.PURGE.value),
        else_=DeletionCause.UNLOCKED.value,
    )


@cache
def when() -> ColumnElement[str]:
    """When it goes: now, or when space is needed."""
    return case(
        (cause() == DeletionCause.UNLOCKED.value, DeletionPass.WHEN_NEEDED.value),
        else_=DeletionPass.AT_ONCE.value,
    )


def proves(another: FromClause, place: Place) -> list[ColumnElement[bool]]:
    """Conditions that another replica of the file proves that this one may go.

    It is AVAILABLE, was verified and has not become suspicious since, on another storage, and one that keeps things.
    """
    doubted = is_found(
        bad_replicas.c.file_id == another.c.file_id,
        bad_replicas.c.rse_id == another.c.rse_id,
        bad_replicas.c.state == BadReplicaState.SUSPICIOUS,
        bad_replicas.c.created_at > another.c.verified_at,
        of=bad_replicas,
    )
    return [
        another.c.file_id == replicas.c.file_id,
        another.c.rse_id.not_in(sorted({place.rse_id, *place.worthless})),
        another.c.state == ReplicaState.AVAILABLE,
        another.c.verified_at.is_not(None),
        ~doubted,
    ]


@cache
def needs_no_proof() -> ColumnElement[bool]:
    """Condition that a replica may go even if it is the last: its file has expired, or is given up and this is bad."""
    return or_(expired(), and_(is_bad(), given_up(replicas.c.file_id)))


def given_up(file_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Condition that somebody has accepted that a file is lost."""
    return is_found(lost_files.c.file_id == file_id, lost_files.c.accepted_at.is_not(None), of=lost_files)


@lru_cache(maxsize=_PLACES)
def hindrance(place: Place) -> ColumnElement[str | None]:
    """Code of what stands against deleting a replica at a place, joined with its file, but that it may be the last."""
    return case(*_hindrances(place))


@lru_cache(maxsize=_PLACES)
def fault(place: Place) -> ColumnElement[str | None]:
    """Code of what stands against deleting a replica at a place, joined with its file; null: nothing does."""
    another = replicas.alias("another")
    there = is_found(
        another.c.file_id == replicas.c.file_id,
        another.c.rse_id != replicas.c.rse_id,
        another.c.state == ReplicaState.AVAILABLE,
        of=another,
    )
    proven = is_found(*proves(another, place), of=another)
    last = (~or_(proven, needs_no_proof()), case((there, UNPROVEN), else_=LAST))
    return case(*_hindrances(place), last)


# each is looked up for the replica at hand: planned as sets, they would be whole tables that are read for a batch


def _hindrances(place: Place) -> list[tuple[ColumnElement[bool], Any]]:
    state, here = replicas.c.state, replicas.c.rse_id
    locked = is_found(locks.c.file_id == replicas.c.file_id, locks.c.rse_id == here, of=locks)
    # any replica of the file may be the source
    in_use = is_found(
        requests.c.file_id == replicas.c.file_id,
        requests.c.state.in_((RequestState.QUEUED, RequestState.SUBMITTED)),
        of=requests,
    )
    in_a_butler = is_found(
        arrivals.c.file_id == replicas.c.file_id,
        arrivals.c.rse_id == here,
        is_held(),
        of=arrivals,
    )
    found: list[tuple[ColumnElement[bool], Any]] = [
        (state == ReplicaState.BEING_DELETED, BEING_DELETED),
        (state == ReplicaState.COPYING, BEING_COPIED),
        (state == ReplicaState.TEMPORARY_UNAVAILABLE, UNAVAILABLE_FOR_NOW),
        (locked, LOCKED),
        (in_use, IN_USE),
        (in_a_butler, HELD_BY_BUTLER),
    ]
    if place.by_name:
        found.append((_shares_its_path(), SHARED_PATH))
    return found


def _shares_its_path() -> ColumnElement[bool]:
    """Condition that a file of another scope with the same name has a replica at the same RSE."""
    namesake, its_replica = dids.alias("namesake"), replicas.alias("its_replica")
    # scope by scope: the index of names begins with it
    any_scope = scopes.alias("any_scope")
    return exists().where(
        namesake.c.scope_id == any_scope.c.id,
        namesake.c.name == dids.c.name,
        namesake.c.id != dids.c.id,
        its_replica.c.file_id == namesake.c.id,
        its_replica.c.rse_id == replicas.c.rse_id,
    )
