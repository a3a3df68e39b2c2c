"""The outbox: events are written in the transaction in which they happen."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, String, Text, bindparam, cast, column, func, insert, select
from sqlalchemy.dialects.postgresql import JSONB

from arriero.registry.dialect import is_postgresql
from arriero.registry.schema.base import now
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
    if not keyed_payloads:
        return
    if not is_postgresql(connection):
        rows = [
            {"event_type": event_type, "key": key, "payload": dict(payload)}
            for key, payload in keyed_payloads
        ]
        connection.execute(insert(events), rows)
        return
    # one statement, not one for each: a batch of copies has hundreds
    document = orjson.dumps([{"key": key, "payload": dict(payload)} for key, payload in keyed_payloads])
    connection.execute(_APPEND, {"event_type": event_type, "document": document.decode()})


_sent = (
    func.jsonb_to_recordset(cast(bindparam("document", type_=Text), JSONB))
    .table_valued(column("key", Text), column("payload", JSONB), name="sent")
    .render_derived(with_types=True)
)
_APPEND = insert(events).from_select(
    ["event_type", "key", "payload", "created_at"],
    select(bindparam("event_type", type_=String), _sent.c.key, _sent.c.payload, now()),
    include_defaults=False,
)
