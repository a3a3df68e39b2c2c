"""A replica that is declared bad under a rule: stopped at once, looked at, and OK again when a good copy is there."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, select, text

from arriero.registry.schema.tables import bad_replicas
from arriero.registry.services.bad_replicas import Declaration, Named, declare
from arriero.registry.services.context import Actor
from arriero.registry.services.replicas import NewReplica, add_replicas
from arriero.registry.states import BadReplicaState, LockState, Role, RuleState
from arriero.scheduler.evaluate import Evaluator
from support.database import migrated_database
from support.scheduling import Catalogue, locks, replicas
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
    assert (row.state, row.code, row.locks_ok, row.locks_stuck) == (RuleState.STUCK, "bad_replica", 3, 1)
    catalogue.check_invariants()
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_ok, row.locks_stuck) == (RuleState.STUCK, 3, 1)
    catalogue.check_invariants()
    good = NewReplica("raw", name_of(0), 1000, "0a0b0c0d")
    add_replicas(catalogue.context, root, "SLAC", [good])
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_ok, row.locks_stuck) == (RuleState.OK, 4, 0)
    assert catalogue.one(select(bad_replicas.c.state)).state == BadReplicaState.RECOVERED
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
