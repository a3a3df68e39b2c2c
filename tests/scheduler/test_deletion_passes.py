"""Passes through what may go: looked at once and not again for each batch, by indexes and not table by table."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import event, select, text, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import deletion_passes, replicas, rse_limits
from arriero.registry.store.deletion_terms import due_rses
from arriero.scheduler.deletion_claim import claim_deletions
from support.deletions import Storages


@pytest.fixture
def storages(catalogue, tmp_path):
    return Storages(catalogue, tmp_path)


@pytest.fixture
def pair(storages):
    return storages.rse("SLAC"), storages.rse("IN2P3")


def bury(storages, ids, rse_id: int, *, purge: bool) -> None:
    """Give many replicas a tombstone, in the order of their ids."""
    with storages.database.transaction() as tx:
        here = (replicas.c.rse_id == rse_id, replicas.c.file_id.in_(ids))
        tx.execute(
            update(replicas).where(*here).values(tombstone=after(-60.0), purge=True if purge else None)
        )


def claim(storages, rse_id: int, limit: int = 10):
    with storages.database.transaction() as tx:
        return claim_deletions(tx, rse_id, "w", limit=limit, most=1000, lease_s=60.0).deletions


def passes(storages, rse_id: int):
    rows = storages.catalogue.rows(select(deletion_passes).where(deletion_passes.c.rse_id == rse_id))
    return {row.kind: row for row in rows}


def test_what_has_to_stay_is_looked_at_once_in_a_pass(storages, pair):
    """Last copies that were purged, a thousand times as many as may go: the pass goes on from batch to batch, then rests."""
    slac, in2p3 = pair
    stays = storages.catalogue.files(3000, prefix="last", at=[slac])
    bury(storages, stays, slac, purge=True)
    goes = storages.catalogue.files(3, prefix="zz", at=pair)
    with storages.database.transaction() as tx:
        tx.execute(update(replicas).where(replicas.c.rse_id == in2p3).values(verified_at=after(-60.0)))
    bury(storages, goes, slac, purge=True)
    seen = []
    for _ in range(100):
        taken = claim(storages, slac, limit=100)
        seen.append(passes(storages, slac)["at_once"].after_file_id)
        if taken:
            break
    assert sorted(one.file_id for one in taken) == goes
    assert seen[:3] == [stays[799], stays[1599], stays[2399]], "eight windows at a time"
    row = passes(storages, slac)["at_once"]
    assert (row.after_file_id, row.seen) == (None, 0)
    with storages.database.snapshot() as connection:
        assert due_rses(connection) == [], "it rests after three thousand that had to stay"
    with storages.database.transaction() as tx:
        tx.execute(update(deletion_passes).values(not_before=after(-1.0)))
    with storages.database.snapshot() as connection:
        assert [terms.name for terms in due_rses(connection)] == ["SLAC"]


def test_what_is_not_needed_is_looked_at_from_there_the_next_time(storages, pair):
    slac, in2p3 = pair
    ids = storages.files(20, at=pair, verified=[in2p3])
    storages.let_go(ids, slac)
    storages.measure(slac, free=0, keep=250)
    assert [one.file_id for one in claim(storages, slac)] == ids[:3]
    assert passes(storages, slac)["when_needed"].after_file_id == ids[2]
    # what is claimed counts as gone: nobody frees the same space twice
    assert not claim(storages, slac)
    with storages.database.transaction() as tx:
        tx.execute(update(rse_limits).values(value=450))
    assert [one.file_id for one in claim(storages, slac)] == ids[3:5]


def plans_of(storages, rse_id: int) -> str:
    """How PostgreSQL does what a claim asks of large tables."""
    plans: list[str] = []
    asking = False

    def explain(connection, _cursor, statement, parameters, _context, _many) -> None:
        nonlocal asking
        if asking or not re.search(r"\b(replicas|dids|locks)\b", statement) or "CREATE TEMP" in statement:
            return
        asking = True
        with connection.connection.driver_connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(row[0] for row in cursor.fetchall()))
        asking = False

    event.listen(storages.database.engine, "before_cursor_execute", explain)
    try:
        assert len(claim(storages, rse_id, limit=100)) == 100
    finally:
        event.remove(storages.database.engine, "before_cursor_execute", explain)
    return "\n".join(plans)


@pytest.mark.parametrize("database_kind", ["postgresql"])
@pytest.mark.parametrize("purge", [True, False], ids=["at once", "when needed"])
def test_a_claim_reads_no_table_from_end_to_end(storages, pair, purge):
    slac, in2p3 = pair
    files = storages.catalogue.files(20_000, at=pair)
    with storages.database.transaction() as tx:
        tx.execute(update(replicas).where(replicas.c.rse_id == in2p3).values(verified_at=after(-60.0)))
    bury(storages, files, slac, purge=purge)
    storages.measure(slac, free=0, keep=10**9)
    with storages.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))
    plan = plans_of(storages, slac)
    assert "ix_replicas_at_once" in plan or "ix_replicas_tombstone" in plan
    for table in ("replicas", "dids"):
        assert not re.search(rf"Seq Scan on {table}\b", plan), plan
    assert "hashed SubPlan" not in plan, plan
