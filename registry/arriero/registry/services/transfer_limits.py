"""Limits of transfers: how many at once between which RSEs. Kept and listed here.

The workers keep to the number of copies, at each RSE of the expression; not to volume and deadline, and each answer
says so with ``enforced``.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection

from arriero.registry.errors import InvalidInput, NotFound
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rse_names import index_of
from arriero.registry.services.rule_specs import check_activity, check_expression
from arriero.registry.states import TransferDirection
from arriero.registry.store import transfer_limits as store
from arriero.registry.store.rses import load_rses
from arriero.registry.store.streaming import streamed

STRATEGIES = ("fifo", "grouped_fifo")
"""Rucio's: each file by itself, or a dataset as a whole."""

_MOST = 2**31 - 1


def list_limits(context: Context) -> Iterator[dict[str, Any]]:
    """List the limits, the oldest first."""
    with context.database.snapshot() as connection, streamed(connection, store.limit_query()) as rows:
        for row in rows:
            yield {
                "id": str(row["id"]),
                "rse_expression": row["rse_expression"],
                "direction": row["direction"],
                "activity": row["activity"] or None,
                "max_transfers": row["max_transfers"],
                "volume": row["volume"],
                "deadline": row["deadline_h"],
                "strategy": row["strategy"],
                "transfers": None,
                "waitings": None,
                "enforced": row["volume"] is None and row["deadline_h"] is None,
                "created_at": row["created_at"],
                "updated_at": row["updated_at"],
            }


def set_limit(
    context: Context,
    actor: Actor,
    expression: str,
    *,
    direction: TransferDirection,
    activity: str | None,
    max_transfers: int,
    volume: int | None = None,
    deadline_h: int | None = None,
    strategy: str | None = None,
) -> None:
    """Set a limit, whether it was there or not.

    Parameters
    ----------
    activity
        None: of every activity.
    max_transfers
        Copies at once.
    volume
        Bytes at once.
    deadline_h
        Hours after which what waits goes all the same.

    Raises
    ------
    InvalidInput, InvalidExpression
        A value that it cannot have.
    """
    _check("max_transfers", max_transfers, _MOST)
    _check("volume", volume, 2**63 - 1)
    _check("deadline", deadline_h, _MOST)
    if strategy is not None and strategy not in STRATEGIES:
        raise InvalidInput(f"strategy is one of {', '.join(STRATEGIES)}")
    values = {
        "max_transfers": max_transfers,
        "volume": volume,
        "deadline_h": deadline_h,
        "strategy": strategy or STRATEGIES[0],
    }

    def work(connection: Connection) -> None:
        authorize(actor, Action.TRANSFER_LIMIT_SET, Target(expression[:200]))
        if activity is not None:
            check_activity(activity)
        check_expression(index_of(load_rses(connection)), expression)
        store.set_limit(connection, expression, direction, activity or "", values)
        audit.record(
            connection,
            actor,
            Action.TRANSFER_LIMIT_SET,
            expression[:200],
            direction=direction,
            activity=activity,
            **values,
        )

    context.database.run(work)


def delete_limit(
    context: Context, actor: Actor, expression: str, *, direction: TransferDirection, activity: str | None
) -> None:
    """Remove a limit.

    Raises
    ------
    NotFound
        There is none of this expression, direction and activity.
    """

    def work(connection: Connection) -> None:
        authorize(actor, Action.TRANSFER_LIMIT_SET, Target(expression[:200]))
        if not store.delete_limit(connection, expression, direction, activity or ""):
            raise NotFound(
                f"there is no transfer limit on {expression[:200]!a} as {direction.lower()} for "
                f"{activity[:50] if activity else 'every activity'}: see /requests/transfer_limits"
            )
        audit.record(
            connection,
            actor,
            Action.TRANSFER_LIMIT_SET,
            expression[:200],
            direction=direction,
            activity=activity,
            removed=True,
        )

    context.database.run(work)


def _check(key: str, value: int | None, most: int) -> None:
    if value is not None and not 0 <= value <= most:
        raise InvalidInput(f"{key} is a number from 0 to {most}")
