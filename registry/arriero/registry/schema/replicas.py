"""Replicas: where each file is, and what is known about it there."""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, text

from arriero.registry.schema.base import BigId, UtcDateTime, created_at, metadata, now, updated_at, words
from arriero.registry.states import BadReplicaState, ReplicaState

replicas = Table(
    "replicas",
    metadata,
    Column("file_id", BigId, primary_key=True, autoincrement=False),
    Column("rse_id", Integer, primary_key=True, autoincrement=False),
    Column("bytes", BigInteger, nullable=False),
    Column("state", words(ReplicaState, "state"), nullable=False),
    # only at an RSE that is not deterministic; elsewhere the path follows from the name
    Column("path", Text),
    Column("code", String(64)),
    Column("reason", Text),
    # when Arriero itself last saw size and checksum hold; a client's word alone leaves it empty (DESIGN 4.7)
    Column("verified_at", UtcDateTime),
    # since when no lock holds it; such a replica may go when space is needed
    Column("tombstone", UtcDateTime),
    # and with this at once: the last rule that held it said so
    Column("purge", Boolean),
    # when a client last said that it reads it: what is read least goes first
    Column("accessed_at", UtcDateTime),
    # when a client said that it brings it; a sweep ends the wait, or notes that it is over
    Column("announced_at", UtcDateTime),
    created_at(),
    updated_at(),
    Index("ix_replicas_rse_id", "rse_id", "file_id"),
    # what deletion takes at once, and what it takes when space is needed
    Index(
        "ix_replicas_at_once",
        "rse_id",
        "file_id",
        # and not by state: an index on what changes so often would make each change dear
        postgresql_where=text("purge IS NOT NULL"),
        sqlite_where=text("purge IS NOT NULL"),
    ),
    Index(
        "ix_replicas_tombstone",
        "rse_id",
        "tombstone",
        "file_id",
        postgresql_where=text("tombstone IS NOT NULL"),
        sqlite_where=text("tombstone IS NOT NULL"),
    ),
    Index(
        "ix_replicas_announced_at",
        "announced_at",
        postgresql_where=text("announced_at IS NOT NULL"),
        sqlite_where=text("announced_at IS NOT NULL"),
    ),
    # where the path follows from the name there is nothing to keep apart, and nothing to pay for
    Index(
        "uq_replicas_rse_id_path",
        "rse_id",
        "path",
        unique=True,
        postgresql_where=text("path IS NOT NULL"),
        sqlite_where=text("path IS NOT NULL"),
    ),
)

bad_replicas = Table(
    "bad_replicas",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("file_id", BigId, nullable=False),
    Column("rse_id", Integer, nullable=False),
    Column("state", words(BadReplicaState, "state"), nullable=False),
    Column("reason", Text),
    Column("account_id", ForeignKey("accounts.id")),
    # of a replica that is unavailable for a time only
    Column("expires_at", UtcDateTime),
    created_at(),
    updated_at(),
    Index("ix_bad_replicas_file_id_rse_id", "file_id", "rse_id"),
    Index("ix_bad_replicas_state_created_at", "state", "created_at"),
    Index(
        "ix_bad_replicas_bad",
        "rse_id",
        "file_id",
        postgresql_where=text("state = 'BAD'"),
        sqlite_where=text("state = 'BAD'"),
    ),
)
"""What was said against replicas: every declaration, and how it ended."""

quarantined_replicas = Table(
    "quarantined_replicas",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
    Column("md5", String(32)),
    Column("scope", Text),
    Column("name", Text),
    # where it lies now, when an audit has moved it aside
    Column("moved_to", Text),
    Column("created_at", UtcDateTime, nullable=False, default=now()),
)
"""Files found on a storage that the catalogue does not know (dark data)."""
