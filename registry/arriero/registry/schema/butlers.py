"""Butlers, what belongs in them, and the ledger of arrivals."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    text,
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
from arriero.registry.states import ArrivalState

butlers = Table(
    "butlers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("uri", Text, nullable=False),
    Column("transfer", String(16), nullable=False, default="direct"),
    # names of the instrument declarations that describe its files
    Column("instruments", Json, nullable=False),
    created_at(),
    updated_at(),
)

butler_rses = Table(
    "butler_rses",
    metadata,
    Column("butler_id", ForeignKey("butlers.id", ondelete="CASCADE"), primary_key=True),
    Column("rse_id", ForeignKey("rses.id"), primary_key=True),
    # what takes the place of the RSE's own prefix in a URI that the Butler's readers can open; empty: the PFN itself
    Column("uri_prefix", Text),
)

butler_selections = Table(
    "butler_selections",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("butler_id", ForeignKey("butlers.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("scope_id", ForeignKey("scopes.id"), nullable=False),
    # a LIKE pattern, made from the operator's `*`
    Column("name_like", Text, nullable=False),
    UniqueConstraint("butler_id", "scope_id", "name_like"),
)

arrivals = Table(
    "arrivals",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("butler_id", ForeignKey("butlers.id", ondelete="CASCADE"), nullable=False),
    Column("file_id", BigId, nullable=False),
    Column("rse_id", ForeignKey("rses.id"), nullable=False),
    Column("state", words(ArrivalState, "state"), nullable=False, default=ArrivalState.PENDING),
    Column("attempt", Integer, nullable=False, default=0),
    Column("not_before", UtcDateTime, nullable=False, default=now()),
    Column("fence", BigInteger, nullable=False, default=0),
    Column("lease_owner", Text),
    Column("lease_until", UtcDateTime),
    Column("waits_for", Text),
    Column("code", String(64)),
    Column("reason", Text),
    Column("dataset_id", Uuid),
    # ids of all that are in the file, where there are several: a list of text
    Column("datasets", Json),
    # its agent went silent with it in hand, or found the dataset with another file: the Butler may refer to it
    Column("may_hold", Boolean, nullable=False, default=False, server_default=false()),
    created_at(),
    Column("started_at", UtcDateTime),
    Column("ingested_at", UtcDateTime),
    updated_at(),
    UniqueConstraint("butler_id", "file_id"),
    Index("ix_arrivals_file_id", "file_id"),
    Index(
        "ix_arrivals_due",
        "butler_id",
        "not_before",
        postgresql_where=text("state IN ('pending', 'parked')"),
        sqlite_where=text("state IN ('pending', 'parked')"),
    ),
    Index(
        "ix_arrivals_leased",
        "lease_until",
        postgresql_where=text("state = 'leased'"),
        sqlite_where=text("state = 'leased'"),
    ),
    Index(
        "ix_arrivals_parked",
        "butler_id",
        postgresql_where=text("state = 'parked'"),
        sqlite_where=text("state = 'parked'"),
    ),
    Index(
        "ix_arrivals_ingested_at",
        "butler_id",
        "ingested_at",
        postgresql_where=text("ingested_at IS NOT NULL"),
        sqlite_where=text("ingested_at IS NOT NULL"),
    ),
)
