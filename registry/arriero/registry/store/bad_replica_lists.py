"""Reading what was said against replicas."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Select, exists, func, select

from arriero.registry.schema.tables import bad_replicas, dids, replicas, rses, scopes
from arriero.registry.states import BadReplicaState, ReplicaState


def suspicious(
    rse_ids: Collection[int] | None, younger_than: datetime, attempts: int, limit: int
) -> Select[Any]:
    """Query for AVAILABLE replicas that were said to be suspicious and nothing worse, the most often first.

    Parameters
    ----------
    rse_ids
        Only at these; None: everywhere.
    younger_than
        Only what was said since.
    attempts
        Only those of which it was said so often.
    """
    worse = bad_replicas.alias("worse")
    said_worse = exists().where(
        worse.c.file_id == bad_replicas.c.file_id,
        worse.c.rse_id == bad_replicas.c.rse_id,
        worse.c.state != BadReplicaState.SUSPICIOUS,
        worse.c.created_at >= younger_than,
    )
    count = func.count().label("cnt")
    query = (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.name.label("rse"),
            rses.c.id.label("rse_id"),
            count,
            func.min(bad_replicas.c.created_at).label("created_at"),
        )
        .join(rses, rses.c.id == bad_replicas.c.rse_id)
        .join(dids, dids.c.id == bad_replicas.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(
            replicas,
            (replicas.c.file_id == bad_replicas.c.file_id) & (replicas.c.rse_id == bad_replicas.c.rse_id),
        )
        .where(
            bad_replicas.c.state == BadReplicaState.SUSPICIOUS,
            bad_replicas.c.created_at >= younger_than,
            replicas.c.state == ReplicaState.AVAILABLE,
            ~said_worse,
        )
        .group_by(scopes.c.name, dids.c.name, rses.c.name, rses.c.id)
        .having(func.count() >= attempts)
        .order_by(count.desc(), rses.c.name, scopes.c.name, dids.c.name)
        .limit(limit)
    )
    return query if rse_ids is None else query.where(bad_replicas.c.rse_id.in_(sorted(rse_ids)))


def declarations(
    after_id: int,
    limit: int,
    *,
    state: BadReplicaState | None,
    rse_id: int | None,
    since: datetime | None,
    until: datetime | None,
) -> Select[Any]:
    """Query for one page of the declarations, by id; ``replica`` is None where there is none any more."""
    query = (
        select(
            bad_replicas.c.id,
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.name.label("rse"),
            rses.c.id.label("rse_id"),
            bad_replicas.c.state,
            bad_replicas.c.reason,
            bad_replicas.c.expires_at,
            bad_replicas.c.created_at,
            bad_replicas.c.updated_at,
            replicas.c.file_id.label("replica"),
            replicas.c.path,
        )
        .join(rses, rses.c.id == bad_replicas.c.rse_id)
        .join(dids, dids.c.id == bad_replicas.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .outerjoin(
            replicas,
            (replicas.c.file_id == bad_replicas.c.file_id) & (replicas.c.rse_id == bad_replicas.c.rse_id),
        )
        .where(bad_replicas.c.id > after_id)
        .order_by(bad_replicas.c.id)
        .limit(limit)
    )
    if state is not None:
        query = query.where(bad_replicas.c.state == state)
    if rse_id is not None:
        query = query.where(bad_replicas.c.rse_id == rse_id)
    if since is not None:
        query = query.where(bad_replicas.c.created_at >= since)
    if until is not None:
        query = query.where(bad_replicas.c.created_at < until)
    return query


def summary(since: datetime | None, until: datetime | None, rse_ids: Collection[int] | None) -> Select[Any]:
    """Query for how many declarations of each incident ended how: by RSE, instant, reason and state."""
    query = (
        select(
            rses.c.name.label("rse"),
            rses.c.id.label("rse_id"),
            bad_replicas.c.created_at,
            bad_replicas.c.reason,
            bad_replicas.c.state,
            func.count().label("files"),
        )
        .join(rses, rses.c.id == bad_replicas.c.rse_id)
        .group_by(
            rses.c.name, rses.c.id, bad_replicas.c.created_at, bad_replicas.c.reason, bad_replicas.c.state
        )
        .order_by(bad_replicas.c.created_at, rses.c.name, bad_replicas.c.reason, bad_replicas.c.state)
    )
    if since is not None:
        query = query.where(bad_replicas.c.created_at >= since)
    if until is not None:
        query = query.where(bad_replicas.c.created_at < until)
    return query if rse_ids is None else query.where(bad_replicas.c.rse_id.in_(sorted(rse_ids)))
