"""The outbox: what happened, written in the transaction in which it happened."""

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, Text

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

complete_datasets = Table(
    "complete_datasets",
    metadata,
    Column("rule_id", ForeignKey("rules.id", ondelete="CASCADE"), primary_key=True),
    Column("dataset_id", BigId, primary_key=True, autoincrement=False),
    Column("rse_id", Integer, primary_key=True, autoincrement=False),
    created_at(),
)
"""The datasets of which was told that a rule has all of them at an RSE, as long as it has (docs/adr/0018)."""
