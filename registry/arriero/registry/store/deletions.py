"""Deletions as people look at them: what is under way, what has ended, what would go, and what is asked for."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    func,
    null,
    or_,
    select,
    true,
    update,
)

from arriero.registry.dialect import insert_into
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    accounts,
    deletion_history,
    deletions,
    dids,
    replicas,
    rse_deletions,
    rses,
    scopes,
)
from arriero.registry.store import deletion_guards as guards
from arriero.registry.store.contents import file_ids_below
from arriero.registry.store.deletion_guards import Place

_proof = rses.alias("proof")


def deletions_query(*, rse_id: int | None, code: str | None, limit: int) -> Select[Any]:
    """Query for what is being deleted, the oldest first."""
    query = (
        select(
            deletions.c.id,
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.name.label("rse"),
            deletions.c.bytes,
            deletions.c.cause,
            deletions.c.attempt,
            deletions.c.code,
            deletions.c.reason,
            case((deletions.c.lease_owner.is_(None), deletions.c.not_before)).label("next_attempt_at"),
            deletions.c.lease_owner,
            deletions.c.lease_until,
            _proof.c.name.label("proof_rse"),
            deletions.c.proof_at,
            deletions.c.created_at,
        )
        .join(dids, dids.c.id == deletions.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == deletions.c.rse_id)
        .outerjoin(_proof, _proof.c.id == deletions.c.proof_rse_id)
        .order_by(deletions.c.id)
        .limit(limit)
    )
    if rse_id is not None:
        query = query.where(deletions.c.rse_id == rse_id)
    return query if code is None else query.where(deletions.c.code == code)


def history_query(*, rse_id: int | None, file_id: int | None, limit: int) -> Select[Any]:
    """Query for the deletions that have ended, the last first."""
    ended = deletion_history
    query = (
        select(
            ended.c.deletion_id,
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.name.label("rse"),
            ended.c.bytes,
            ended.c.cause,
            ended.c.state,
            ended.c.attempt,
            ended.c.owner,
            _proof.c.name.label("proof_rse"),
            ended.c.proof_at,
            ended.c.seconds,
            ended.c.code,
            ended.c.reason,
            ended.c.created_at,
            ended.c.at.label("ended_at"),
        )
        .join(dids, dids.c.id == ended.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == ended.c.rse_id)
        .outerjoin(_proof, _proof.c.id == ended.c.proof_rse_id)
        .order_by(ended.c.id.desc())
        .limit(limit)
    )
    if rse_id is not None:
        query = query.where(ended.c.rse_id == rse_id)
    return query if file_id is None else query.where(ended.c.file_id == file_id)


def forget_failures(connection: Connection, rse_id: int, *, take_over: bool) -> None:
    """Have deletion look at an RSE now, and at what has failed there."""
    values: dict[str, Any] = {"not_before": None, "failures": 0, "code": None, "reason": None}
    statement = insert_into(connection, rse_deletions).values(
        rse_id=rse_id, take_over=take_over, failures=0, epoch=0
    )
    replaced = or_(rse_deletions.c.take_over, statement.excluded.take_over)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["rse_id"], set_={**values, "take_over": replaced, "updated_at": now()}
        )
    )
    connection.execute(
        update(deletions)
        .where(deletions.c.rse_id == rse_id, deletions.c.lease_owner.is_(None), deletions.c.gone_at.is_(None))
        .values(not_before=now())
    )


def here(place: Place, did_ids: Sequence[int]) -> ColumnElement[bool]:
    """Condition for the replicas at an RSE of files, and of what collections hold."""
    below = file_ids_below(did_ids)
    return and_(replicas.c.rse_id == place.rse_id, replicas.c.file_id.in_(select(below.c.id)))


def owners(connection: Connection, place: Place, did_ids: Sequence[int]) -> Sequence[RowMapping]:
    """Scopes of the files that have replicas there, each with its owner and one of the names."""
    query = (
        select(
            scopes.c.name.label("scope"), accounts.c.name.label("owner"), func.min(dids.c.name).label("name")
        )
        .select_from(replicas)
        .join(dids, dids.c.id == replicas.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(accounts, accounts.c.id == scopes.c.account_id)
        .where(here(place, did_ids))
        .group_by(scopes.c.name, accounts.c.name)
        .order_by(scopes.c.name)
    )
    return connection.execute(query).mappings().all()


def hold(connection: Connection, which: ColumnElement[bool]) -> None:
    """Hold replicas: from here on no lock can come to them."""
    held = (
        select(replicas.c.file_id)
        .where(which)
        .order_by(replicas.c.file_id, replicas.c.rse_id)
        .with_for_update(of=replicas)
    )
    connection.execute(select(func.count()).select_from(held.subquery())).all()


def purge(connection: Connection, place: Place, did_ids: Sequence[int]) -> tuple[int, int]:
    """Have deletion take replicas at once against which nothing stands, or only a copy that is under way.

    Returns
    -------
    tuple
        How many, and their bytes.
    """
    code = guards.fault(place)
    free = (
        select(replicas.c.file_id)
        .join(dids, dids.c.id == replicas.c.file_id)
        .where(here(place, did_ids), or_(code.is_(None), code == guards.IN_USE))
    )
    rows = connection.execute(
        update(replicas)
        .where(replicas.c.rse_id == place.rse_id, replicas.c.file_id.in_(free))
        .values(tombstone=func.coalesce(replicas.c.tombstone, now()), purge=true(), updated_at=now())
        .returning(replicas.c.bytes)
    ).all()
    return len(rows), sum(row.bytes for row in rows)


def count(connection: Connection, which: ColumnElement[bool]) -> int:
    """How many replicas there are."""
    return int(connection.scalar(select(func.count()).select_from(replicas).where(which)) or 0)


def purge_unlocked(
    connection: Connection, rse_id: int, *, after_file_id: int, limit: int
) -> tuple[list[int], int]:
    """Have deletion take at once what has a tombstone at an RSE; some of it, in the order of the files.

    Returns
    -------
    tuple
        The files, and the bytes of their replicas.
    """
    chosen = (
        select(replicas.c.file_id)
        .where(
            replicas.c.rse_id == rse_id,
            replicas.c.tombstone.is_not(None),
            replicas.c.purge.is_(null()),
            replicas.c.file_id > after_file_id,
        )
        .order_by(replicas.c.file_id)
        .limit(limit)
        .with_for_update()
    )
    rows = connection.execute(
        update(replicas)
        .where(replicas.c.rse_id == rse_id, replicas.c.file_id.in_(chosen))
        .values(purge=true(), updated_at=now())
        .returning(replicas.c.file_id, replicas.c.bytes)
    ).all()
    return sorted(row.file_id for row in rows), sum(row.bytes for row in rows)
