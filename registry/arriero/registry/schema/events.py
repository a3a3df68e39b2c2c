"""The outbox: what happened, written in the transaction in which it happened."""

from sqlalchemy import Column, Index, String, Table, Text

from arriero.registry.schema.base import BigId, Json, created_at, metadata

events = Table(
    "events",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("event_type", String(64), nullable=False),
    # events with the same key are delivered in order
    Column("key", Text, nullable=False),
    Column("payload", Json, nullable=False),
    created_at(),
    Index("ix_events_created_at", "created_at"),
)
