"""The files and replicas that one claim of deletions holds, and what it chooses among them.

They are tables of the transaction, so that a claim takes as many statements for a thousand replicas as for one.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    exists,
    func,
    insert,
    or_,
    select,
)

from arriero.registry.dialect import among, id_rows, use_temporary_table
from arriero.registry.schema.tables import dids, replicas
from arriero.registry.states import ReplicaState
from arriero.registry.store import deletion_guards as guards
from arriero.registry.store.deletion_guards import Place

_metadata = MetaData()

reap_held = Table(
    "reap_held",
    _metadata,
    Column("file_id", BigInteger, primary_key=True, autoincrement=False),
    Column("rse_id", Integer, primary_key=True, autoincrement=False),
    prefixes=["TEMPORARY"],
)
"""Replicas of the files of this claim whose rows are held."""

reap_chosen = Table(
    "reap_chosen",
    _metadata,
    Column("file_id", BigInteger, primary_key=True, autoincrement=False),
    Column("bytes", BigInteger, nullable=False),
    Column("cause", String(24), nullable=False),
    Column("was", String(24), nullable=False),
    Column("proof_rse_id", Integer),
    Column("needs_no_proof", Boolean, nullable=False),
    prefixes=["TEMPORARY"],
)
"""Files whose replicas at the RSE are to go, each with its proof."""

CHOSEN = select(reap_chosen.c.file_id)
"""Query for them."""

MAY_GO = or_(reap_chosen.c.proof_rse_id.is_not(None), reap_chosen.c.needs_no_proof)
"""Condition that one of them may go: there is a proof, or it needs none."""


def hold(connection: Connection, file_ids: Sequence[int], states: Sequence[ReplicaState]) -> list[int]:
    """Hold files, then their replicas in some states, but those that others hold; give the files."""
    use_temporary_table(connection, reap_held, reap_chosen)
    files = (
        select(dids.c.id)
        .where(among(connection, dids.c.id, id_rows(connection, file_ids)))
        .order_by(dids.c.id)
        .with_for_update(of=dids, key_share=True, skip_locked=True)
    )
    held = list(connection.scalars(files).all())
    if held:
        rows = (
            select(replicas.c.file_id, replicas.c.rse_id)
            .where(
                among(connection, replicas.c.file_id, id_rows(connection, held)), replicas.c.state.in_(states)
            )
            .order_by(replicas.c.file_id, replicas.c.rse_id)
            .with_for_update(of=replicas, skip_locked=True)
        )
        connection.execute(insert(reap_held).from_select(["file_id", "rse_id"], rows))
    return held


def held_at(connection: Connection, place: Place, file_ids: Sequence[int]) -> tuple[ColumnElement[bool], ...]:
    """Conditions for the replicas of files at the RSE that are held."""
    is_held = exists().where(
        reap_held.c.file_id == replicas.c.file_id, reap_held.c.rse_id == replicas.c.rse_id
    )
    return (
        among(connection, replicas.c.file_id, id_rows(connection, file_ids)),
        replicas.c.rse_id == place.rse_id,
        is_held,
    )


@lru_cache(maxsize=128)
def proof(place: Place) -> Any:
    """The RSE of a replica that proves that this one may go, and that is held."""
    another = replicas.alias("proof")
    is_held = exists().where(reap_held.c.file_id == another.c.file_id, reap_held.c.rse_id == another.c.rse_id)
    return (
        select(func.min(another.c.rse_id))
        .where(*guards.proves(another, place), is_held)
        .correlate(replicas)
        .scalar_subquery()
    )


def proof_verified_at() -> Any:
    """When the proof of what is chosen was verified."""
    return (
        select(replicas.c.verified_at)
        .where(replicas.c.file_id == reap_chosen.c.file_id, replicas.c.rse_id == reap_chosen.c.proof_rse_id)
        .correlate_except(replicas)
        .scalar_subquery()
    )


def choose(connection: Connection, rows: Select[Any]) -> None:
    """Note what goes: file, bytes, cause, state, RSE of the proof, and whether it needs none."""
    columns = ["file_id", "bytes", "cause", "was", "proof_rse_id", "needs_no_proof"]
    connection.execute(insert(reap_chosen).from_select(columns, rows))
