"""Two transactions at once, one held where it hurts: neither loses what the other does, none waits without need.

On PostgreSQL: SQLite has one writer at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from arriero.registry.database import Database
from arriero.registry.services.contents import Attachment, Child, attach
from arriero.registry.services.replicas import NewReplica, register_within
from arriero.registry.services.rule_removal import end_rule
from arriero.registry.services.rules import require_rule
from arriero.registry.states import RuleState
from arriero.scheduler import evaluate as evaluate_module
from arriero.scheduler import settle as settle_module
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.evaluation_rule import lock_rule
from arriero.scheduler.reports import success
from arriero.scheduler.settle import Settled
from arriero.scheduler.sweeps import sweep_requests
from support.database import migrated_database
from support.invariants import assert_invariants
from support.night import COPIED, Night
from support.scheduling import Catalogue, evaluations, requests, rules
from support.services import drop_database


@pytest.fixture
def night(services, tmp_path) -> Iterator[Night]:
    url = migrated_database(services, "postgresql", tmp_path)
    catalogue = Catalogue(url)
    yield Night(catalogue)
    assert_invariants(catalogue.database)
    catalogue.close()
    drop_database(services, url)


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Run something in another thread; its faults are the test's."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            faults.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)
    assert not thread.is_alive()
    assert faults == []


def test_a_report_does_not_end_the_request_of_the_worker_that_took_over(night, monkeypatch):
    catalogue = night.catalogue
    (slow, *_) = night.claim("slow")
    catalogue.age(requests, 60, "lease_until")
    taken = []
    lock_replicas = settle_module.effects.lock_replicas

    def take_over_first(tx) -> None:
        """The sweep and another worker come between the look at the leases and the end of the requests."""
        if not taken:
            taken.append(None)
            sweep_requests(catalogue.context)
            catalogue.age(requests, 60, "not_before")
            taken.extend(night.claim("quick"))
        lock_replicas(tx)

    monkeypatch.setattr(settle_module.effects, "lock_replicas", take_over_first)
    assert night.settle(success(slow, COPIED)) == Settled(discarded=1)
    assert len(taken[1:]) == 3
    assert night.settle(*(success(request, COPIED) for request in taken[1:])).done == 3


def test_an_attach_does_not_wait_for_an_evaluation(night):
    catalogue = night.catalogue
    catalogue.files(1, prefix="late", at=[night.slac])
    attachment = Attachment("raw", "night", [Child("raw", "late-000000")])
    with (
        catalogue.database.transaction() as tx,
        meanwhile(lambda: attach(night.context, night.root, [attachment])) as attaching,
    ):
        assert lock_rule(tx, night.rule) is not None
        attaching.join(10)
        assert not attaching.is_alive(), "the attach waits for the evaluation"
    night.evaluate()
    assert catalogue.rule_row(night.rule).locks_replicating == 4


def test_registering_and_evaluating_at_once_do_not_deadlock(night, monkeypatch):
    catalogue = night.catalogue
    catalogue.wake(night.rule)
    evaluator = Evaluator(night.context)
    held = evaluator._claim()
    conclude = evaluate_module.unplaced_reason
    begun = threading.Event()

    def late(*args):
        begun.set()
        time.sleep(0.5)
        return conclude(*args)

    tries = []
    run = Database.run

    def counted(self, work, **options):
        def once(connection):
            tries.append(work)
            return work(connection)

        return run(self, once, **options)

    monkeypatch.setattr(evaluate_module, "unplaced_reason", late)
    monkeypatch.setattr(Database, "run", counted)
    with meanwhile(lambda: evaluator.evaluate(held)):
        assert begun.wait(10)
        night.declare()
    assert len(tries) == 2, "a transaction lost a race and ran again"
    monkeypatch.undo()
    night.evaluate()
    assert catalogue.rule_row(night.rule).state == RuleState.OK


def test_a_source_that_comes_while_its_lack_is_noted_is_seen_soon(night):
    catalogue = night.catalogue
    (file,) = catalogue.files(1, prefix="new")
    rule = catalogue.rule(catalogue.collection("new", children=[file]), "IN2P3")
    new = [NewReplica("raw", "new-000000", 1000, "0a0b0c0d")]
    with catalogue.database.transaction() as tx:
        register_within(tx, night.context, night.root, "SLAC", new)
        night.evaluate()
    assert catalogue.rule_row(rule).code == "no_source"
    waiting = catalogue.one(select(evaluations.c.not_before))
    assert waiting.not_before < datetime.now(tz=UTC) + timedelta(seconds=61)
    catalogue.age(evaluations, 1, "not_before", "retry_at")
    night.evaluate()
    assert catalogue.rule_row(rule).state == RuleState.REPLICATING


def test_a_rule_that_stays_without_a_source_is_looked_at_ever_less_often(night):
    catalogue = night.catalogue
    rule = catalogue.rule(catalogue.collection("new", children=catalogue.files(1, prefix="new")), "IN2P3")
    night.evaluate()
    catalogue.age(evaluations, 1, "not_before", "retry_at")
    night.evaluate()
    assert catalogue.rule_row(rule).code == "no_source"
    waiting = catalogue.one(select(evaluations.c.not_before))
    assert waiting.not_before > datetime.now(tz=UTC) + timedelta(seconds=7000)


def test_a_rule_goes_while_what_it_waits_for_is_settled(night):
    catalogue = night.catalogue
    catalogue.rse("THIRD")
    waiting = catalogue.rule(night.dataset, "THIRD", source_replica_expression="IN2P3")
    night.evaluate()
    assert catalogue.rule_row(waiting).code == "no_source"
    uuid = catalogue.rule_row(waiting).uuid
    taken = night.claim()
    begun = threading.Event()

    def end() -> None:
        with catalogue.database.transaction() as tx:
            end_rule(tx, require_rule(tx, uuid, lock=True), purge=False, account="root", reason="removed")
            begun.set()
            time.sleep(0.5)

    with meanwhile(end):
        assert begun.wait(10)
        assert night.settle(*(success(request, COPIED) for request in taken)).done == 3
    assert catalogue.rule_row(night.rule).state == RuleState.OK
    assert catalogue.count(rules) == 1
