"""Data identifiers: files, datasets, containers, what they hold, and their metadata."""

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
from arriero.registry.states import DidType

Name = String(500).with_variant(String(500, collation="C"), "postgresql")
"""Ordered by code points on every database, so that pages and prefixes mean the same and an index serves both."""

dids = Table(
    "dids",
    metadata,
    Column("id", BigId, primary_key=True),
    # no foreign keys to scopes and accounts: two checks a row would double the cost of a registration (ADR 0007)
    Column("scope_id", Integer, nullable=False),
    Column("name", Name, nullable=False),
    Column("type", words(DidType, "type"), nullable=False),
    Column("account_id", Integer, nullable=False),
    Column("is_open", Boolean, nullable=False, default=True),
    Column("monotonic", Boolean, nullable=False, default=False),
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
    Column("md5", String(32)),
    # the same on every database: spreads the files of a rule with grouping NONE over the RSEs
    Column("spread", Integer, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("expired_at", UtcDateTime),
    # when a client last said that it reads it
    Column("accessed_at", UtcDateTime),
    created_at(),
    updated_at(),
    UniqueConstraint("scope_id", "name"),
    # files outnumber collections a thousand to one: a pattern that begins with a wildcard walks this one instead
    Index(
        "ix_dids_collections",
        "scope_id",
        "name",
        postgresql_where=text("type <> 'FILE'"),
        sqlite_where=text("type <> 'FILE'"),
    ),
    # and a subscription that is applied to the past goes through the collections by this one; spelt differently, so that
    # no search for collections by name takes it
    Index(
        "ix_dids_collection_ids",
        "id",
        postgresql_where=text("type IN ('DATASET', 'CONTAINER')"),
        sqlite_where=text("type IN ('DATASET', 'CONTAINER')"),
    ),
    Index(
        "ix_dids_expired_at",
        "expired_at",
        postgresql_where=text("expired_at IS NOT NULL"),
        sqlite_where=text("expired_at IS NOT NULL"),
    ),
    # an id is never given twice: histories and `deleted_dids` go on referring to it
    sqlite_autoincrement=True,
)

did_meta = Table(
    "did_meta",
    metadata,
    Column("did_id", ForeignKey("dids.id", ondelete="CASCADE"), primary_key=True),
    Column("meta", Json, nullable=False),
    # on PostgreSQL also `ix_did_meta_searched`, which only the revision can describe (docs/adr/0013-metadata-search.md)
)

contents = Table(
    "contents",
    metadata,
    Column("parent_id", BigId, primary_key=True, autoincrement=False),
    Column("child_id", BigId, primary_key=True, autoincrement=False),
    created_at(),
    Index("ix_contents_child_id", "child_id", "parent_id"),
)

deleted_dids = Table(
    "deleted_dids",
    metadata,
    # the id that it had: what refers to it in histories still does
    Column("id", BigId, primary_key=True, autoincrement=False),
    Column("scope_id", ForeignKey("scopes.id"), nullable=False),
    Column("name", String(500), nullable=False),
    Column("type", words(DidType, "type"), nullable=False),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("is_open", Boolean, nullable=False),
    Column("monotonic", Boolean, nullable=False),
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
    Column("md5", String(32)),
    Column("meta", Json),
    Column("closed_at", UtcDateTime),
    created_at(),
    Column("deleted_at", UtcDateTime, nullable=False, default=now()),
    Index("ix_deleted_dids_scope_id_name", "scope_id", "name"),
)

contents_history = Table(
    "contents_history",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("parent_id", BigId, nullable=False),
    Column("child_id", BigId, nullable=False),
    Column("attached_at", UtcDateTime, nullable=False),
    Column("detached_at", UtcDateTime, nullable=False, default=now()),
    Index("ix_contents_history_parent_id_child_id", "parent_id", "child_id"),
)

lost_files = Table(
    "lost_files",
    metadata,
    Column("file_id", BigId, primary_key=True, autoincrement=False),
    Column("reason", Text, nullable=False),
    Column("lost_at", UtcDateTime, nullable=False, default=now()),
    # who said that it is not to be waited for any more, when and why
    Column("accepted_at", UtcDateTime),
    Column("account_id", Integer),
    Column("accepted_reason", Text),
    Index(
        "ix_lost_files_open",
        "lost_at",
        postgresql_where=text("accepted_at IS NULL"),
        sqlite_where=text("accepted_at IS NULL"),
    ),
)
"""Files of which no good copy is known, nor is one on its way. A row goes when a good copy appears."""
