"""Deletions in trouble: storages that fail, workers that hang, stops, proofs that vanish, rules and Butlers that come meanwhile."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import insert, select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    deletions,
    replicas,
    rses,
    stops,
)
from arriero.registry.states import (
    DeletionOutcome,
    RuleState,
)
from arriero.scheduler.deletion_reports import Outcome, Report
from arriero.scheduler.deletion_run import DeletionRunner
from arriero.scheduler.deletion_settle import settle_deletions
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.transfer import TransferRunner
from support.deletions import Gate, Storages, claim, in_thread
from support.scheduling import locks


@pytest.fixture
def storages(catalogue, tmp_path):
    return Storages(catalogue, tmp_path)


@pytest.fixture
def pair(storages):
    """Two RSEs; what is verified at the second may go from the first."""
    return storages.rse("SLAC"), storages.rse("IN2P3")


def going(storages, pair, count: int = 1) -> list[int]:
    """Files whose replicas at the first RSE may go."""
    ids = storages.files(count, at=pair, verified=pair[1:])
    storages.let_go(ids, pair[0], purge=True)
    return ids


def test_what_cannot_be_deleted_keeps_its_reason_and_is_tried_again(storages, pair):
    slac, _ = pair
    ids = going(storages, pair, 2)
    stubborn = storages.path(slac, "file-000000")
    stubborn.unlink()
    stubborn.mkdir()
    done = storages.run()
    assert (done.done, done.failed) == (1, 1)
    [row] = storages.queue()
    assert (row.file_id, row.code, row.attempt, row.lease_owner) == (ids[0], "unsupported", 1, None)
    assert "only files are removed" in row.reason
    assert storages.states(slac) == {ids[0]: "BEING_DELETED"}
    assert storages.catalogue.event_types().count("deletion-failed") == 1
    storages.wake()
    assert storages.run().failed == 1
    assert storages.queue()[0].attempt == 2
    storages.catalogue.check_invariants()
    stubborn.rmdir()
    storages.wake()
    assert storages.run().done == 1
    assert [(row.state, row.attempt) for row in storages.history()][-1] == (DeletionOutcome.NOT_FOUND, 3)


def test_a_storage_that_is_down_costs_no_attempt_and_holds_up_no_other(storages, pair):
    slac, in2p3 = pair
    other = storages.rse("LANCS")
    first = going(storages, pair)
    assert storages.run().done == 1, "its mark has just been looked at"
    ids = storages.files(40, at=pair, verified=[in2p3], prefix="many")
    storages.let_go(ids, slac, purge=True)
    more = storages.files(3, at=[other, in2p3], verified=[in2p3], prefix="other")
    storages.let_go(more, other, purge=True)
    storages.roots[slac].rename(storages.roots[slac].with_name("away"))
    done = storages.run(deletion_threads=4)
    assert done.done == 3
    assert storages.names(other) == []
    site = storages.site(slac)
    assert (site.failures, site.code) == (1, "unavailable")
    assert "mount or create it" in site.reason
    # what was not asked for is what it was; what was may be under way, and is not counted
    assert {row.attempt for row in storages.queue()} <= {0}
    assert len(storages.queue()) <= 4
    assert list(storages.states(slac).values()).count("AVAILABLE") >= 36
    assert storages.run().claimed == 0
    storages.wake()
    assert storages.run().claimed <= 1, "one is tried first"
    assert storages.site(slac).failures == 2
    storages.roots[slac].with_name("away").rename(storages.roots[slac])
    storages.wake()
    assert storages.run().done == 40
    assert storages.site(slac).failures == 0
    assert storages.states(slac) == {}
    assert {row.attempt for row in storages.history()} == {1}
    assert sorted(row.file_id for row in storages.history() if row.rse_id == slac) == first + ids


def test_a_stop_takes_effect_at_once_and_what_was_not_sent_is_what_it_was(storages, pair, monkeypatch):
    slac, _ = pair
    ids = going(storages, pair, 30)
    gate = Gate(monkeypatch)
    thread = in_thread(lambda: storages.run(deletion_threads=2))
    assert gate.reached.wait(20)
    with storages.database.transaction() as tx:
        tx.execute(insert(stops).values(name="deletions"))
    begun = time.monotonic()
    while any(state == "BEING_DELETED" for state in list(storages.states(slac).values())[2:]):
        assert time.monotonic() - begun < 5, "the stop does not work within 5 s"
        time.sleep(0.05)
    gate.opened.set()
    thread.join(20)
    assert not thread.is_alive()
    assert len(storages.states(slac)) == 28
    assert set(storages.states(slac).values()) == {"AVAILABLE"}
    assert storages.queue() == []
    assert storages.run().claimed == 0
    with storages.database.transaction() as tx:
        tx.execute(stops.delete())
    assert storages.run().done == 28
    assert storages.names(slac) == []
    assert len(storages.history()) == len(ids)
    storages.catalogue.check_invariants()


def test_a_worker_that_ends_gives_back_what_it_has_not_sent(storages, pair, monkeypatch):
    slac, _ = pair
    going(storages, pair, 20)
    gate = Gate(monkeypatch)
    stopping = threading.Event()
    runner = DeletionRunner(storages.context(deletion_threads=2), stopping=stopping.is_set)
    thread = in_thread(runner.run)
    assert gate.reached.wait(20)
    stopping.set()
    while list(storages.states(slac).values()).count("AVAILABLE") < 18:
        time.sleep(0.02)
    gate.opened.set()
    thread.join(20)
    assert not thread.is_alive()
    assert storages.queue() == []
    assert len(storages.states(slac)) == 18


def test_a_pause_of_the_rse_halts_it(storages, pair, monkeypatch):
    slac, _ = pair
    going(storages, pair, 20)
    gate = Gate(monkeypatch)
    thread = in_thread(lambda: storages.run(deletion_threads=2))
    assert gate.reached.wait(20)
    with storages.database.transaction() as tx:
        tx.execute(update(rses).where(rses.c.id == slac).values(availability_delete=False))
    while "AVAILABLE" not in storages.states(slac).values():
        time.sleep(0.02)
    gate.opened.set()
    thread.join(20)
    assert len(storages.states(slac)) >= 18


def test_a_replica_whose_proof_goes_before_it_is_sent_stays(storages, pair, monkeypatch):
    slac, in2p3 = pair
    [one] = going(storages, pair)
    gate = Gate(monkeypatch)
    # one thread has another file to wait for
    first = storages.files(1, at=pair, verified=[in2p3], prefix="aaa")
    storages.let_go(first, slac, purge=True)
    thread = in_thread(lambda: storages.run(deletion_threads=1))
    assert gate.reached.wait(20)
    waiting = [row.file_id for row in storages.queue()]
    assert sorted(waiting) == sorted([one, *first])
    sent = waiting[0]
    left = waiting[1]
    with storages.database.transaction() as tx:
        tx.execute(
            update(replicas).where(replicas.c.file_id == left, replicas.c.rse_id == in2p3).values(state="BAD")
        )
    while storages.states(slac)[left] != "AVAILABLE":
        time.sleep(0.02)
    gate.opened.set()
    thread.join(20)
    assert storages.states(slac) == {left: "AVAILABLE"}
    assert [row.file_id for row in storages.history()] == [sent]
    assert storages.run().claimed == 0


def fail_once(storages, pair, count: int = 1) -> list[int]:
    """Deletions that were tried and may have been done or not: the storage did not answer."""
    ids = going(storages, pair, count)
    taken = claim(storages, pair[0], "w")
    silent = [
        Report(one, Outcome.UNREACHABLE, "timed_out", "no answer", may_be_under_way=True) for one in taken
    ]
    assert settle_deletions(storages.context(), pair[0], "w", silent).failed == count
    return ids


def test_a_replica_whose_proof_has_gone_between_attempts_is_looked_at_and_kept(storages, pair):
    slac, in2p3 = pair
    right, spoilt, gone = fail_once(storages, pair, 3)
    storages.write(slac, "file-000001", b"x" * 100)
    storages.path(slac, "file-000002").unlink()
    storages.declare_bad([right, spoilt, gone], in2p3)
    with storages.database.transaction() as tx:
        # what is bad there may go as soon as the other copy is known to be right
        tx.execute(update(rses).where(rses.c.id == in2p3).values(availability_delete=False))
    storages.wake()
    done = storages.run()
    assert (done.done, done.released) == (1, 2)
    assert storages.states(slac) == {right: "AVAILABLE", spoilt: "UNAVAILABLE"}
    assert storages.names(slac) == ["file-000000", "file-000001"]
    kept = {row.file_id: row for row in storages.history()}
    assert kept[right].state is DeletionOutcome.KEPT
    assert "this one is right" in kept[right].reason
    assert kept[spoilt].state is DeletionOutcome.KEPT
    assert kept[gone].state is DeletionOutcome.NOT_FOUND
    [row] = storages.catalogue.rows(
        select(replicas).where(replicas.c.file_id == right, replicas.c.rse_id == slac)
    )
    assert row.verified_at is not None, "it was looked at, and is the proof now"
    [row] = storages.catalogue.rows(
        select(replicas).where(replicas.c.file_id == spoilt, replicas.c.rse_id == slac)
    )
    assert (row.code, row.verified_at) == ("source_mismatch", None)
    assert storages.queue() == []
    # what was kept is the proof now that the bad one may go
    with storages.database.transaction() as tx:
        tx.execute(update(rses).where(rses.c.id == in2p3).values(availability_delete=True))
    assert storages.run().done == 1
    assert storages.states(in2p3) == {spoilt: "BAD", gone: "BAD"}


def test_a_worker_whose_lease_ran_out_sends_nothing_and_is_not_believed(storages, pair):
    slac, _ = pair
    [one] = going(storages, pair)
    [first] = claim(storages, slac, "zombie")
    storages.outlive()
    assert storages.sweep() == 1
    storages.wake()
    [second] = claim(storages, slac, "heir")
    assert (second.id, second.fence, second.attempt) == (first.id, 2, 2)
    late = settle_deletions(storages.context(), slac, "zombie", [Report(first, Outcome.DONE)])
    assert (late.done, late.discarded) == (0, 1)
    assert storages.states(slac) == {one: "BEING_DELETED"}
    assert settle_deletions(storages.context(), slac, "heir", [Report(second, Outcome.NOT_FOUND)]).done == 1
    storages.catalogue.check_invariants()


def test_a_path_is_kept_free_while_a_request_may_still_be_on_its_way(storages, pair):
    """The zombie of reliability.md 2.4: its DELETE arrives when another has deleted the file, and before it is made again."""
    slac, in2p3 = pair
    catalogue = storages.catalogue
    [one] = going(storages, pair)
    claim(storages, slac, "zombie")
    storages.outlive()
    storages.sweep(deletion_grave_s=600.0)
    storages.wake()
    assert storages.run(deletion_grave_s=600.0).done == 1
    assert storages.names(slac) == []
    [row] = storages.queue()
    assert (row.code, row.gone_at is not None, row.lease_owner) == ("grave", True, None)
    # somebody wants the file there again: the rule waits, and says for what
    rule = catalogue.rule(one, "SLAC")
    Evaluator(catalogue.context).run()
    assert catalogue.rule_row(rule).state is RuleState.STUCK
    assert [row.code for row in catalogue.rows(select(locks))] == ["being_deleted"]
    storages.sweep()
    assert storages.states(slac) == {one: "BEING_DELETED"}
    catalogue.check_invariants()
    # and now the zombie's request arrives: there is nothing that it could hurt
    storages.path(slac, "file-000000").unlink(missing_ok=True)
    with storages.database.transaction() as tx:
        tx.execute(update(deletions).values(not_before=after(-1.0), grave_until=after(-1.0)))
    storages.sweep()
    assert storages.queue() == []
    assert [row.state for row in storages.history()] == [DeletionOutcome.DONE]
    Evaluator(catalogue.context).run()
    assert TransferRunner(storages.context()).run().done == 1
    assert catalogue.rule_row(rule).state is RuleState.OK
    assert storages.path(slac, "file-000000").read_bytes() == storages.path(in2p3, "file-000000").read_bytes()
    catalogue.check_invariants()
