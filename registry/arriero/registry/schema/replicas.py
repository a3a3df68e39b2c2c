"""Replicas: where each file is, and what is known about it there."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text

from arriero.registry.schema.base import BigId, UtcDateTime, created_at, metadata, updated_at, words
from arriero.registry.states import ReplicaState

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
    created_at(),
    updated_at(),
    Index("ix_replicas_rse_id", "rse_id", "file_id"),
    Index("uq_replicas_rse_id_path", "rse_id", "path", unique=True),
)
