"""What happens when something else comes between the asking for a copy and its end; each test proves the invariants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from arriero.registry.services.context import Context
from arriero.registry.services.replicas import StateChange, update_states
from arriero.registry.states import DidType, ReplicaState, RequestState, RuleState
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.reports import released, success
from arriero.scheduler.settle import Settled
from support.invariants import assert_invariants
from support.night import COPIED, Night
from support.scheduling import locks, replicas, request_history, requests, rules


@pytest.fixture
def night(catalogue) -> Iterator[Night]:
    made = Night(catalogue)
    yield made
    assert_invariants(catalogue.database)


def test_a_replica_that_a_client_registers_ends_the_copy_that_was_queued(catalogue, night):
    night.declare()
    night.evaluate()
    row = catalogue.rule_row(night.rule)
    assert (row.state, row.locks_ok, row.locks_replicating) == (RuleState.OK, 3, 0)
    assert night.claim() == []
    assert catalogue.count(requests) == 0


@pytest.mark.parametrize("evaluated", [True, False])
@pytest.mark.parametrize("how", ["done", "retry", "failed", "released"])
def test_a_replica_that_a_client_registers_while_its_copy_runs(catalogue, night, how, evaluated):
    first, *others = night.claim()
    night.declare(1)
    if evaluated:
        night.evaluate()
    report = {
        "done": success(first, COPIED),
        "retry": night.fails(first, retryable=True),
        "failed": night.fails(first, retryable=False),
        "released": released(first, "stopped"),
    }[how]
    night.settle(report)
    night.evaluate()
    assert catalogue.count(requests, file_id=first.file_id) == 0
    assert night.replica().state == ReplicaState.AVAILABLE
    # what Arriero has copied and seen is verified, what a client said is not
    assert (night.replica().verified_at is not None) is (how == "done")
    row = catalogue.rule_row(night.rule)
    assert (row.state, row.locks_ok, row.locks_replicating) == (RuleState.REPLICATING, 1, 2)
    assert night.settle(*(success(request, COPIED) for request in others)).done == 2
    assert catalogue.rule_row(night.rule).state == RuleState.OK


def test_a_failed_copy_that_a_client_then_makes_good_leaves_no_request(catalogue, night):
    night.settle(*(night.fails(request, retryable=False) for request in night.claim()))
    assert catalogue.count(requests, state=RequestState.FAILED) == 3
    night.declare()
    night.evaluate()
    assert catalogue.rule_row(night.rule).state == RuleState.OK
    assert catalogue.count(requests) == 0


def test_a_copy_that_a_client_takes_back_is_asked_for_again(catalogue, night):
    change = StateChange("raw", "file-000000", ReplicaState.UNAVAILABLE, "not mine")
    update_states(night.context, night.root, "IN2P3", [change])
    night.evaluate()
    assert night.replica().state == ReplicaState.COPYING
    assert night.settle(*(success(request, COPIED) for request in night.claim())).done == 3
    assert catalogue.rule_row(night.rule).state == RuleState.OK


@pytest.mark.parametrize("way", ["removed", "detached"])
@pytest.mark.parametrize("how", ["done", "retry", "failed", "released"])
def test_a_copy_that_nobody_wants_any_more_ends_and_stays_known(catalogue, night, way, how):
    first, *others = night.claim()
    night.settle(*(success(request, COPIED) for request in others))
    if way == "removed":
        night.remove(purge=True)
    else:
        catalogue.detach(night.dataset, night.files)
        catalogue.wake(night.rule)
        night.evaluate()
    # its bytes are on their way: the catalogue must not forget that they will be there
    assert night.replica().state == ReplicaState.COPYING
    assert night.replica().tombstone is not None
    report = {
        "done": success(first, COPIED),
        "retry": night.fails(first, retryable=True),
        "failed": night.fails(first, retryable=False),
        "released": released(first, "stopped"),
    }[how]
    result = night.settle(report)
    assert result == (Settled(done=1) if how == "done" else Settled(dropped=1))
    assert catalogue.count(requests) == 0
    replica = night.replica()
    assert replica.tombstone is not None
    if how == "done":
        assert (replica.state, replica.verified_at is not None) == (ReplicaState.AVAILABLE, True)
    else:
        assert (replica.state, replica.code) == (ReplicaState.UNAVAILABLE, "no_rule")
        past = catalogue.one(select(request_history).where(request_history.c.request_id == first.id))
        assert past.state == RequestState.FAILED
    if way == "removed":
        assert replica.purge is True


def test_a_rule_that_comes_back_while_the_copy_runs_shares_it(catalogue, night):
    taken = night.claim()
    night.remove(purge=True)
    again = catalogue.rule(night.dataset, "IN2P3", priority=5)
    night.evaluate()
    assert night.claim() == []
    assert (night.replica().tombstone, night.replica().purge) == (None, None)
    assert {row.rule_id for row in catalogue.rows(select(requests.c.rule_id))} == {again}
    assert catalogue.rule_row(again).locks_replicating == 3
    assert night.settle(*(success(request, COPIED) for request in taken)).done == 3
    assert catalogue.rule_row(again).state == RuleState.OK


def test_a_rule_that_comes_back_after_its_removal_asks_anew(catalogue, night):
    night.remove()
    assert catalogue.count(requests) == 0
    assert night.replica().state == ReplicaState.UNAVAILABLE
    again = catalogue.rule(night.dataset, "IN2P3")
    night.evaluate()
    assert night.replica().state == ReplicaState.COPYING
    assert night.settle(*(success(request, COPIED) for request in night.claim())).done == 3
    assert catalogue.rule_row(again).state == RuleState.OK


@pytest.mark.parametrize("running", [True, False])
def test_of_two_rules_that_share_copies_one_goes(catalogue, night, running):
    sharing = catalogue.rule(night.dataset, "IN2P3|IN2P3")
    night.evaluate()
    taken = night.claim() if running else []
    night.remove()
    assert night.replica().state == ReplicaState.COPYING
    assert night.replica().tombstone is None
    assert {row.rule_id for row in catalogue.rows(select(requests.c.rule_id))} == {sharing}
    night.settle(*(success(request, COPIED) for request in taken or night.claim()))
    assert catalogue.rule_row(sharing).state == RuleState.OK


def test_a_rule_is_removed_between_the_chunks_of_its_evaluation(catalogue, night):
    more = catalogue.files(12, prefix="more", at=[night.slac])
    rule = catalogue.rule(catalogue.collection("more", children=more), "IN2P3")

    class RemovingBell:
        """Rung after each chunk that asks for copies."""

        def ring(self, _bell) -> None:
            if catalogue.count(rules, id=rule):
                assert catalogue.count(locks, rule_id=rule) == 5
                night.remove(rule)

    settings = catalogue.context.settings.model_copy(update={"evaluation_chunk_files": 5})
    Evaluator(Context(catalogue.database, settings, RemovingBell())).run()
    assert catalogue.count(rules) == 1
    assert catalogue.count(locks, rule_id=rule) == 0
    assert catalogue.count(requests) == 3
    assert catalogue.count(replicas, state=ReplicaState.COPYING) == 3


def test_a_file_that_loses_the_dataset_that_placed_it_moves_to_one_other_as_a_whole(catalogue):
    """Of two copies one happens to lie where another of its datasets lies: the file has one placement all the same."""
    slac = catalogue.rse("SLAC")
    x, y, a, b, c = (catalogue.rse(name, attributes={"tier": "2"}) for name in "XYABC")
    files = catalogue.files(4, at=[slac])
    shared = files[0]
    sets = {
        name: catalogue.collection(name, children=[file]) for name, file in zip("mpq", files[1:], strict=True)
    }
    # where each dataset lies already decides where it goes
    for file, places in zip(files[1:], ((x, y), (a, b), (b, c)), strict=True):
        for rse in places:
            catalogue.replicas([file], rse)
    top = catalogue.collection("top", DidType.CONTAINER, children=list(sets.values()))
    rule = catalogue.rule(top, "tier=2", copies=2)
    catalogue.attach(sets["p"], [shared])
    Evaluator(catalogue.context).run()
    assert catalogue.locks_of(rule)[shared] == {a, b}
    for name in ("m", "q"):
        catalogue.attach(sets[name], [shared])
    catalogue.detach(sets["p"], [shared])
    catalogue.wake(rule)
    Evaluator(catalogue.context).run()
    assert_invariants(catalogue.database)
    assert catalogue.locks_of(rule)[shared] == {x, y}
    left = catalogue.one(select(replicas).where(replicas.c.file_id == shared, replicas.c.rse_id == b))
    assert left.tombstone is not None
