"""Who carries events to a broker, and how far each has come."""

from sqlalchemy import BigInteger, Column, String, Table

from arriero.registry.schema.base import UtcDateTime, created_at, metadata, updated_at

event_senders = Table(
    "event_senders",
    metadata,
    Column("name", String(64), primary_key=True),
    # events up to this id are dealt with: confirmed by the broker, or not asked for
    Column("position", BigInteger, nullable=False),
    # the process that sends, as long as its lease lasts; the fence rises with each change of owner
    Column("owner", String(100)),
    Column("fence", BigInteger, nullable=False, default=0),
    Column("leased_until", UtcDateTime),
    created_at(),
    updated_at(),
)
"""A row for each sender by name, not for each process: processes of one name take turns."""
