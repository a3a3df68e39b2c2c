"""Limits of transfers in the database."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Select, delete, select

from arriero.registry.dialect import insert_into
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import transfer_limits
from arriero.registry.states import TransferDirection


def limit_query() -> Select[Any]:
    """Query for all limits, in the order of their ids."""
    return select(transfer_limits).order_by(transfer_limits.c.id)


def set_limit(
    connection: Connection,
    expression: str,
    direction: TransferDirection,
    activity: str,
    values: Mapping[str, Any],
) -> None:
    """Set a limit, whether it was there or not."""
    statement = insert_into(connection, transfer_limits).values(
        rse_expression=expression, direction=direction, activity=activity, **values
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["rse_expression", "direction", "activity"],
            set_={**values, "updated_at": now()},
        )
    )


def delete_limit(
    connection: Connection, expression: str, direction: TransferDirection, activity: str
) -> bool:
    """Remove a limit; False when it was not there."""
    done = connection.execute(
        delete(transfer_limits).where(
            transfer_limits.c.rse_expression == expression,
            transfer_limits.c.direction == direction,
            transfer_limits.c.activity == activity,
        )
    )
    return done.rowcount == 1
