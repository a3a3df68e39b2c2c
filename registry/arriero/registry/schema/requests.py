"""Requests: the queue of record for copies, and the history of those that ended."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from arriero.registry.schema.base import BigId, UtcDateTime, created_at, metadata, now, updated_at, words
from arriero.registry.states import RequestState, RequestType, TransferDirection

requests = Table(
    "requests",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("type", words(RequestType, "type"), nullable=False, default=RequestType.TRANSFER),
    Column("file_id", BigId, nullable=False),
    Column("destination_id", Integer, nullable=False),
    # the source of the attempt that runs or ran last
    Column("source_id", Integer),
    # the rule that asked first; others that want the same copy share the request
    Column("rule_id", BigId),
    Column("bytes", BigInteger, nullable=False),
    Column("activity", String(50), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("state", words(RequestState, "state"), nullable=False),
    # counted when a worker takes the request, not when it fails: a copy that kills its worker is counted too
    Column("attempt", Integer, nullable=False, default=0),
    Column("not_before", UtcDateTime, nullable=False, default=now()),
    Column("fence", BigInteger, nullable=False, default=0),
    Column("lease_owner", Text),
    Column("lease_until", UtcDateTime),
    Column("code", String(64)),
    Column("reason", Text),
    created_at(),
    Column("started_at", UtcDateTime),
    # bytes of the attempt that runs that were at the destination when its worker last showed a sign of life
    Column("copied", BigInteger),
    UniqueConstraint("file_id", "destination_id"),
    # a lane: what one rule wants at one RSE with one priority, by the time when it is due
    Index(
        "ix_requests_lanes",
        "destination_id",
        "priority",
        "rule_id",
        "not_before",
        postgresql_where=text("state = 'QUEUED'"),
        sqlite_where=text("state = 'QUEUED'"),
    ),
    Index(
        "ix_requests_ownerless",
        "destination_id",
        "priority",
        postgresql_where=text("state = 'QUEUED' AND rule_id IS NULL"),
        sqlite_where=text("state = 'QUEUED' AND rule_id IS NULL"),
    ),
    Index(
        "ix_requests_leased",
        "lease_until",
        postgresql_where=text("state = 'SUBMITTED'"),
        sqlite_where=text("state = 'SUBMITTED'"),
    ),
    # copies that only the mover of their source's site can make
    Index(
        "ix_requests_site_mover",
        "source_id",
        postgresql_where=text("state = 'QUEUED' AND code = 'site_mover'"),
        sqlite_where=text("state = 'QUEUED' AND code = 'site_mover'"),
    ),
    # sources that failed: their replicas are looked at
    Index(
        "ix_requests_doubtful",
        "source_id",
        "file_id",
        postgresql_where=text("code IN ('not_found', 'source_mismatch')"),
        sqlite_where=text("code IN ('not_found', 'source_mismatch')"),
    ),
)

request_history = Table(
    "request_history",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at", UtcDateTime, nullable=False, default=now()),
    Column("request_id", BigId, nullable=False),
    Column("file_id", BigId, nullable=False),
    Column("source_id", Integer),
    Column("destination_id", Integer, nullable=False),
    Column("rule_id", BigId),
    Column("state", words(RequestState, "state"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("mode", String(32)),
    Column("bytes", BigInteger, nullable=False),
    # wall time of the copy itself, seconds
    Column("seconds", Float),
    Column("code", String(64)),
    Column("reason", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    # why it went the way it went, where that was not the first choice
    Column("mode_reason", Text),
    Index("ix_request_history_file_id_at", "file_id", "at"),
)

request_attempts = Table(
    "request_attempts",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at", UtcDateTime, nullable=False, default=now()),
    Column("request_id", BigId, nullable=False),
    Column("file_id", BigId, nullable=False),
    Column("source_id", Integer),
    Column("destination_id", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("code", String(64)),
    Column("reason", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Index("ix_request_attempts_file_id_at", "file_id", "at"),
)
"""Attempts that failed and were followed by another; the last one of a request is in ``request_history``."""

transfer_limits = Table(
    "transfer_limits",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("rse_expression", Text, nullable=False),
    Column("direction", words(TransferDirection, "direction"), nullable=False),
    # empty: of every activity
    Column("activity", String(50), nullable=False, default=""),
    Column("max_transfers", Integer, nullable=False),
    Column("volume", BigInteger),
    Column("deadline_h", Integer),
    Column("strategy", String(25), nullable=False, default="fifo"),
    created_at(),
    updated_at(),
    UniqueConstraint("rse_expression", "direction", "activity"),
)
