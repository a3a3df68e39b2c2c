"""Deletions and those who want the replica: rules, Butlers, copies, declarations; and how much is taken at once."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import insert, select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    arrivals,
    butler_rses,
    rse_deletions,
    stops,
)
from arriero.registry.services.bad_replicas import Declaration, Named, declare
from arriero.registry.services.context import Actor
from arriero.registry.states import (
    ArrivalState,
    BadReplicaState,
    Role,
    RuleState,
)
from arriero.scheduler.deletion_reports import Outcome, Report
from arriero.scheduler.deletion_settle import settle_deletions
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.transfer import TransferRunner
from support.deletions import Gate, Storages, claim, in_thread
from support.scheduling import evaluations, events


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


def test_a_rule_on_a_replica_that_is_being_deleted_waits_and_has_it_made_again(storages, pair, monkeypatch):
    slac, _ = pair
    catalogue = storages.catalogue
    [one] = going(storages, pair)
    gate = Gate(monkeypatch)
    thread = in_thread(storages.run)
    assert gate.reached.wait(20)
    rule = catalogue.rule(catalogue.collection("night", children=[one]), "SLAC")
    Evaluator(catalogue.context).run()
    assert catalogue.rule_row(rule).code == "being_deleted"
    gate.opened.set()
    thread.join(20)
    assert storages.names(slac) == []
    assert catalogue.count(evaluations) == 1, "it is looked at because the replica has gone"
    Evaluator(catalogue.context).run()
    assert TransferRunner(storages.context()).run().done == 1
    assert catalogue.rule_row(rule).state is RuleState.OK
    assert storages.names(slac) == ["file-000000"]
    catalogue.check_invariants()
    # it is held now
    assert storages.run().claimed == 0


def test_a_rule_that_waits_for_a_deletion_that_is_taken_back_has_its_lock(storages, pair, monkeypatch):
    slac, _ = pair
    catalogue = storages.catalogue
    going(storages, pair, 2)
    gate = Gate(monkeypatch)
    thread = in_thread(lambda: storages.run(deletion_threads=1))
    assert gate.reached.wait(20)
    left = storages.queue()[1].file_id
    rule = catalogue.rule(left, "SLAC")
    Evaluator(catalogue.context).run()
    assert catalogue.rule_row(rule).code == "being_deleted"
    with storages.database.transaction() as tx:
        tx.execute(insert(stops).values(name="deletions"))
    while storages.states(slac)[left] != "AVAILABLE":
        time.sleep(0.02)
    gate.opened.set()
    thread.join(20)
    Evaluator(catalogue.context).run()
    assert catalogue.rule_row(rule).state is RuleState.OK
    assert left in storages.states(slac)
    catalogue.check_invariants()


@pytest.mark.parametrize("state", [ArrivalState.INGESTED, ArrivalState.LEASED])
def test_what_a_butler_holds_stays(storages, pair, state):
    slac, _ = pair
    [one] = going(storages, pair)
    butler = storages.catalogue.butler("embargo", slac)
    values = {"lease_owner": "agent", "lease_until": after(60.0)} if state is ArrivalState.LEASED else {}
    with storages.database.transaction() as tx:
        tx.execute(insert(arrivals).values(butler_id=butler, file_id=one, rse_id=slac, state=state, **values))
    assert storages.run().claimed == 0
    assert storages.names(slac) == ["file-000000"]
    with storages.database.transaction() as tx:
        tx.execute(update(arrivals).values(state="released", lease_owner=None, lease_until=None))
    assert storages.run().done == 1


def test_what_waits_for_a_butler_is_forgotten_with_its_replica(storages, pair):
    slac, in2p3 = pair
    [one] = going(storages, pair)
    butler = storages.catalogue.butler("embargo", slac)
    with storages.database.transaction() as tx:
        tx.execute(insert(butler_rses).values(butler_id=butler, rse_id=in2p3))
        tx.execute(insert(arrivals).values(butler_id=butler, file_id=one, rse_id=slac, state="pending"))
    [taken] = claim(storages, slac, "w")
    [row] = storages.catalogue.rows(select(arrivals))
    assert (row.code, row.reason) == ("replica_not_available", "the replica is being deleted")
    settle_deletions(storages.context(), slac, "w", [Report(taken, Outcome.DONE)])
    # the other RSE feeds the same Butler
    [row] = storages.catalogue.rows(select(arrivals))
    assert (row.rse_id, row.state) == (in2p3, ArrivalState.PENDING)
    storages.catalogue.check_invariants()


def test_what_may_be_read_from_stays_until_the_copy_has_ended(storages, pair):
    lancs = storages.rse("LANCS")
    [one] = going(storages, pair)
    catalogue = storages.catalogue
    rule = catalogue.rule(one, "LANCS")
    Evaluator(catalogue.context).run()
    assert storages.run().claimed == 0
    assert TransferRunner(storages.context()).run().done == 1
    assert catalogue.rule_row(rule).state is RuleState.OK
    assert storages.run().done == 1
    assert storages.states(lancs) == {one: "AVAILABLE"}


def test_the_pace_of_an_rse_is_kept(storages):
    slac, in2p3 = storages.rse("SLAC", deletion_rate="10"), storages.rse("IN2P3")
    ids = storages.files(25, at=[slac, in2p3], verified=[in2p3])
    storages.let_go(ids, slac, purge=True)
    assert len(claim(storages, slac, "one")) == 10
    assert not claim(storages, slac, "another")
    assert storages.site(slac).paced_until is not None
    storages.wake()
    assert len(claim(storages, slac, "another")) == 10
    with storages.database.transaction() as tx:
        tx.execute(update(rse_deletions).values(paced_until=after(0.2)))
    assert storages.run().done == 5


def test_what_is_in_trouble_is_bounded(storages, pair):
    slac, _ = pair
    going(storages, pair, 30)
    for path in list((storages.roots[slac] / "raw").iterdir()):
        path.unlink()
        path.mkdir()
    for _ in range(6):
        storages.run(deletion_batch=8, deletion_threads=2)
        storages.wake()
    # those that wait, and a batch that was under way meanwhile
    assert len(storages.queue()) <= 16
    assert list(storages.states(slac).values()).count("AVAILABLE") >= 14


def test_a_declaration_is_refused_while_a_replica_is_being_deleted(storages, pair):
    slac, _ = pair
    going(storages, pair)
    claim(storages, slac, "w")
    root = Actor(storages.catalogue.account_id, "root", Role.ADMIN)
    said = declare(
        storages.context(), root, [Named("raw", "file-000000", "SLAC")], Declaration(BadReplicaState.BAD)
    )
    assert said == {"SLAC": ["raw:file-000000 is BEING_DELETED"]} or "BEING_DELETED" in str(said)
    assert storages.catalogue.count(events, event_type="replica-bad") == 0
