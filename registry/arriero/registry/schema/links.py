"""Links between RSEs, the health of RSEs, and copies that are made on the way to another RSE."""

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Integer, String, Table, Text

from arriero.registry.schema.base import BigId, Json, UtcDateTime, created_at, metadata, updated_at, words
from arriero.registry.states import BreakerState

links = Table(
    "links",
    metadata,
    Column("source_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("destination_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    # copies at once
    Column("slots", Integer, nullable=False),
    # since the last decision
    Column("done", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("bytes", BigInteger, nullable=False, default=0),
    # wall time of these copies, added up, seconds
    Column("seconds", Float, nullable=False, default=0.0),
    Column("since", UtcDateTime, nullable=False),
    # moving averages of the windows before: bytes a second of the whole link, seconds a copy, share that succeeded
    Column("throughput", Float),
    Column("duration", Float),
    Column("success", Float),
    # the last decision about the slots, and why
    Column("decided_at", UtcDateTime),
    Column("decision", Text),
    # how the last copy went that succeeded, and how the last one failed
    Column("mode", String(32)),
    Column("mode_reason", Text),
    Column("code", String(64)),
    Column("reason", Text),
    Column("failed_at", UtcDateTime),
    updated_at(),
)

link_totals = Table(
    "link_totals",
    metadata,
    Column("source_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("destination_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    # empty: of the copies that succeeded
    Column("code", String(64), primary_key=True),
    Column("copies", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    # wall time of these copies, added up, seconds
    Column("seconds", Float, nullable=False),
)
"""Attempts that have ended, since the beginning: written with each batch, and never taken back."""

rse_abilities = Table(
    "rse_abilities",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    # `scheme://host:port` as on the wire
    Column("origin", String(300), primary_key=True),
    # `arriero.rse.abilities.Abilities.as_dict`
    Column("abilities", Json, nullable=False),
    Column("probed_at", UtcDateTime, nullable=False),
)
"""What storages were found to be able to do, by trial."""

rse_health = Table(
    "rse_health",
    metadata,
    Column("rse_id", ForeignKey("rses.id", ondelete="CASCADE"), primary_key=True),
    Column("breaker", words(BreakerState, "breaker"), nullable=False),
    # failures in a row that the RSE itself is to blame for
    Column("failures", Integer, nullable=False, default=0),
    Column("opened_at", UtcDateTime),
    # when one copy is let through again, to see
    Column("retry_at", UtcDateTime),
    Column("code", String(64)),
    Column("reason", Text),
    updated_at(),
)

hops = Table(
    "hops",
    metadata,
    Column("file_id", BigId, primary_key=True, autoincrement=False),
    # where it stops on its way, and where it is wanted
    Column("rse_id", Integer, primary_key=True, autoincrement=False),
    Column("destination_id", Integer, nullable=False),
    created_at(),
)
"""Copies that no rule asks for, while they are made: another RSE is reached through theirs."""
