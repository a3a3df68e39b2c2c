"""True counts, each in one statement."""

from typing import Any

from sqlalchemy import Connection, Table, func, select

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import arrivals, butlers, dids, replicas, requests, rses, rules


def count_by(connection: Connection, table: Table, column: str) -> dict[Any, int]:
    """Number of rows of a table for each value of a column."""
    key = table.c[column]
    rows = connection.execute(select(key, func.count().label("number")).group_by(key).order_by(key))
    return {row[0]: row.number for row in rows}


def dids_by_type(connection: Connection) -> dict[Any, int]:
    """Number of DIDs of each type."""
    return count_by(connection, dids, "type")


def rules_by_state(connection: Connection) -> dict[Any, int]:
    """Number of rules in each state."""
    return count_by(connection, rules, "state")


def requests_by_state(connection: Connection) -> dict[Any, int]:
    """Number of live requests in each state."""
    return count_by(connection, requests, "state")


def replicas_by_rse(connection: Connection) -> list[dict[str, Any]]:
    """Files and bytes at each RSE in each state."""
    query = (
        select(
            rses.c.name.label("rse"),
            replicas.c.state,
            func.count().label("files"),
            func.sum(replicas.c.bytes).label("bytes"),
        )
        .join(rses, rses.c.id == replicas.c.rse_id)
        .group_by(rses.c.name, replicas.c.state)
        .order_by(rses.c.name, replicas.c.state)
    )
    return [{**row, "bytes": int(row["bytes"])} for row in connection.execute(query).mappings()]


def arrivals_by_butler(connection: Connection) -> list[dict[str, Any]]:
    """Arrivals of each butler in each state."""
    query = (
        select(butlers.c.name.label("butler"), arrivals.c.state, func.count().label("files"))
        .join(butlers, butlers.c.id == arrivals.c.butler_id)
        .group_by(butlers.c.name, arrivals.c.state)
        .order_by(butlers.c.name, arrivals.c.state)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def clock(connection: Connection) -> Any:
    """The database's time."""
    return connection.scalar(select(now()))
