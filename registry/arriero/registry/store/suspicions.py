"""Replicas that were declared suspicious again and again, while another copy of their file is known to be good."""

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, and_, exists, func, literal, select

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import bad_replicas, replicas, rses
from arriero.registry.states import BadReplicaState, ReplicaState


def suspected(connection: Connection, *, count: int, within_s: float, limit: int) -> Sequence[RowMapping]:
    """Replicas that are AVAILABLE and were declared suspicious at least so often within a time.

    Of their file another replica is AVAILABLE, was verified, and was not declared suspicious as often.

    Returns
    -------
    rows
        ``file_id``, ``rse_id``, ``rse``, ``times``; at most so many, by RSE and file.
    """
    lately = (
        select(bad_replicas.c.file_id, bad_replicas.c.rse_id, func.count().label("times"))
        .where(
            bad_replicas.c.state == BadReplicaState.SUSPICIOUS,
            bad_replicas.c.created_at > select(after(literal(-within_s))).scalar_subquery(),
        )
        .group_by(bad_replicas.c.file_id, bad_replicas.c.rse_id)
        .having(func.count() >= count)
        .cte("lately")
    )
    doubted = lately.alias("doubted")
    another = replicas.alias("another")
    is_doubted = exists().where(doubted.c.file_id == another.c.file_id, doubted.c.rse_id == another.c.rse_id)
    is_proven = exists().where(
        another.c.file_id == lately.c.file_id,
        another.c.rse_id != lately.c.rse_id,
        another.c.state == ReplicaState.AVAILABLE,
        another.c.verified_at.is_not(None),
        ~is_doubted,
    )
    query = (
        select(lately.c.file_id, lately.c.rse_id, rses.c.name.label("rse"), lately.c.times)
        .join(
            replicas,
            and_(replicas.c.file_id == lately.c.file_id, replicas.c.rse_id == lately.c.rse_id),
        )
        .join(rses, rses.c.id == lately.c.rse_id)
        .where(replicas.c.state == ReplicaState.AVAILABLE, is_proven)
        .order_by(lately.c.rse_id, lately.c.file_id)
        .limit(limit)
    )
    return connection.execute(query).mappings().all()
