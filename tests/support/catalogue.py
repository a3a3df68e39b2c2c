"""Puts things into a catalogue directly, for tests whose subject is something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import insert, select

from arriero.registry.database import Database
from arriero.registry.schema.tables import (
    accounts,
    did_meta,
    dids,
    replicas,
    rse_attributes,
    rse_protocols,
    rses,
    scopes,
)
from arriero.registry.states import DidType, ReplicaState

EVERYTHING = {"lan": {"read": 1, "write": 1, "delete": 1}, "wan": {"read": 1, "write": 1, "delete": 1}}


def add_scope(database: Database, name: str) -> None:
    """Add a scope that belongs to root."""
    with database.transaction() as connection:
        root = connection.scalar(select(accounts.c.id).where(accounts.c.name == "root"))
        connection.execute(insert(scopes).values(name=name, account_id=root))


def add_rse(database: Database, name: str, *, prefix: str = "/raw", algorithm: str = "lsst_butler") -> int:
    """Add an RSE with one davs protocol."""
    with database.transaction() as connection:
        rse_id = connection.scalar(insert(rses).values(name=name).returning(rses.c.id))
        assert rse_id is not None
        connection.execute(
            insert(rse_attributes).values(rse_id=rse_id, key="lfn2pfn_algorithm", value=algorithm)
        )
        connection.execute(
            insert(rse_protocols).values(
                rse_id=rse_id,
                scheme="davs",
                hostname="dav.example.org",
                port=1094,
                prefix=prefix,
                domains=EVERYTHING,
            )
        )
    return rse_id


def add_files(
    database: Database,
    rse_id: int,
    names: Iterable[str],
    *,
    scope: str = "raw",
    state: ReplicaState = ReplicaState.AVAILABLE,
    meta: Mapping[str, object] | None = None,
) -> list[int]:
    """Add files with a replica each; no arrivals are recorded."""
    ids = []
    with database.transaction() as connection:
        root = connection.scalar(select(accounts.c.id).where(accounts.c.name == "root"))
        scope_id = connection.scalar(select(scopes.c.id).where(scopes.c.name == scope))
        for name in names:
            file_id = connection.scalar(
                insert(dids)
                .values(
                    scope_id=scope_id,
                    name=name,
                    type=DidType.FILE,
                    account_id=root,
                    bytes=2880,
                    adler32="0a1b2c3d",
                    spread=0,
                )
                .returning(dids.c.id)
            )
            connection.execute(
                insert(replicas).values(file_id=file_id, rse_id=rse_id, bytes=2880, state=state)
            )
            if meta:
                connection.execute(insert(did_meta).values(did_id=file_id, meta=dict(meta)))
            ids.append(int(file_id))
    return ids
