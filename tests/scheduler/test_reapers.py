"""Workers that delete, in processes of their own: two at once, killed at random, and killed at every step."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from sqlalchemy import func, insert, select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import bad_replicas, deletion_history, deletions, replicas, rse_usage
from arriero.registry.states import BadReplicaState, DeletionOutcome, ReplicaState
from support.database import migrated_database
from support.deletions import Storages
from support.reapers import SLEEPS, STEPS, is_asleep, start_reaper, wait_until
from support.scheduling import Catalogue
from support.services import drop_database

FILES = 10_000


@pytest.fixture
def storages(services, tmp_path):
    url = migrated_database(services, "postgresql", tmp_path)
    made = Catalogue(url)
    yield Storages(made, tmp_path)
    made.close()
    drop_database(services, url)


def purged_everywhere(storages, count: int) -> tuple[tuple[int, int], list[int]]:
    """Files at two RSEs, verified at both, which nobody holds at either."""
    pair = storages.rse("SLAC"), storages.rse("IN2P3")
    ids = storages.files(count, at=pair, verified=pair, size=10)
    with storages.database.transaction() as tx:
        tx.execute(update(replicas).values(tombstone=after(-60.0), purge=True))
    return pair, ids


def assert_one_copy_of_each(storages, pair, ids) -> None:
    """What the catalogue has is on the disks, and nothing else is; one copy of each file, whose bytes are right."""
    left = [set(storages.names(rse_id)) for rse_id in pair]
    assert not left[0] & left[1], "a file has two copies, and nobody holds them"
    assert len(left[0] | left[1]) == len(ids), "a file has no copy left"
    for rse_id, names in zip(pair, left, strict=True):
        assert len(storages.states(rse_id)) == len(names)
        assert set(storages.states(rse_id).values()) <= {"AVAILABLE"}
    assert set(storages.copies().values()) == {1}
    storages.catalogue.check_invariants()


@pytest.mark.timeout(240)
def test_two_reapers_leave_one_copy_of_each_file_and_delete_nothing_twice(storages):
    pair, ids = purged_everywhere(storages, FILES)
    settings = {"deletion_batch": 300, "deletion_threads": 4}
    reapers = [start_reaper(storages.catalogue.url, settings) for _ in range(2)]
    for reaper in reapers:
        reaper.join(180)
        assert reaper.exitcode == 0
    # what both held at one moment is left to the next
    storages.run()
    assert_one_copy_of_each(storages, pair, ids)
    rows = storages.catalogue.rows(
        select(deletion_history.c.state, deletion_history.c.owner, func.count().label("count")).group_by(
            deletion_history.c.state, deletion_history.c.owner
        )
    )
    assert {row.state for row in rows} == {DeletionOutcome.DONE}
    assert sum(row.count for row in rows) == FILES
    assert len([row for row in rows if row.count > FILES / 20]) >= 2, "one of them has done it all"
    twice = select(deletion_history.c.file_id).group_by(deletion_history.c.file_id).having(func.count() > 1)
    assert storages.catalogue.rows(twice) == []


@pytest.mark.timeout(240)
def test_reapers_that_are_killed_at_random_lose_nothing(storages):
    pair, ids = purged_everywhere(storages, 1200)
    settings = {
        "deletion_batch": 100,
        "deletion_threads": 2,
        "deletion_lease_s": 1.0,
        "deletion_grave_s": 0.5,
    }
    settings |= {"deletion_backoff_s": 0.1, "deletion_backoff_max_s": 0.5}
    dice = random.Random(7)
    reapers = [start_reaper(storages.catalogue.url, settings, seconds=120) for _ in range(3)]
    killed = 0
    until = time.monotonic() + 120
    while True:
        done = storages.catalogue.count(deletion_history)
        if done >= len(ids):
            break
        assert time.monotonic() < until, f"{done} of {len(ids)} deletions after 2 minutes"
        time.sleep(dice.uniform(0.05, 0.5))
        if killed < 12:
            victim = dice.randrange(3)
            reapers[victim].kill()
            reapers[victim].join()
            reapers[victim] = start_reaper(storages.catalogue.url, settings, seconds=120)
            killed += 1
    for reaper in reapers:
        reaper.kill()
        reaper.join()
    assert killed >= 3
    assert storages.catalogue.count(deletions) == 0
    assert_one_copy_of_each(storages, pair, ids)


@pytest.mark.parametrize("step", STEPS)
def test_a_reaper_that_dies_at_a_step_leaves_what_the_next_one_ends(storages, step):
    pair = storages.rse("SLAC"), storages.rse("IN2P3")
    slac, in2p3 = pair
    ids = storages.files(10, at=pair, verified=[in2p3])
    storages.let_go(ids, slac, purge=True)
    storages.measure(slac, free=0, keep=5000)
    settings = {"deletion_threads": 1, "deletion_grave_s": 0.0}
    reaper = start_reaper(storages.catalogue.url, settings, step=step)
    reaper.join(60)
    assert reaper.exitcode == -9, "it did not come to that step"
    # nothing is lost at any moment
    assert len(storages.names(in2p3)) == 10
    storages.outlive()
    storages.sweep()
    storages.wake()
    storages.run()
    assert storages.names(slac) == []
    assert storages.states(slac) == {}
    assert storages.queue() == []
    told = storages.history()
    assert sorted(row.file_id for row in told) == ids
    # what was removed by the one that died was freed, too: not a byte more goes than is needed
    assert [row.freed for row in storages.catalogue.rows(select(rse_usage))] == [1000]
    storages.catalogue.check_invariants()


@pytest.mark.parametrize("step", SLEEPS)
def test_what_a_reaper_that_was_stopped_for_long_does_when_it_wakes(storages, step):
    pair = storages.rse("SLAC"), storages.rse("IN2P3")
    slac, in2p3 = pair
    ids = storages.files(10, at=pair, verified=[in2p3])
    storages.let_go(ids, slac, purge=True)
    settings = {"deletion_threads": 1, "deletion_lease_s": 3.0, "deletion_grave_s": 0.0}
    reaper = start_reaper(storages.catalogue.url, settings, step=step)
    wait_until(lambda: is_asleep(reaper), "it did not come to that step")
    wait_until(lambda: storages.sweep() > 0, "its lease does not run out")
    storages.wake()
    storages.run()
    assert storages.states(slac) == {}
    assert storages.names(slac) == []
    names = storages.names(in2p3)
    for name in names:
        storages.write(slac, name, b"made again")
    made_again = {"rse_id": slac, "state": ReplicaState.AVAILABLE, "bytes": 100}
    with storages.database.transaction() as tx:
        tx.execute(insert(replicas), [{"file_id": one, **made_again} for one in ids])
    os.kill(reaper.pid, signal.SIGCONT)
    reaper.join(60)
    assert reaper.exitcode == 0
    assert sorted(row.file_id for row in storages.history()) == ids
    assert len({row.owner for row in storages.history()}) == 1, "it was believed"
    # no storage has fences: a request that was on its way hits what is there now, and it is known which
    hit = 0 if step.endswith("whether it may") else 1
    assert names[2 : 2 + hit] == sorted(set(names) - set(storages.names(slac)))
    # where it has removed something, now or before it slept, nobody relies on what is there until it has been read
    said = storages.catalogue.rows(select(bad_replicas).order_by(bad_replicas.c.file_id))
    assert [row.file_id for row in said] == ids[: 2 + hit]
    assert {row.state for row in said} == {BadReplicaState.SUSPICIOUS}
    storages.catalogue.check_invariants()
