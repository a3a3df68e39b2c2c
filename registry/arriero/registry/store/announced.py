"""Replicas that clients have announced: COPYING without a request, until they say that they are there."""

from sqlalchemy import Connection, exists, func, literal, or_, select, tuple_, update

from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import replicas, requests
from arriero.registry.states import ReplicaState
from arriero.registry.store.replica_sets import staged_replicas

OVERDUE = "announced_too_long"
"""Code of replicas that were announced and never came."""

_STAGED = select(staged_replicas.c.file_id, staged_replicas.c.rse_id)


def overdue(connection: Connection, *, deadline_s: float, limit: int) -> list[tuple[int, int]]:
    """Give file and RSE of replicas whose time is over, whatever has become of them, the oldest first."""
    query = (
        select(replicas.c.file_id, replicas.c.rse_id)
        .where(
            replicas.c.announced_at.is_not(None),
            replicas.c.announced_at <= select(after(literal(-deadline_s))).scalar_subquery(),
        )
        .order_by(replicas.c.announced_at)
        .limit(limit)
    )
    return [(row.file_id, row.rse_id) for row in connection.execute(query)]


def keep_overdue(connection: Connection) -> None:
    """Forget the staged replicas that came, or that somebody copies; their announcement is over. They are held."""
    asked_for = exists().where(
        requests.c.file_id == replicas.c.file_id, requests.c.destination_id == replicas.c.rse_id
    )
    settled = select(replicas.c.file_id, replicas.c.rse_id).where(
        tuple_(replicas.c.file_id, replicas.c.rse_id).in_(_STAGED),
        or_(replicas.c.state != ReplicaState.COPYING, asked_for),
    )
    over = tuple_(staged_replicas.c.file_id, staged_replicas.c.rse_id).in_(settled)
    connection.execute(
        update(replicas)
        .where(tuple_(replicas.c.file_id, replicas.c.rse_id).in_(_STAGED))
        .values(announced_at=None, updated_at=replicas.c.updated_at)
    )
    connection.execute(staged_replicas.delete().where(over))


def give_up(connection: Connection, reason: str) -> int:
    """Have the staged replicas be UNAVAILABLE; give how many there are."""
    connection.execute(
        update(replicas)
        .where(tuple_(replicas.c.file_id, replicas.c.rse_id).in_(_STAGED))
        .values(state=ReplicaState.UNAVAILABLE, code=OVERDUE, reason=reason, updated_at=now())
    )
    return connection.execute(select(func.count()).select_from(staged_replicas)).scalar_one()
