"""How full RSEs are, by source and over time, their limits, and their classes of service."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, delete, func, insert, select

from arriero.registry.dialect import insert_into
from arriero.registry.schema.tables import (
    accounts,
    locks,
    replicas,
    rse_limits,
    rse_qos_policies,
    rse_usage,
    rse_usage_history,
    rules,
)
from arriero.registry.states import ReplicaState

_THERE = (
    ReplicaState.AVAILABLE,
    ReplicaState.TEMPORARY_UNAVAILABLE,
    ReplicaState.BAD,
    ReplicaState.BEING_DELETED,
)
"""States of replicas whose bytes lie on the storage, as far as anybody knows."""


def measured(connection: Connection, rse_id: int, source: str | None) -> Sequence[RowMapping]:
    """What was measured of an RSE last, by source."""
    query = select(rse_usage).where(rse_usage.c.rse_id == rse_id).order_by(rse_usage.c.source)
    if source is not None:
        query = query.where(rse_usage.c.source == source)
    return connection.execute(query).mappings().all()


def catalogued(connection: Connection, rse_id: int) -> RowMapping:
    """Bytes and files that the catalogue has at an RSE, counted now."""
    query = select(
        func.coalesce(func.sum(replicas.c.bytes), 0).label("used"),
        func.count().label("files"),
        func.max(replicas.c.updated_at).label("updated_at"),
    ).where(replicas.c.rse_id == rse_id, replicas.c.state.in_(_THERE))
    return connection.execute(query).mappings().one()


def by_account(connection: Connection, rse_id: int) -> Sequence[RowMapping]:
    """Bytes and files that rules of each account hold at an RSE; a file counts once for an account."""
    held = (
        select(rules.c.account_id, locks.c.file_id, func.max(locks.c.bytes).label("bytes"))
        .join(rules, rules.c.id == locks.c.rule_id)
        .where(locks.c.rse_id == rse_id)
        .group_by(rules.c.account_id, locks.c.file_id)
        .subquery()
    )
    query = (
        select(
            accounts.c.name.label("account"),
            func.sum(held.c.bytes).label("used"),
            func.count().label("files"),
        )
        .join(held, held.c.account_id == accounts.c.id)
        .group_by(accounts.c.name)
        .order_by(accounts.c.name)
    )
    return connection.execute(query).mappings().all()


def set_measured(connection: Connection, rse_id: int, values: Mapping[str, Any]) -> None:
    """Write what one source has measured, and that it has; what deletion frees from now on is counted anew."""
    statement = insert_into(connection, rse_usage).values(rse_id=rse_id, **values)
    figures = ("used", "free", "files", "updated_at")
    written = statement.on_conflict_do_update(
        index_elements=["rse_id", "source"],
        set_={"freed": 0, **{name: statement.excluded[name] for name in figures}},
    ).returning(rse_usage)
    row = connection.execute(written).mappings().one()
    kept = insert_into(connection, rse_usage_history).values(
        rse_id=rse_id,
        at=row["updated_at"],
        **{name: row[name] for name in ("source", "used", "free", "files")},
    )
    connection.execute(
        kept.on_conflict_do_update(
            index_elements=["rse_id", "source", "at"],
            set_={name: kept.excluded[name] for name in ("used", "free", "files")},
        )
    )


def room(connection: Connection, rse_id: int) -> int | None:
    """Bytes that may still be written at an RSE: the least that a source measured, less ``MinFreeSpace``; None: unknown."""
    free = connection.scalar(select(func.min(rse_usage.c.free)).where(rse_usage.c.rse_id == rse_id))
    if free is None:
        return None
    kept = connection.scalar(
        select(rse_limits.c.value).where(rse_limits.c.rse_id == rse_id, rse_limits.c.name == "MinFreeSpace")
    )
    return max(int(free) - int(kept or 0), 0)


def history_query(rse_id: int, source: str | None) -> Select[Any]:
    """Query for everything that was ever measured of an RSE, in the order of time."""
    query = select(rse_usage_history).where(rse_usage_history.c.rse_id == rse_id)
    if source is not None:
        query = query.where(rse_usage_history.c.source == source)
    return query.order_by(rse_usage_history.c.at, rse_usage_history.c.source)


def limits_of(connection: Connection, rse_ids: Iterable[int]) -> dict[int, dict[str, int]]:
    """Limits of RSEs, bytes."""
    found: dict[int, dict[str, int]] = {rse_id: {} for rse_id in rse_ids}
    query = select(rse_limits).where(rse_limits.c.rse_id.in_(list(found))).order_by(rse_limits.c.name)
    for row in connection.execute(query):
        found[row.rse_id][row.name] = row.value
    return found


def set_limits(connection: Connection, values: Iterable[tuple[int, str, int]]) -> None:
    """Set limits (RSE, name, bytes), whether they were there or not."""
    rows = [{"rse_id": rse_id, "name": name, "value": value} for rse_id, name, value in values]
    if not rows:
        return
    statement = insert_into(connection, rse_limits)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["rse_id", "name"], set_={"value": statement.excluded.value}
        ),
        rows,
    )


def delete_limit(connection: Connection, rse_id: int, name: str) -> bool:
    """Remove a limit; False when there was none."""
    found = connection.execute(
        delete(rse_limits).where(rse_limits.c.rse_id == rse_id, rse_limits.c.name == name)
    )
    return found.rowcount > 0


def policies_of(connection: Connection, rse_id: int) -> list[str]:
    """Classes of service that an RSE offers, by name."""
    query = select(rse_qos_policies.c.policy).where(rse_qos_policies.c.rse_id == rse_id)
    return list(connection.scalars(query.order_by(rse_qos_policies.c.policy)))


def add_policy(connection: Connection, rse_id: int, policy: str) -> None:
    """Insert a class of service of an RSE."""
    connection.execute(insert(rse_qos_policies).values(rse_id=rse_id, policy=policy))


def delete_policy(connection: Connection, rse_id: int, policy: str) -> bool:
    """Remove a class of service; False when the RSE did not offer it."""
    found = connection.execute(
        delete(rse_qos_policies).where(
            rse_qos_policies.c.rse_id == rse_id, rse_qos_policies.c.policy == policy
        )
    )
    return found.rowcount > 0
