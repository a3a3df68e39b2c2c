"""Where an evaluation places files: groupings, weights, what is there already, what has no place."""

from __future__ import annotations

from sqlalchemy import select

from arriero.registry.states import (
    DidType,
    RuleGrouping,
    RuleState,
)
from arriero.scheduler.evaluate import Evaluator
from support.scheduling import (
    Catalogue,
    dataset_locks,
    dids,
    locks,
    requests,
    rses,
)

GIB = 1 << 30


def evaluate(catalogue: Catalogue) -> None:
    Evaluator(catalogue.context).run()
    catalogue.check_invariants()


def test_grouping_all_puts_every_file_on_the_same_rses(catalogue, five_rses, nested):
    outer, _ = nested
    rule = catalogue.rule(outer, "tier=2", copies=2, grouping=RuleGrouping.ALL)
    evaluate(catalogue)
    places = catalogue.locks_of(rule)
    assert len(places) == 24
    assert len({frozenset(place) for place in places.values()}) == 1
    assert {len(place) for place in places.values()} == {2}
    assert catalogue.count(dataset_locks, group_id=outer) == 2


def test_grouping_dataset_puts_each_dataset_together(catalogue, five_rses, nested):
    outer, sets = nested
    rule = catalogue.rule(outer, "tier=2", copies=2)
    evaluate(catalogue)
    places = catalogue.locks_of(rule)
    by_set = {}
    for row in catalogue.rows(select(dids.c.id, dids.c.name).where(dids.c.type == DidType.FILE)):
        by_set.setdefault(row.name[:2], set()).add(frozenset(places[row.id]))
    assert all(len(found) == 1 for found in by_set.values())
    assert {row.group_id for row in catalogue.rows(select(dataset_locks))} == set(sets)


def test_grouping_none_spreads_files_by_weight(catalogue):
    slac = catalogue.rse("SLAC")
    heavy = catalogue.rse("HEAVY", attributes={"share": "3", "tier": "2"})
    light = catalogue.rse("LIGHT", attributes={"share": "1", "tier": "2"})
    catalogue.rse("UNWEIGHED", attributes={"tier": "2"})
    files = catalogue.files(4000, at=[slac])
    rule = catalogue.rule(
        catalogue.collection("night", children=files),
        "tier=2",
        grouping=RuleGrouping.NONE,
        weight="share",
    )
    evaluate(catalogue)
    at_heavy = catalogue.count(locks, rule_id=rule, rse_id=heavy)
    at_light = catalogue.count(locks, rule_id=rule, rse_id=light)
    assert at_heavy + at_light == 4000
    assert 0.72 < at_heavy / 4000 < 0.78


def test_grouping_none_keeps_what_is_there(catalogue, five_rses):
    slac, tier = five_rses
    files = catalogue.files(100, at=[slac])
    for number, file in enumerate(files):
        catalogue.replicas([file], tier[number % 4])
    rule = catalogue.rule(catalogue.collection("night", children=files), "tier=2", grouping=RuleGrouping.NONE)
    evaluate(catalogue)
    assert catalogue.rule_row(rule).state == RuleState.OK
    assert catalogue.locks_of(rule) == {file: {tier[number % 4]} for number, file in enumerate(files)}


def test_the_rse_that_holds_most_bytes_is_chosen(catalogue, five_rses):
    slac, tier = five_rses
    files = catalogue.files(10, at=[slac])
    catalogue.replicas(files[:6], tier[3])
    catalogue.replicas(files[6:], tier[1])
    rule = catalogue.rule(catalogue.collection("night", children=files), "tier=2")
    evaluate(catalogue)
    assert set(map(frozenset, catalogue.locks_of(rule).values())) == {frozenset({tier[3]})}
    assert catalogue.count(requests) == 4


def test_a_file_in_two_datasets_lies_with_the_first_and_is_rehomed(catalogue, five_rses):
    slac, tier = five_rses
    shared, first_only, second_only = (catalogue.files(1, prefix=name, at=[slac]) for name in "abc")
    first = catalogue.collection("first", children=shared + first_only)
    second = catalogue.collection("second", children=shared + second_only)
    # what is there decides where each goes
    catalogue.replicas(first_only, tier[0])
    catalogue.replicas(second_only, tier[1])
    both = catalogue.collection("both", DidType.CONTAINER, children=[second, first])
    rule = catalogue.rule(both, "tier=2")
    evaluate(catalogue)
    assert catalogue.locks_of(rule)[shared[0]] == {tier[0]}
    catalogue.detach(first, shared)
    catalogue.wake(rule)
    evaluate(catalogue)
    assert catalogue.locks_of(rule) == {
        shared[0]: {tier[1]},
        first_only[0]: {tier[0]},
        second_only[0]: {tier[1]},
    }


def test_what_cannot_be_placed_says_why_and_has_no_locks(catalogue):
    slac = catalogue.rse("SLAC", availability_write=False)
    catalogue.rse("SMALL", free=5 * GIB, attributes={"tier": "2"})
    catalogue.rse("BLOCKED", availability_write=False, attributes={"tier": "2"})
    big = catalogue.collection("big", children=catalogue.files(10, prefix="b", size=GIB, at=[slac]))
    little = catalogue.collection("little", children=catalogue.files(2, prefix="l", size=GIB, at=[slac]))
    both = catalogue.collection("both", DidType.CONTAINER, children=[big, little])
    rule = catalogue.rule(both, "tier=2")
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.code, row.locks_replicating) == (RuleState.STUCK, "not_enough_rses", 2)
    assert "raw:big" in row.reason
    assert "SMALL is full" in row.reason
    assert "BLOCKED is blocked for writing" in row.reason
    assert catalogue.count(dataset_locks, group_id=big) == 0

    with catalogue.database.transaction() as tx:
        tx.execute(rses.update().where(rses.c.name == "BLOCKED").values(availability_write=True))
    catalogue.wake(rule)
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_replicating) == (RuleState.REPLICATING, 12)


def test_a_malformed_protocol_is_off_and_stops_nothing(catalogue):
    odd = catalogue.rse("ODD", protocol={"domains": {"wan": {"read": "yes"}, "lan": None}})
    slac = catalogue.rse("SLAC")
    catalogue.rse("IN2P3")
    files = catalogue.files(2)
    catalogue.replicas(files[:1], odd)
    catalogue.replicas(files[1:], slac)
    rule = catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    evaluate(catalogue)
    row = catalogue.rule_row(rule)
    assert (row.locks_replicating, row.locks_stuck, row.code) == (1, 1, "no_source")
