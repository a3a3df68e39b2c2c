"""The outbox: events are written in the transaction in which they happen."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert

from arriero.registry.schema.tables import events


def append(
    connection: Connection, event_type: str, keyed_payloads: Sequence[tuple[str, Mapping[str, Any]]]
) -> None:
    """Append events of one type.

    Parameters
    ----------
    connection
        In the transaction in which they happen.
    keyed_payloads
        Events with the same key are delivered in order.
    """
    rows = [
        {"event_type": event_type, "key": key, "payload": dict(payload)} for key, payload in keyed_payloads
    ]
    if rows:
        connection.execute(insert(events), rows)
