"""Subscriptions: standing filters for DIDs, with the rules that each gets; and which DIDs have to be looked at.

``subscription_items`` is a queue: rows are added by the transaction that changes a DID, and taken by the worker that has
looked (docs/adr/0017).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    false,
)

from arriero.registry.schema.base import (
    BigId,
    Json,
    UtcDateTime,
    created_at,
    metadata,
    now,
    updated_at,
    words,
)
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
    # follows from the filter: where nobody wants files, nothing is noted of them
    Column("wants_files", Boolean, nullable=False, default=False, server_default=false()),
    Column("state", words(SubscriptionState, "state"), nullable=False, default=SubscriptionState.ACTIVE),
    Column("code", String(64)),
    Column("reason", Text),
    Column("last_processed", UtcDateTime),
    Column("expires_at", UtcDateTime),
    created_at(),
    updated_at(),
    UniqueConstraint("account_id", "name"),
)

subscription_items = Table(
    "subscription_items",
    metadata,
    Column("id", BigId, primary_key=True),
    # none: every subscription looks
    Column("subscription_id", ForeignKey("subscriptions.id", ondelete="CASCADE"), index=True),
    # all DIDs with ids from the first to the last; one that is looked at page by page goes on at its first
    Column("first_did_id", BigInteger, nullable=False),
    Column("last_did_id", BigInteger, nullable=False),
    # also DIDs that a subscription was applied to before
    Column("again", Boolean, nullable=False, default=False),
    Column("attempt", Integer, nullable=False, default=0),
    # of one that a worker holds: when it has been held too long
    Column("not_before", UtcDateTime, nullable=False, default=now()),
    Column("lease_owner", Text),
    Column("code", String(64)),
    Column("reason", Text),
    created_at(),
    Index("ix_subscription_items_due", "not_before", "id"),
)

subscription_matches = Table(
    "subscription_matches",
    metadata,
    # what a subscription was applied to: a rule of it that has ended does not come back with the next change
    Column("did_id", ForeignKey("dids.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column(
        "subscription_id",
        ForeignKey("subscriptions.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    created_at(),
)
