"""Who has closed an RSE for reading, writing or deleting, since when and why."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.services.context import Actor
from arriero.registry.states import RseOperation
from arriero.registry.store import rse_health as store

_FLAGS = {f"availability_{one.lower()}": one for one in RseOperation}


def note_pauses(
    connection: Connection, actor: Actor, row: RowMapping, change: Mapping[str, Any], reason: str | None
) -> None:
    """Write down who closes an RSE and why; forget who had closed what is open now.

    Parameters
    ----------
    row
        The RSE as it was.
    change
        What of it was changed.
    reason
        None: one that was closed before stays closed by whoever did so.
    """
    closed = [one for flag, one in _FLAGS.items() if change.get(flag) is False and (row[flag] or reason)]
    if closed:
        store.pause(connection, row["id"], closed, account_id=actor.account_id, reason=reason)
    if any(change.get(flag) for flag in _FLAGS):
        store.forget_pauses(connection)
