"""Bytes that go: which, in what order, how much of it, and what stays. Real files, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import dids, events, replicas, rse_usage, rses
from arriero.registry.services.accesses import Access, record_accesses
from arriero.registry.services.metrics import measure
from arriero.registry.states import DeletionOutcome
from arriero.scheduler.deletion_claim import claim_deletions
from arriero.scheduler.deletion_reports import Outcome, Report
from arriero.scheduler.deletion_settle import settle_deletions
from support.database import counted_statements
from support.deletions import Storages


@pytest.fixture
def storages(catalogue, tmp_path):
    return Storages(catalogue, tmp_path)


@pytest.fixture
def pair(storages):
    """Two RSEs; what is verified at the second may go from the first."""
    return storages.rse("SLAC"), storages.rse("IN2P3")


def test_what_is_purged_goes_with_its_bytes_its_history_and_an_event(storages, pair):
    slac, in2p3 = pair
    ids = storages.files(3, at=pair, verified=[in2p3])
    storages.let_go(ids[:2], slac, purge=True)
    done = storages.run()
    assert (done.claimed, done.done, done.freed, done.failed) == (2, 2, 200, 0)
    assert storages.names(slac) == ["file-000002"]
    assert storages.names(in2p3) == ["file-000000", "file-000001", "file-000002"]
    assert storages.states(slac) == {ids[2]: "AVAILABLE"}
    assert storages.queue() == []
    told = storages.history()
    assert [(row.file_id, row.state, row.cause, row.attempt) for row in told] == [
        (one, DeletionOutcome.DONE, "purge", 1) for one in ids[:2]
    ]
    assert {(row.proof_rse_id, row.proof_at is not None) for row in told} == {(in2p3, True)}
    assert all(row.owner.startswith("delete@") for row in told)
    told = storages.catalogue.rows(select(events.c.payload).where(events.c.event_type == "deletion-done"))
    first = min((row.payload for row in told), key=lambda payload: payload["name"])
    assert {key: first[key] for key in ("scope", "name", "rse", "bytes", "protocol")} == {
        "scope": "raw",
        "name": "file-000000",
        "rse": "SLAC",
        "bytes": 100,
        "protocol": "file",
    }
    assert first["url"].endswith("/SLAC/raw/file-000000")
    counted = {family.name: dict(family.samples) for family in measure(storages.context())}
    assert counted["arriero_deletions_ended_total"] == {("SLAC", "done", ""): 2}
    assert counted["arriero_deleted_bytes_total"] == {("SLAC",): 200}
    assert counted["arriero_deletion_seconds_total"]["SLAC",] > 0
    storages.catalogue.check_invariants()
    assert storages.run().claimed == 0


def test_what_is_gone_already_counts_as_deleted(storages, pair):
    slac, in2p3 = pair
    ids = storages.files(1, at=pair, verified=[in2p3])
    storages.let_go(ids, slac, purge=True)
    storages.path(slac, "file-000000").unlink()
    done = storages.run()
    assert (done.done, done.freed) == (1, 0)
    assert [row.state for row in storages.history()] == [DeletionOutcome.NOT_FOUND]
    assert "deletion-not-found" in storages.catalogue.event_types()


def test_what_is_only_let_go_stays_until_space_is_needed(storages, pair):
    slac, in2p3 = pair
    ids = storages.files(10, at=pair, verified=[in2p3])
    storages.let_go(ids, slac)
    assert storages.run().claimed == 0
    storages.measure(slac, free=1000, keep=1000)
    assert storages.run().claimed == 0
    with storages.database.transaction() as tx:
        tx.execute(update(rse_usage).values(free=650))
    done = storages.run()
    # three make 300 bytes, which are too few; the oldest tombstones go first
    assert (done.done, done.freed) == (4, 400)
    assert sorted(storages.states(slac)) == ids[4:]
    [usage] = storages.catalogue.rows(select(rse_usage))
    assert (usage.free, usage.freed) == (650, 400)
    # what was freed since the measurement counts, and nothing more goes
    assert storages.run().claimed == 0
    storages.catalogue.check_invariants()


def test_what_is_read_moves_to_the_end(storages, pair):
    slac, in2p3 = pair
    ids = storages.files(3, at=pair, verified=[in2p3])
    storages.let_go(ids, slac)
    record_accesses(storages.context(), [Access("raw", "file-000000", "SLAC")])
    storages.measure(slac, free=0, keep=200)
    assert storages.run().done == 2
    assert sorted(storages.states(slac)) == [ids[0]]


def test_a_greedy_rse_keeps_nothing_that_nobody_holds(storages):
    slac, in2p3 = storages.rse("SLAC", greedyDeletion="True"), storages.rse("IN2P3")
    ids = storages.files(5, at=[slac, in2p3], verified=[in2p3])
    storages.let_go(ids[:4], slac)
    with storages.database.transaction() as tx:
        tx.execute(update(replicas).where(replicas.c.file_id == ids[3]).values(tombstone=after(600.0)))
    assert storages.run().done == 3
    assert sorted(storages.states(slac)) == ids[3:]


def test_what_is_purged_goes_before_what_is_needed_and_counts_for_it(storages, pair):
    slac, in2p3 = pair
    ids = storages.files(6, at=pair, verified=[in2p3])
    storages.let_go(ids[:4], slac, age_s=1000.0)
    storages.let_go(ids[4:], slac, purge=True)
    storages.measure(slac, free=0, keep=300)
    assert storages.run().done == 3
    assert sorted(storages.states(slac)) == ids[1:4]


def test_bad_and_expired_replicas_go_at_once_the_last_copies_of_expired_files_too(storages, pair):
    slac, in2p3 = pair
    bad = storages.files(2, at=pair, verified=[in2p3], prefix="bad")
    storages.declare_bad(bad[:1], slac)
    storages.declare_bad(bad[1:], in2p3)
    old = storages.files(1, at=[slac], prefix="old")
    storages.let_go(old, slac, purge=True)
    with storages.database.transaction() as tx:
        tx.execute(update(dids).where(dids.c.id.in_(old)).values(expired_at=after(-60.0)))
    assert storages.run().done == 2
    assert {row.file_id: row.cause for row in storages.history()} == {bad[0]: "bad", old[0]: "expired"}
    # the bad one at IN2P3 is the only one beside a copy that nobody has verified
    assert storages.states(in2p3) == {bad[0]: "AVAILABLE", bad[1]: "BAD"}
    assert storages.states(slac) == {bad[1]: "AVAILABLE"}


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_the_last_copy_stays_whatever_is_asked(storages, pair, batch):
    """Files at both RSEs, all of them purged at both: one copy of each stays, and it is a verified one."""
    ids = storages.files(12, at=pair, verified=pair)
    for rse_id in pair:
        storages.let_go(ids, rse_id, purge=True)
    done = storages.run(deletion_batch=batch)
    assert done.done == 12
    assert set(storages.copies().values()) == {1}
    left = [storages.names(rse_id) for rse_id in pair]
    assert len(left[0]) + len(left[1]) == 12
    assert not set(left[0]) & set(left[1])
    storages.catalogue.check_invariants()


def test_a_paused_rse_is_left_alone(storages, pair):
    slac, in2p3 = pair
    ids = storages.files(2, at=pair, verified=[in2p3])
    storages.let_go(ids, slac, purge=True)
    with storages.database.transaction() as tx:
        tx.execute(update(rses).where(rses.c.id == slac).values(availability_delete=False))
    assert storages.run().claimed == 0
    with storages.database.transaction() as tx:
        tx.execute(update(rses).values(availability_delete=True))
    assert storages.run().done == 2


def test_a_proof_has_to_be_on_another_storage_and_one_that_keeps_things(storages, pair):
    slac, in2p3 = pair
    cache = storages.rse("CACHE")
    same = storages._add(
        "ALIAS",
        storages.roots[slac],
        {"scheme": "file", "hostname": "", "port": 0, "prefix": str(storages.roots[slac])},
        {},
    )
    with storages.database.transaction() as tx:
        tx.execute(update(rses).where(rses.c.id == cache).values(volatile=True))
    ids = storages.files(3, at=[slac], prefix="file")
    for rse_id in (cache, same):
        storages.catalogue.replicas(ids, rse_id, size=100)
    with storages.database.transaction() as tx:
        tx.execute(update(replicas).values(verified_at=after(-60.0)))
    storages.let_go(ids, slac, purge=True)
    assert storages.run().claimed == 0
    storages.catalogue.replicas(ids[:1], in2p3, size=100)
    with storages.database.transaction() as tx:
        tx.execute(update(replicas).values(verified_at=after(-60.0)))
    assert storages.run().done == 1
    assert storages.names(slac) == ["file-000001", "file-000002"]


def test_as_many_statements_for_two_as_for_many(storages, pair):
    slac, in2p3 = pair
    context = storages.context()
    counts = []
    for number in (1, 2, 40):
        ids = storages.files(number, at=pair, verified=[in2p3], prefix=f"of-{number}")
        storages.let_go(ids, slac, purge=True)
        with counted_statements(storages.database) as statements:
            with storages.database.transaction() as tx:
                claim = claim_deletions(tx, slac, "w", limit=1000, most=1000, lease_s=60.0)
            reports = [Report(one, Outcome.DONE) for one in claim.deletions]
            assert settle_deletions(context, slac, "w", reports).done == number
        counts.append(len(statements))
    # the first claim at an RSE makes its row
    assert counts[1] == counts[2] < 60
