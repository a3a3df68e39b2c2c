"""Deletions: the queue of record for bytes that go, their history, and what each RSE is to deletion."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from arriero.registry.schema.base import BigId, UtcDateTime, created_at, metadata, now, updated_at, words
from arriero.registry.states import DeletionCause, DeletionOutcome, DeletionPass, ReplicaState

deletions = Table(
    "deletions",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("file_id", BigId, nullable=False),
    Column("rse_id", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("cause", words(DeletionCause, "cause"), nullable=False),
    # what the replica is again when its deletion is taken back before anything was sent
    Column("was", words(ReplicaState, "was"), nullable=False),
    # the other replica for whose sake this one may go, and when that was verified; empty where the file itself may go
    Column("proof_rse_id", Integer),
    Column("proof_at", UtcDateTime),
    Column("attempt", Integer, nullable=False, default=0),
    Column("not_before", UtcDateTime, nullable=False, default=now()),
    Column("fence", BigInteger, nullable=False, default=0),
    Column("lease_owner", Text),
    Column("lease_until", UtcDateTime),
    Column("code", String(64)),
    Column("reason", Text),
    # until when a request of an attempt that nobody saw end may still reach the storage
    Column("grave_until", UtcDateTime),
    # when the storage said that the bytes are gone, while the path is kept free until then
    Column("gone_at", UtcDateTime),
    created_at(),
    Column("started_at", UtcDateTime),
    UniqueConstraint("file_id", "rse_id"),
    Index("ix_deletions_rse_id_not_before", "rse_id", "not_before"),
)
"""A row for each replica that is BEING_DELETED."""

deletion_history = Table(
    "deletion_history",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at", UtcDateTime, nullable=False, default=now()),
    Column("deletion_id", BigId, nullable=False),
    Column("file_id", BigId, nullable=False),
    Column("rse_id", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("cause", words(DeletionCause, "cause"), nullable=False),
    Column("state", words(DeletionOutcome, "state"), nullable=False),
    Column("proof_rse_id", Integer),
    Column("proof_at", UtcDateTime),
    Column("attempt", Integer, nullable=False),
    Column("owner", Text),
    # wall time of the request, seconds
    Column("seconds", Float),
    Column("code", String(64)),
    Column("reason", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Index("ix_deletion_history_file_id_at", "file_id", "at"),
)

deletion_totals = Table(
    "deletion_totals",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("outcome", String(16), primary_key=True),
    # empty where nothing has gone wrong
    Column("code", String(64), primary_key=True),
    Column("files", BigInteger, nullable=False),
    # that were freed
    Column("bytes", BigInteger, nullable=False),
    # wall time of the requests to the storage, added up, seconds
    Column("seconds", Float, nullable=False),
)
"""Attempts that have ended, since the beginning: written with each batch, and never taken back."""

rse_deletions = Table(
    "rse_deletions",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    # why and until when nothing is deleted there; and after how many failures in a row
    Column("not_before", UtcDateTime),
    Column("failures", Integer, nullable=False, default=0),
    Column("code", String(64)),
    Column("reason", Text),
    # what the pace allows is used up until then
    Column("paced_until", UtcDateTime),
    # raised here and in the mark on the storage once a minute: a catalogue that was restored is behind
    Column("epoch", BigInteger, nullable=False, default=0),
    Column("marked_at", UtcDateTime),
    # somebody has said that the mark on the storage may be replaced
    Column("take_over", Boolean, nullable=False, default=False),
    updated_at(),
)
"""How deletion stands with an RSE; its row is held by whoever claims there, so that nobody frees the same space twice."""

deletion_passes = Table(
    "deletion_passes",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", words(DeletionPass, "kind"), primary_key=True),
    # where it has come to; empty at its beginning
    Column("after_at", UtcDateTime),
    Column("after_file_id", BigInteger),
    # replicas that it has looked at
    Column("seen", BigInteger, nullable=False, default=0),
    Column("not_before", UtcDateTime),
)
"""Passes through the replicas of an RSE that may go: what has to stay is not looked at again for each batch."""

stops = Table(
    "stops",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("reason", Text),
    Column("account_id", ForeignKey("accounts.id")),
    created_at(),
)
"""What somebody has stopped, everywhere, until somebody lets it go on."""

installation = Table(
    "installation",
    metadata,
    Column("id", Uuid, primary_key=True),
    created_at(),
)
"""One row: which Arriero this is, for marks that it leaves outside of its database."""
