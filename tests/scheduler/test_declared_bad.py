"""A replica that is declared bad under a rule: stopped at once, looked at, and OK again when a good copy is there."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, select, text, update

from arriero.registry.schema.tables import bad_replicas, lost_files
from arriero.registry.services.bad_replicas import Declaration, Named, declare
from arriero.registry.services.context import Actor
from arriero.registry.services.losses import accept_losses, sweep_losses
from arriero.registry.services.replicas import NewReplica, add_replicas
from arriero.registry.states import BadReplicaState, LockState, ReplicaState, Role, RuleState
from arriero.scheduler.claim import ClaimedRequest, claim_requests
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.plan import plan_copies
from arriero.scheduler.reports import Report, Transfer, failure, success
from arriero.scheduler.rse_catalogue import load_rses
from arriero.scheduler.settle import settle
from arriero.scheduler.traffic import Traffic
from support.database import migrated_database
from support.scheduling import Catalogue, evaluations, locks, replicas, requests, rules
from support.services import drop_database

BAD = Declaration(BadReplicaState.BAD, "truncated")


def evaluate(catalogue) -> None:
    Evaluator(catalogue.context).run()


@pytest.fixture
def root(catalogue) -> Actor:
    return Actor(catalogue.account_id, "root", Role.ADMIN)


def name_of(number: int) -> str:
    return f"file-{number:06d}"


def test_a_bad_replica_under_a_rule(catalogue, root):
    slac = catalogue.rse("SLAC", attributes={"lfn2pfn_algorithm": "identity"})
    files = catalogue.files(4, at=[slac])
    rule = catalogue.rule(catalogue.collection("night", children=files), "SLAC")
    evaluate(catalogue)
    assert catalogue.rule_row(rule).state == RuleState.OK
    assert declare(catalogue.context, root, [Named("raw", name_of(0), "SLAC")], BAD) == {}
    row = catalogue.rule_row(rule)
    assert (row.state, row.code, row.locks_ok, row.locks_stuck) == (RuleState.STUCK, "lost", 3, 1)
    catalogue.check_invariants()
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.code, row.locks_ok, row.locks_stuck) == (RuleState.STUCK, "lost", 3, 1)
    assert row.reason == "1 locks: no good copy of it is known: bad at SLAC (truncated)"
    catalogue.check_invariants()
    good = NewReplica("raw", name_of(0), 1000, "0a0b0c0d")
    add_replicas(catalogue.context, root, "SLAC", [good])
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_ok, row.locks_stuck) == (RuleState.OK, 4, 0)
    assert catalogue.one(select(bad_replicas.c.state)).state == BadReplicaState.RECOVERED
    catalogue.check_invariants()


@pytest.mark.parametrize("state", [RuleState.SUSPENDED, RuleState.WAITING_APPROVAL])
def test_a_rule_that_sleeps_is_told_of_a_bad_replica_and_goes_on_sleeping(catalogue, root, state):
    slac = catalogue.rse("SLAC", attributes={"lfn2pfn_algorithm": "identity"})
    catalogue.rse("IN2P3")
    night = catalogue.collection("night", children=catalogue.files(2, at=[slac]))
    rule = catalogue.rule(night, "SLAC|IN2P3", copies=1)
    evaluate(catalogue)
    with catalogue.database.transaction() as tx:
        tx.execute(update(rules).values(state=state))
    declare(catalogue.context, root, [Named("raw", name_of(0), "SLAC")], BAD)
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.code, row.locks_ok, row.locks_stuck) == (state, None, 1, 1)
    assert (catalogue.count(evaluations), catalogue.count(requests)) == (0, 0)
    catalogue.check_invariants()


@pytest.fixture
def mirrored(catalogue, root):
    """Four files at SLAC and, by a rule that is OK, at IN2P3; the first is declared bad at IN2P3."""

    class Mirrored:
        slac = catalogue.rse("SLAC", attributes={"lfn2pfn_algorithm": "identity"})
        in2p3 = catalogue.rse("IN2P3", attributes={"lfn2pfn_algorithm": "identity"})
        files = catalogue.files(4, at=[slac, in2p3])
        rule = catalogue.rule(catalogue.collection("night", children=files), "IN2P3")

        def bad(self, *rses: str) -> None:
            for rse in rses:
                assert declare(catalogue.context, root, [Named("raw", name_of(0), rse)], BAD) == {}

        def claimed(self) -> list[ClaimedRequest]:
            return catalogue.database.run(lambda tx: claim_requests(tx, "w", limit=10, lease_s=60))

        def settle(self, *reports: Report) -> None:
            settle(catalogue.database, reports, stuck_retry_s=7200)
            catalogue.check_invariants()

        def state(self) -> tuple[str, str | None, int, int, int]:
            row = catalogue.rule_row(self.rule)
            return row.state, row.code, row.locks_ok, row.locks_replicating, row.locks_stuck

    evaluate(catalogue)
    made = Mirrored()
    made.bad("IN2P3")
    return made


def test_a_bad_replica_is_replaced_from_a_good_one(catalogue, mirrored):
    evaluate(catalogue)
    catalogue.check_invariants()
    assert mirrored.state() == (RuleState.REPLICATING, None, 3, 1, 0)
    [request] = mirrored.claimed()
    assert (request.file_id, request.destination_id) == (mirrored.files[0], mirrored.in2p3)
    with catalogue.database.snapshot() as connection:
        [planned], unplanned = plan_copies(connection, [request], Traffic(load_rses(connection)), {})
    assert not unplanned
    assert (planned.source_id, planned.order.replaces_bad) == (mirrored.slac, True)
    mirrored.settle(success(request, Transfer("streamed", 1.0)))
    assert mirrored.state() == (RuleState.OK, None, 4, 0, 0)
    replica = catalogue.one(
        select(replicas).where(replicas.c.rse_id == mirrored.in2p3, replicas.c.file_id == mirrored.files[0])
    )
    assert replica.state == ReplicaState.AVAILABLE
    assert replica.verified_at is not None
    assert catalogue.one(select(bad_replicas.c.state)).state == BadReplicaState.RECOVERED


def test_a_repair_that_failed_is_tried_again_and_still_replaces(catalogue, mirrored):
    evaluate(catalogue)
    [request] = mirrored.claimed()
    mirrored.settle(failure(request, catalogue.context.settings, "no_space", "full", retryable=False))
    assert mirrored.state() == (RuleState.STUCK, "no_space", 3, 0, 1)
    assert catalogue.one(select(bad_replicas.c.state)).state == BadReplicaState.BAD
    catalogue.age(replicas, 7300, "updated_at")
    catalogue.age(evaluations, 1, "not_before", "retry_at")
    evaluate(catalogue)
    [request] = mirrored.claimed()
    with catalogue.database.snapshot() as connection:
        [planned], _ = plan_copies(connection, [request], Traffic(load_rses(connection)), {})
    assert planned.order.replaces_bad


def test_a_lost_file_is_not_retried_and_goes_on_when_it_is_found(catalogue, root, mirrored):
    mirrored.bad("SLAC")
    evaluate(catalogue)
    assert mirrored.state() == (RuleState.STUCK, "lost", 3, 0, 1)
    catalogue.age(replicas, 7300, "updated_at")
    catalogue.age(evaluations, 1, "not_before", "retry_at")
    evaluate(catalogue)
    sweep_losses(catalogue.context)
    evaluate(catalogue)
    assert mirrored.state() == (RuleState.STUCK, "lost", 3, 0, 1)
    assert mirrored.claimed() == []
    catalogue.check_invariants()
    catalogue.rse("TAPE", attributes={"lfn2pfn_algorithm": "identity"})
    add_replicas(catalogue.context, root, "TAPE", [NewReplica("raw", name_of(0), 1000, "0a0b0c0d")])
    evaluate(catalogue)
    assert mirrored.state() == (RuleState.REPLICATING, None, 3, 1, 0)
    [request] = mirrored.claimed()
    mirrored.settle(success(request, Transfer("streamed", 1.0)))
    assert mirrored.state() == (RuleState.OK, None, 4, 0, 0)
    assert sweep_losses(catalogue.context) == 1
    assert catalogue.event_types().count("LOST") == 1
    assert catalogue.event_types().count("FOUND") == 1


def test_a_copy_under_way_from_what_became_bad_may_still_save_the_file(catalogue, mirrored):
    evaluate(catalogue)
    [request] = mirrored.claimed()
    mirrored.bad("SLAC")
    assert catalogue.count(lost_files) == 1
    mirrored.settle(success(request, Transfer("streamed", 1.0)))
    assert mirrored.state() == (RuleState.OK, None, 4, 0, 0)
    assert sweep_losses(catalogue.context) == 1
    assert catalogue.count(lost_files) == 0


def test_and_if_it_fails_the_lock_says_that_the_file_is_lost(catalogue, mirrored):
    evaluate(catalogue)
    [request] = mirrored.claimed()
    mirrored.bad("SLAC")
    mirrored.settle(failure(request, catalogue.context.settings, "not_found", "gone", retryable=False))
    sweep_losses(catalogue.context)
    assert mirrored.state() == (RuleState.STUCK, "lost", 3, 0, 1)
    evaluate(catalogue)
    assert mirrored.state() == (RuleState.STUCK, "lost", 3, 0, 1)
    catalogue.check_invariants()


def test_an_accepted_loss_lets_the_rule_end_its_wait(catalogue, root, mirrored):
    mirrored.bad("SLAC")
    evaluate(catalogue)
    accept_losses(catalogue.context, root, [("raw", name_of(0))], reason="the disk is gone")
    evaluate(catalogue)
    assert mirrored.state() == (RuleState.OK, None, 3, 0, 0)
    assert set(catalogue.locks_of(mirrored.rule)) == set(mirrored.files[1:])
    catalogue.check_invariants()


@pytest.fixture
def races(services, tmp_path):
    url = migrated_database(services, "postgresql", tmp_path)
    made = Catalogue(url)
    yield made
    made.close()
    drop_database(services, url)


def waiting(catalogue) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(catalogue.one(text(query))[0])


def test_a_lock_that_comes_meanwhile_is_stopped_and_counted_too(races):
    """Held: an evaluation that has the replica's row, before its lock is there."""
    slac = races.rse("SLAC")
    [file] = races.files(1, at=[slac])
    rule = races.rule(file, "SLAC")
    root = Actor(races.account_id, "root", Role.ADMIN)
    with ThreadPoolExecutor(1) as pool:
        with races.database.transaction() as connection:
            connection.execute(select(replicas.c.file_id).with_for_update()).all()
            values = {"rule_id": rule, "file_id": file, "rse_id": slac, "bytes": 1000, "state": LockState.OK}
            connection.execute(insert(locks).values(**values))
            connection.execute(text("UPDATE rules SET state = 'OK', locks_ok = 1"))
            running = pool.submit(declare, races.context, root, [Named("raw", name_of(0), "SLAC")], BAD)
            deadline = time.monotonic() + 10
            while not waiting(races):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert running.result(10) == {}
    row = races.rule_row(rule)
    assert (row.state, row.locks_ok, row.locks_stuck) == (RuleState.STUCK, 0, 1)
    races.check_invariants()
