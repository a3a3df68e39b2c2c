"""Subscriptions: standing filters for DIDs that are to come, with the rules that each gets."""

from sqlalchemy import Boolean, Column, ForeignKey, SmallInteger, String, Table, Text, UniqueConstraint, Uuid

from arriero.registry.schema.base import BigId, Json, UtcDateTime, created_at, metadata, updated_at, words
from arriero.registry.states import SubscriptionState

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("uuid", Uuid, nullable=False, unique=True),
    Column("name", String(64), nullable=False),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    # Rucio's shapes: {"scope": [...], "pattern": ..., "did_type": [...], ...} and a list of rule templates
    Column("filter", Json, nullable=False),
    Column("replication_rules", Json, nullable=False),
    Column("comments", Text),
    # lower goes first
    Column("priority", SmallInteger, nullable=False, default=3),
    Column("retroactive", Boolean, nullable=False, default=False),
    Column("dry_run", Boolean, nullable=False, default=False),
    Column("state", words(SubscriptionState, "state"), nullable=False, default=SubscriptionState.ACTIVE),
    Column("code", String(64)),
    Column("reason", Text),
    Column("last_processed", UtcDateTime),
    Column("expires_at", UtcDateTime),
    created_at(),
    updated_at(),
    UniqueConstraint("account_id", "name"),
)
