"""Sweeps take back what dead workers hold, ring for what is due, and change nothing when there is nothing to do."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from arriero.registry.ports import Bell
from arriero.registry.schema.base import after
from arriero.registry.states import RequestState, RuleState
from arriero.scheduler.claim import claim_requests
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.sweeps import sweep_arrivals, sweep_evaluations, sweep_requests
from support.scheduling import arrivals, evaluations, requests, rules


@pytest.fixture
def rule(catalogue, two_sites):
    slac, _ = two_sites
    return catalogue.rule(catalogue.collection("night", children=catalogue.files(4, at=[slac])), "IN2P3")


def test_nothing_to_do(catalogue):
    assert sweep_requests(catalogue.context) == 0
    assert sweep_evaluations(catalogue.context) == 0
    assert sweep_arrivals(catalogue.context) == 0
    assert catalogue.bells.rung == []


def test_what_is_due_is_rung_for(catalogue, rule):
    sweep_evaluations(catalogue.context)
    assert catalogue.bells.rung == [Bell.EVALUATIONS]
    Evaluator(catalogue.context).run()
    catalogue.bells.rung.clear()
    sweep_evaluations(catalogue.context)
    assert catalogue.bells.rung == []
    sweep_requests(catalogue.context)
    assert catalogue.bells.rung == [Bell.REQUESTS]
    catalogue.age(requests, -60, "not_before")
    catalogue.bells.rung.clear()
    sweep_requests(catalogue.context)
    assert catalogue.bells.rung == []


def test_the_evaluation_of_a_dead_worker_is_taken_back_and_waits_the_longer_the_oftener(catalogue, rule):
    evaluator = Evaluator(catalogue.context)
    for attempt in (1, 2, 3):
        catalogue.age(evaluations, 1, "not_before")
        held = evaluator._claim()
        assert held.attempt == attempt
        assert sweep_evaluations(catalogue.context) == 0
        catalogue.age(evaluations, 1, "lease_until")
        assert sweep_evaluations(catalogue.context) == 1
        assert sweep_evaluations(catalogue.context) == 0
        row = catalogue.one(select(evaluations))
        assert (row.lease_owner, row.lease_until, row.code) == (None, None, "lease_expired")
        at_once = evaluator._claim() is not None
        assert at_once is (attempt == 1)
        with catalogue.database.transaction() as tx:
            tx.execute(evaluations.update().values(lease_owner=None, lease_until=None, attempt=attempt))


def test_a_request_that_kills_its_worker_each_time_fails_at_last(catalogue, rule):
    Evaluator(catalogue.context).run()
    attempts = catalogue.context.settings.transfer_max_attempts
    first = catalogue.rows(select(requests.c.id).order_by(requests.c.id))[0].id
    for _ in range(attempts):
        with catalogue.database.transaction() as tx:
            # before all others of its lane
            tx.execute(requests.update().where(requests.c.id == first).values(not_before=after(-3600.0)))
        claimed = catalogue.database.run(lambda tx: claim_requests(tx, "killed", limit=1, lease_s=30))
        assert len(claimed) == 1
        with catalogue.database.transaction() as tx:
            tx.execute(
                requests.update()
                .where(requests.c.state == RequestState.SUBMITTED)
                .values(lease_until=requests.c.created_at)
            )
        assert sweep_requests(catalogue.context) == 1
        assert sweep_requests(catalogue.context) == 0
    failed = catalogue.one(select(requests).where(requests.c.state == RequestState.FAILED))
    assert failed.code == "lease_expired"
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_stuck) == (RuleState.STUCK, 1)
    assert catalogue.count(requests, state=RequestState.QUEUED) == 3
    catalogue.check_invariants()


def test_the_arrivals_of_a_dead_agent_are_taken_back(catalogue, two_sites):
    _, in2p3 = two_sites
    butler = catalogue.butler("embargo", in2p3)
    attempts = catalogue.context.settings.arrival_max_attempts
    with catalogue.database.transaction() as tx:
        for file, attempt in ((1, 1), (2, attempts)):
            values = {
                "butler_id": butler,
                "file_id": file,
                "rse_id": in2p3,
                "state": "leased",
                "attempt": attempt,
            }
            tx.execute(arrivals.insert().values(**values, lease_owner="agent"))
    catalogue.age(arrivals, -60, "lease_until")
    assert sweep_arrivals(catalogue.context) == 0
    catalogue.age(arrivals, 60, "lease_until")
    assert sweep_arrivals(catalogue.context) == 2
    assert sweep_arrivals(catalogue.context) == 0
    found = catalogue.rows(select(arrivals).order_by(arrivals.c.file_id))
    assert [(row.state, row.code, row.lease_owner) for row in found] == [
        ("pending", "lease_expired", None),
        ("failed", "lease_expired", None),
    ]


def test_rules_whose_lifetime_is_over_go(catalogue, rule):
    from arriero.registry.services.rule_removal import remove_expired_rules

    Evaluator(catalogue.context).run()
    catalogue.age(rules, 1, "expires_at")
    assert remove_expired_rules(catalogue.context) == 1
    assert catalogue.count(rules) == 0
    assert catalogue.count(requests) == 0
