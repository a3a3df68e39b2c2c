"""Audits of storages: what a dump or a walk said, what was found wrong, and which replicas are to be read again."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

from arriero.registry.schema.base import BigId, UtcDateTime, created_at, metadata, now, updated_at, words
from arriero.registry.states import AuditSource, AuditState, FindingKind, FindingState

storage_audits = Table(
    "storage_audits",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), nullable=False),
    Column("source", words(AuditSource, "source"), nullable=False),
    Column("state", words(AuditState, "state"), nullable=False),
    # when the storage looked like this: what has changed since, or shortly before, is not judged
    Column("observed_at", UtcDateTime, nullable=False),
    Column("account_id", ForeignKey("accounts.id")),
    # why nothing was acted on
    Column("code", String(64)),
    Column("reason", Text),
    # how far the lines have come: a chunk that is sent again is passed over, a walk goes on behind its last path
    Column("chunks", Integer, nullable=False, default=0),
    Column("cursor", Text),
    Column("lines", BigInteger, nullable=False, default=0),
    # paths that no file of the catalogue could have
    Column("unusable", BigInteger, nullable=False, default=0),
    Column("has_bytes", Boolean, nullable=False, default=False),
    Column("has_adler32", Boolean, nullable=False, default=False),
    Column("judged", BigInteger),
    Column("missing", BigInteger),
    Column("dark", BigInteger),
    Column("wrong_size", BigInteger),
    Column("wrong_checksum", BigInteger),
    Column("declared", BigInteger),
    created_at(),
    updated_at(),
    Index("ix_storage_audits_rse_id_observed_at", "rse_id", "observed_at"),
)

storage_audit_lines = Table(
    "storage_audit_lines",
    metadata,
    Column("audit_id", BigId, nullable=False),
    Column("number", BigInteger, nullable=False),
    # of a line that is a replica; of another the path
    Column("file_id", BigId),
    Column("path", Text),
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
    Index(
        "ix_storage_audit_lines_known",
        "audit_id",
        "file_id",
        postgresql_where=text("file_id IS NOT NULL"),
        sqlite_where=text("file_id IS NOT NULL"),
    ),
    Index(
        "ix_storage_audit_lines_unknown",
        "audit_id",
        "number",
        postgresql_where=text("file_id IS NULL"),
        sqlite_where=text("file_id IS NULL"),
    ),
)
"""The lines of audits that are under way. On PostgreSQL the table is not logged: an audit that loses lines says so."""

storage_findings = Table(
    "storage_findings",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), nullable=False),
    Column("kind", words(FindingKind, "kind"), nullable=False),
    Column("state", words(FindingState, "state"), nullable=False),
    # of a replica; of a dark file the path
    Column("file_id", BigId),
    Column("path", Text),
    # as found
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
    Column("times", Integer, nullable=False, default=1),
    Column("first_seen_at", UtcDateTime, nullable=False),
    Column("last_seen_at", UtcDateTime, nullable=False),
    # the audit that saw it last; none: its bytes were read
    Column("audit_id", BigId),
    # why it is not acted on
    Column("code", String(64)),
    Column("reason", Text),
    created_at(),
    updated_at(),
    Index(
        "uq_storage_findings_replica",
        "rse_id",
        "file_id",
        unique=True,
        postgresql_where=text("file_id IS NOT NULL"),
        sqlite_where=text("file_id IS NOT NULL"),
    ),
    Index(
        "uq_storage_findings_dark",
        "rse_id",
        "path",
        unique=True,
        postgresql_where=text("file_id IS NULL"),
        sqlite_where=text("file_id IS NULL"),
    ),
    Index(
        "ix_storage_findings_file_id",
        "file_id",
        postgresql_where=text("file_id IS NOT NULL"),
        sqlite_where=text("file_id IS NOT NULL"),
    ),
)
"""What was found wrong at storages and is not settled: how often it was seen, and what became of it."""

replica_checks = Table(
    "replica_checks",
    metadata,
    Column("file_id", BigId, primary_key=True, autoincrement=False),
    Column("rse_id", Integer, primary_key=True, autoincrement=False),
    # 0: somebody has a reason to doubt it; 1: it is its turn
    Column("rank", SmallInteger, nullable=False),
    Column("why", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    # as of its replica when it was chosen: the oldest come first
    Column("verified_at", UtcDateTime),
    Column("attempt", Integer, nullable=False, default=0),
    Column("not_before", UtcDateTime, nullable=False, default=now()),
    Column("fence", BigInteger, nullable=False, default=0),
    Column("lease_owner", Text),
    Column("lease_until", UtcDateTime),
    Column("claimed_at", UtcDateTime),
    Column("code", String(64)),
    Column("reason", Text),
    created_at(),
    Index("ix_replica_checks_rse_id_not_before", "rse_id", "not_before"),
)
"""Replicas whose bytes are to be read and compared with the catalogue."""

scrubbed_rses = Table(
    "scrubbed_rses",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    # before it nothing is read there: so the pace holds however many workers there are
    Column("next_at", UtcDateTime, nullable=False),
    # before it nothing is chosen: all was verified lately
    Column("refill_at", UtcDateTime, nullable=False),
    Column("files", BigInteger, nullable=False, default=0),
    Column("bytes", BigInteger, nullable=False, default=0),
    # of what was read last, bytes a second
    Column("rate", Float),
    Column("code", String(64)),
    Column("reason", Text),
)
"""How far each RSE has been read."""
