"""What an evaluation makes of rules, on both databases."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from sqlalchemy import select

from arriero.registry.ports import Bell
from arriero.registry.states import (
    LockState,
    ReplicaState,
    RequestState,
    RuleGrouping,
    RuleState,
)
from arriero.scheduler.evaluate import Evaluator
from support.database import counted_statements
from support.scheduling import (
    Catalogue,
    evaluations,
    locks,
    replicas,
    requests,
)


def evaluate(catalogue: Catalogue) -> None:
    Evaluator(catalogue.context).run()
    catalogue.check_invariants()


def test_a_rule_on_a_dataset_asks_for_each_file_once(catalogue, two_sites):
    slac, in2p3 = two_sites
    files = catalogue.files(10, at=[slac])
    rule = catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    evaluate(catalogue)
    assert catalogue.locks_of(rule) == {file: {in2p3} for file in files}
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_ok, row.locks_replicating, row.locks_stuck) == (
        RuleState.REPLICATING,
        0,
        10,
        0,
    )
    assert catalogue.count(requests, state=RequestState.QUEUED, rule_id=rule) == 10
    assert catalogue.count(replicas, rse_id=in2p3, state=ReplicaState.COPYING) == 10
    assert catalogue.count(evaluations) == 0
    assert catalogue.history(rule) == [("INJECT", "REPLICATING")]
    assert catalogue.bells.rung == [Bell.REQUESTS]


def test_a_rule_whose_files_are_there_is_ok_at_once(catalogue, two_sites):
    slac, _ = two_sites
    rule = catalogue.rule(catalogue.collection("night", children=catalogue.files(3, at=[slac])), "SLAC|IN2P3")
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_ok) == (RuleState.OK, 3)
    assert catalogue.count(requests) == 0
    assert catalogue.event_types() == ["rule-ok"]
    assert catalogue.bells.rung == []


def test_an_empty_dataset_is_ok(catalogue, two_sites):
    rule = catalogue.rule(catalogue.collection("nothing"), "IN2P3")
    evaluate(catalogue)
    assert catalogue.rule_row(rule).state == RuleState.OK


def test_a_rule_on_one_file(catalogue, two_sites):
    slac, in2p3 = two_sites
    (file,) = catalogue.files(1, at=[slac])
    rule = catalogue.rule(file, "*", copies=2, grouping=RuleGrouping.NONE)
    evaluate(catalogue)
    assert catalogue.locks_of(rule) == {file: {slac, in2p3}}
    assert catalogue.count(locks, state=LockState.OK) == 1
    assert catalogue.count(requests, destination_id=in2p3) == 1


def test_attached_files_follow_their_dataset_and_detached_ones_go(catalogue, five_rses):
    slac, _ = five_rses
    files = catalogue.files(6, at=[slac])
    night = catalogue.collection("night", children=files[:3])
    rule = catalogue.rule(night, "tier=2")
    evaluate(catalogue)
    (place,) = set(map(frozenset, catalogue.locks_of(rule).values()))

    catalogue.attach(night, files[3:])
    catalogue.wake(rule)
    evaluate(catalogue)
    assert catalogue.locks_of(rule) == {file: set(place) for file in files}

    (chosen,) = place
    catalogue.set_replica(files[1], chosen, ReplicaState.AVAILABLE)
    catalogue.detach(night, files[:2])
    catalogue.wake(rule)
    evaluate(catalogue)
    assert catalogue.locks_of(rule) == {file: set(place) for file in files[2:]}
    assert catalogue.rule_row(rule).locks_replicating == 4
    left = {row.file_id: row for row in catalogue.rows(select(replicas).where(replicas.c.rse_id == chosen))}
    assert left[files[0]].state == ReplicaState.UNAVAILABLE
    assert left[files[0]].code == "no_rule"
    assert left[files[0]].tombstone is not None
    assert left[files[1]].state == ReplicaState.AVAILABLE
    assert left[files[1]].tombstone is not None
    assert catalogue.count(requests, file_id=files[0]) == 0
    assert left[files[2]].tombstone is None


def test_a_tombstone_is_cleared_by_a_new_rule(catalogue, two_sites):
    slac, in2p3 = two_sites
    files = catalogue.files(1, at=[slac])
    night = catalogue.collection("night", children=files)
    rule = catalogue.rule(night, "IN2P3")
    evaluate(catalogue)
    catalogue.detach(night, files)
    catalogue.wake(rule)
    evaluate(catalogue)
    catalogue.attach(night, files)
    catalogue.wake(rule)
    evaluate(catalogue)
    row = catalogue.one(select(replicas).where(replicas.c.rse_id == in2p3))
    assert (row.state, row.tombstone) == (ReplicaState.COPYING, None)
    assert catalogue.count(requests, state=RequestState.QUEUED) == 1


def test_rules_share_one_request_and_the_most_urgent_counts(catalogue, two_sites):
    slac, _ = two_sites
    files = catalogue.files(5, at=[slac])
    night = catalogue.collection("night", children=files)
    rules_made = [
        catalogue.rule(night, "IN2P3", priority=2),
        catalogue.rule(night, "IN2P3|IN2P3", priority=4),
    ]
    evaluate(catalogue)
    assert catalogue.count(requests) == 5
    assert {row.priority for row in catalogue.rows(select(requests))} == {4}
    for rule in rules_made:
        assert catalogue.rule_row(rule).locks_replicating == 5


def test_without_a_source_locks_are_stuck_until_one_appears(catalogue, two_sites):
    slac, _ = two_sites
    files = catalogue.files(2)
    rule = catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_stuck, row.code) == (RuleState.STUCK, 2, "no_source")
    assert "AVAILABLE" in row.reason
    assert row.stuck_at is not None
    assert catalogue.count(requests) == 0
    waiting = catalogue.one(select(evaluations))
    assert waiting.lease_owner is None
    assert waiting.code == "no_source"

    catalogue.replicas(files[:1], slac)
    catalogue.wake(rule)
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_replicating, row.locks_stuck) == (RuleState.STUCK, 1, 1)
    catalogue.replicas(files[1:], slac)
    catalogue.wake(rule)
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_replicating, row.locks_stuck, row.code) == (
        RuleState.REPLICATING,
        2,
        0,
        None,
    )
    assert row.stuck_at is None


def test_only_sources_of_the_source_expression_count(catalogue, five_rses):
    slac, _ = five_rses
    files = catalogue.files(2, at=[slac])
    night = catalogue.collection("night", children=files)
    rule = catalogue.rule(night, "T0", source_replica_expression="T1")
    evaluate(catalogue)
    assert catalogue.rule_row(rule).code == "no_source"


def test_an_expression_that_has_become_wrong_makes_the_rule_stuck(catalogue, two_sites):
    rule = catalogue.rule(catalogue.collection("night", children=catalogue.files(1)), "GONE")
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert row.state == RuleState.STUCK
    assert "GONE" in row.reason


def test_an_announced_replica_is_waited_for_and_counts_when_it_is_there(catalogue, two_sites):
    _, in2p3 = two_sites
    files = catalogue.files(1)
    catalogue.replicas(files, in2p3, ReplicaState.COPYING)
    rule = catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    Evaluator(catalogue.context).run()
    assert catalogue.rule_row(rule).locks_replicating == 1
    assert catalogue.count(requests) == 0
    catalogue.set_replica(files[0], in2p3, ReplicaState.AVAILABLE)
    catalogue.wake(rule)
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_ok) == (RuleState.OK, 1)


def test_suspended_rules_and_those_that_wait_for_approval_are_left_alone(catalogue, two_sites):
    slac, _ = two_sites
    night = catalogue.collection("night", children=catalogue.files(1, at=[slac]))
    rule = catalogue.rule(night, "IN2P3", state=RuleState.WAITING_APPROVAL)
    evaluate(catalogue)
    assert catalogue.count(locks) == 0
    assert catalogue.rule_row(rule).state == RuleState.WAITING_APPROVAL
    assert catalogue.count(evaluations) == 0


def test_chunks_place_everything_once(catalogue, five_rses, nested):
    outer, _ = nested
    settings = catalogue.context.settings.model_copy(update={"evaluation_chunk_files": 5})
    context = type(catalogue.context)(catalogue.database, settings, catalogue.bells)
    for grouping in RuleGrouping:
        rule = catalogue.rule(outer, "tier=2" + "|T0" * list(RuleGrouping).index(grouping), grouping=grouping)
        Evaluator(context).run()
        catalogue.check_invariants()
        assert len(catalogue.locks_of(rule)) == 24
        assert catalogue.count(evaluations) == 0


def test_what_is_raised_meanwhile_is_looked_at_once_more(catalogue, two_sites):
    slac, _ = two_sites
    files = catalogue.files(2, at=[slac])
    night = catalogue.collection("night", children=files[:1])
    rule = catalogue.rule(night, "IN2P3")
    evaluator = Evaluator(catalogue.context)
    held = evaluator._claim()
    catalogue.attach(night, files[1:])
    catalogue.wake(rule)
    evaluator.evaluate(held)
    assert catalogue.count(evaluations) == 1
    assert evaluator.run() == 1
    assert catalogue.count(evaluations) == 0
    assert len(catalogue.locks_of(rule)) == 2


def test_an_evaluation_that_was_taken_over_changes_nothing(catalogue, two_sites):
    slac, _ = two_sites
    rule = catalogue.rule(catalogue.collection("night", children=catalogue.files(1, at=[slac])), "IN2P3")
    slow, quick = Evaluator(catalogue.context), Evaluator(catalogue.context)
    held = slow._claim()
    with catalogue.database.transaction() as tx:
        tx.execute(evaluations.update().values(lease_owner=None, lease_until=None))
    assert quick._claim().fence == held.fence + 1
    slow._evaluate_guarded(held)
    assert catalogue.count(locks, rule_id=rule) == 0


def test_an_evaluation_that_the_same_worker_holds_anew_is_not_ended_by_the_old_one(catalogue, two_sites):
    slac, _ = two_sites
    rule = catalogue.rule(catalogue.collection("night", children=catalogue.files(1, at=[slac])), "IN2P3")
    evaluator = Evaluator(catalogue.context)
    before = evaluator._claim()
    with catalogue.database.transaction() as tx:
        tx.execute(evaluations.update().values(lease_owner=None, lease_until=None))
    again = evaluator._claim()
    assert (again.owner, again.fence) == (before.owner, before.fence + 1)
    evaluator._evaluate_guarded(before)
    assert catalogue.count(locks, rule_id=rule) == 0
    evaluator._evaluate_guarded(again)
    assert catalogue.count(locks, rule_id=rule) == 1


def test_one_bad_rule_holds_up_no_other(catalogue, two_sites, monkeypatch):
    slac, _ = two_sites
    night = catalogue.collection("night", children=catalogue.files(1, at=[slac]))
    bad = catalogue.rule(night, "IN2P3", weight="explode")
    good = catalogue.rule(night, "IN2P3|IN2P3")

    def explode(*args, weight, **kwargs):
        if weight == "explode":
            raise ZeroDivisionError("a bug")
        return real(*args, weight=weight, **kwargs)

    from arriero.scheduler import evaluation_rule as module

    real = module.usable
    monkeypatch.setattr(module, "usable", explode)
    Evaluator(catalogue.context).run()
    assert catalogue.rule_row(good).state == RuleState.REPLICATING
    assert catalogue.rule_row(bad).state == RuleState.INJECT
    waiting = catalogue.one(select(evaluations))
    assert (waiting.rule_id, waiting.attempt, waiting.lease_owner) == (bad, 1, None)
    assert "a bug" in waiting.reason


def seconds_and_statements(catalogue, slac, count, grouping) -> tuple[float, int]:
    prefix = f"n{count}{grouping}"
    files = catalogue.files(count, prefix=prefix, at=[slac])
    rule = catalogue.rule(
        catalogue.collection(f"set-{prefix}", children=files), "tier=2", copies=1, grouping=grouping
    )
    with counted_statements(catalogue.database) as statements:
        begun = time.monotonic()
        Evaluator(catalogue.context).run()
        took = time.monotonic() - begun
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_replicating) == (RuleState.REPLICATING, count)
    switches = [statement for statement in statements if statement.startswith("SET LOCAL")]
    # groups of 100,000 files and more PostgreSQL measures as it plans itself: it is told so, and told when that ends
    assert len(switches) <= 3
    return took, len(statements) - len(switches)


@pytest.mark.parametrize("grouping", [RuleGrouping.DATASET, RuleGrouping.NONE])
def test_the_number_of_statements_does_not_depend_on_the_number_of_files(
    catalogue, five_rses, grouping, record_property
):
    slac, _ = five_rses
    # in one chunk each: another has the same statements again
    settings = catalogue.context.settings.model_copy(update={"evaluation_chunk_files": 100_000})
    catalogue.context = replace(catalogue.context, settings=settings)
    sizes = [10, 1_000, 20_000] if catalogue.database.is_postgresql else [10, 1_000, 5_000]
    measured = {size: seconds_and_statements(catalogue, slac, size, grouping) for size in sizes}
    for size, (took, statements) in measured.items():
        record_property(f"{grouping}-{size}", f"{statements} statements, {took:.3f} s")
        print(
            f"{catalogue.database.engine.dialect.name} {grouping} {size}: {statements} statements {took:.3f} s"
        )
    assert len({statements for _, statements in measured.values()}) == 1
