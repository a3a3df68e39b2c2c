"""What owners of rules are told, by the letter of each rule, on both databases (docs/adr/0018)."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, text

from arriero.registry.services.bad_replicas import Declaration, Named, declare
from arriero.registry.services.context import Actor
from arriero.registry.states import BadReplicaState, DidType, ReplicaState, Role, RuleGrouping, RuleState
from arriero.scheduler.reports import failure
from arriero.scheduler.rule_events import step
from arriero.scheduler.settle import settle
from support.database import counted_statements
from support.notified import (
    Night,
    bring,
    bring_files,
    claim,
    close,
    datasets_told,
    evaluate,
    set_open,
    told,
)
from support.scheduling import events, rules


@pytest.fixture
def night(catalogue) -> Night:
    return Night(catalogue)


@pytest.mark.parametrize(
    ("letter", "is_closed", "expected"),
    [
        ("N", True, []),
        ("Y", False, [("RULE_OK", None), ("DATASETLOCK_OK", "raw at IN2P3")]),
        ("Y", True, [("RULE_OK", None), ("DATASETLOCK_OK", "raw at IN2P3")]),
        ("C", False, []),
        ("C", True, [("RULE_OK", None), ("DATASETLOCK_OK", "raw at IN2P3")]),
        ("P", False, []),
        ("P", True, [("RULE_PROGRESS", 50), ("RULE_OK", None), ("RULE_PROGRESS", 100)]),
    ],
)
def test_each_letter_tells_what_it_stands_for(catalogue, night, letter, is_closed, expected):
    if is_closed:
        close(catalogue, "raw")
    rule = catalogue.rule(night.raw, "IN2P3", notification=letter)
    evaluate(catalogue)
    taken = claim(catalogue)
    bring(catalogue, taken[:2])
    bring(catalogue, taken[2:])
    assert catalogue.rule_row(rule).state == RuleState.OK
    assert told(catalogue) == expected
    # Arriero's own event tells of every rule
    assert catalogue.event_types().count("rule-ok") == 1


def test_the_messages_have_rucios_keys_and_come_in_order(catalogue, night):
    close(catalogue, "raw")
    for expression, letter in (("IN2P3", "Y"), ("LANCS", "P")):
        catalogue.rule(night.raw, expression, notification=letter)
    evaluate(catalogue)
    bring(catalogue, claim(catalogue))
    found: dict[str, Any] = {}
    for row in catalogue.rows(select(events).order_by(events.c.id)):
        found.setdefault(row.event_type, row)
    uuids = {row.rse_expression: row.uuid for row in catalogue.rows(select(rules))}
    mine, other = uuids["IN2P3"], uuids["LANCS"]
    assert found["RULE_OK"].payload == {"scope": "raw", "name": "raw", "rule_id": mine.hex}
    assert found["DATASETLOCK_OK"].payload == {
        "scope": "raw",
        "name": "raw",
        "rse": "IN2P3",
        "rse_id": str(night.in2p3),
        "rule_id": mine.hex,
    }
    assert found["RULE_PROGRESS"].payload == {
        "scope": "raw",
        "name": "raw",
        "rule_id": other.hex,
        "progress": 100,
    }
    assert {found[kind].key for kind in ("rule-ok", "RULE_OK", "DATASETLOCK_OK")} == {f"rule:{mine}"}


@pytest.mark.parametrize("letter", ["Y", "C", "P"])
def test_what_is_there_already_is_told_by_the_evaluation(catalogue, night, letter):
    close(catalogue, "raw")
    catalogue.rule(night.raw, "SLAC", notification=letter)
    evaluate(catalogue)
    expected = {"P": [("RULE_OK", None), ("RULE_PROGRESS", 100)]}
    assert told(catalogue) == expected.get(letter, [("RULE_OK", None), ("DATASETLOCK_OK", "raw at SLAC")])
    # looked at once more, it is the same
    for row in catalogue.rows(select(rules.c.id)):
        catalogue.wake(row.id)
    evaluate(catalogue)
    assert len(told(catalogue)) == 2


@pytest.mark.parametrize(
    ("letter", "expected"),
    [
        ("N", []),
        ("Y", [("RULE_OK", None), ("DATASETLOCK_OK", "raw at IN2P3")]),
        ("C", [("RULE_OK", None), ("DATASETLOCK_OK", "raw at IN2P3")]),
        ("P", [("RULE_OK", None), ("RULE_PROGRESS", 100)]),
    ],
)
def test_a_rule_that_was_ok_before_tells_when_its_dataset_closes(catalogue, night, letter, expected):
    catalogue.rule(night.raw, "IN2P3", notification=letter)
    evaluate(catalogue)
    bring(catalogue, claim(catalogue))
    before = told(catalogue)
    assert before == (expected if letter == "Y" else [])
    close(catalogue, "raw")
    assert told(catalogue) == expected


def test_a_dataset_that_closes_is_told_once_although_its_container_is_open(catalogue, night):
    catalogue.rule(night.night, "IN2P3", notification="C")
    evaluate(catalogue)
    taken = claim(catalogue)
    bring_files(catalogue, taken, night.first)
    assert told(catalogue) == []
    close(catalogue, "raw")
    assert told(catalogue) == [("DATASETLOCK_OK", "raw at IN2P3")]
    close(catalogue, "flats")
    # not complete when it closed: told when it is
    assert len(told(catalogue)) == 1
    bring_files(catalogue, taken, night.second)
    assert datasets_told(catalogue) == ["raw at IN2P3", "flats at IN2P3"]
    close(catalogue, "night")
    assert told(catalogue)[2:] == [("RULE_OK", None)]
    set_open(catalogue, "raw", is_open=True)
    close(catalogue, "raw")
    assert len(told(catalogue)) == 3


def test_steps_of_progress_are_told_once_each_and_those_that_a_batch_jumps_are_left_out(catalogue):
    slac = catalogue.rse("SLAC")
    catalogue.rse("IN2P3")
    big = catalogue.collection("big", children=catalogue.files(40, at=[slac]))
    close(catalogue, "big")
    rule = catalogue.rule(big, "IN2P3", notification="P")
    evaluate(catalogue)
    taken = claim(catalogue)
    at = 0
    for batch in (3, 1, 1, 12, 2, 2, 1):
        bring(catalogue, taken[at : at + batch])
        at += batch
    # 7 %, 10 %, 12 %, 42 %, 47 %, 52 %, 55 %
    assert told(catalogue) == [("RULE_PROGRESS", 10), ("RULE_PROGRESS", 40), ("RULE_PROGRESS", 50)]
    settings = catalogue.context.settings
    bad = failure(taken[at], settings, "gone", "the file is gone", retryable=False)
    settle(catalogue.database, [bad], stuck_retry_s=7200)
    # what is STUCK holds nothing else up, and is not progress
    bring(catalogue, taken[at + 1 :])
    assert catalogue.rule_row(rule).state == RuleState.STUCK
    assert told(catalogue)[3:] == [("RULE_PROGRESS", 90)]
    with catalogue.database.transaction() as tx:
        tx.execute(text("UPDATE replicas SET updated_at = '2020-01-01 00:00:00' WHERE state = 'UNAVAILABLE'"))
    catalogue.wake(rule)
    evaluate(catalogue)
    bring(catalogue, claim(catalogue))
    assert told(catalogue)[4:] == [("RULE_OK", None), ("RULE_PROGRESS", 100)]


@pytest.mark.parametrize(
    ("ok", "total", "expected"), [(0, 0, 0), (1, 11, 0), (2, 11, 10), (3, 3, 90), (99, 100, 90)]
)
def test_a_hundred_per_cent_is_for_rules_that_are_ok(ok, total, expected):
    assert step({"OK": ok, "REPLICATING": total - ok, "STUCK": 0}) == expected


def test_a_dataset_is_told_when_its_last_file_has_come_not_when_the_rule_is_ok(catalogue, night):
    rule = catalogue.rule(night.night, "IN2P3|LANCS", copies=2, notification="Y")
    evaluate(catalogue)
    taken = claim(catalogue)
    here = [request for request in taken if request.destination_id == night.in2p3]
    bring_files(catalogue, here, night.first[:3])
    assert told(catalogue) == []
    bring_files(catalogue, here, night.first[3:] + night.second[:1])
    assert told(catalogue) == [("DATASETLOCK_OK", "raw at IN2P3")]
    bring(catalogue, [request for request in taken if request.destination_id == night.lancs])
    bring_files(catalogue, here, night.second[1:])
    assert catalogue.rule_row(rule).state == RuleState.OK
    assert sorted(datasets_told(catalogue)) == [
        "flats at IN2P3",
        "flats at LANCS",
        "raw at IN2P3",
        "raw at LANCS",
    ]


@pytest.mark.parametrize("grouping", list(RuleGrouping))
def test_a_container_that_is_placed_as_a_whole_tells_of_its_datasets_and_one_without_places_of_none(
    catalogue, night, grouping
):
    catalogue.rule(night.night, "IN2P3", grouping=grouping, notification="Y")
    evaluate(catalogue)
    taken = claim(catalogue)
    bring_files(catalogue, taken, night.first)
    bring_files(catalogue, taken, night.second)
    placed = grouping is not RuleGrouping.NONE
    assert datasets_told(catalogue) == (["raw at IN2P3", "flats at IN2P3"] if placed else [])
    assert ("RULE_OK", None) in told(catalogue)


def test_a_rule_on_a_file_tells_that_it_is_ok_as_a_file_is_never_open(catalogue, night):
    catalogue.rule(night.first[0], "IN2P3", notification="C")
    evaluate(catalogue)
    bring(catalogue, claim(catalogue))
    assert told(catalogue) == [("RULE_OK", None)]


def test_the_evaluation_tells_of_the_dataset_that_is_there_while_another_is_to_come(catalogue, night):
    catalogue.replicas(night.first, night.in2p3)
    catalogue.rule(night.night, "IN2P3", notification="Y")
    evaluate(catalogue)
    assert told(catalogue) == [("DATASETLOCK_OK", "raw at IN2P3")]
    bring(catalogue, claim(catalogue))
    assert told(catalogue)[1:] == [("RULE_OK", None), ("DATASETLOCK_OK", "flats at IN2P3")]


def test_a_dataset_that_grows_is_told_again_when_it_is_complete_again(catalogue, night):
    rule = catalogue.rule(night.night, "IN2P3", notification="Y")
    evaluate(catalogue)
    taken = claim(catalogue)
    bring_files(catalogue, taken, night.first)
    more = catalogue.files(2, prefix="c", at=[night.slac])
    catalogue.attach(night.raw, more)
    catalogue.wake(rule)
    evaluate(catalogue)
    taken += claim(catalogue)
    bring_files(catalogue, taken, more[:1])
    assert datasets_told(catalogue) == ["raw at IN2P3"]
    bring_files(catalogue, taken, more[1:])
    assert datasets_told(catalogue) == ["raw at IN2P3"] * 2
    bring_files(catalogue, taken, night.second)
    assert datasets_told(catalogue) == ["raw at IN2P3"] * 2 + ["flats at IN2P3"]


def test_a_dataset_that_loses_a_copy_is_told_again_when_it_is_back(catalogue, night):
    rule = catalogue.rule(night.night, "IN2P3", notification="Y")
    evaluate(catalogue)
    taken = claim(catalogue)
    bring_files(catalogue, taken, night.first)
    root = Actor(catalogue.account_id, "root", Role.ADMIN)
    declaration = Declaration(BadReplicaState.BAD, "checksum")
    declare(catalogue.context, root, [Named("raw", "a-000002", rse="IN2P3")], declaration)
    evaluate(catalogue)
    assert datasets_told(catalogue) == ["raw at IN2P3"]
    catalogue.set_replica(night.first[2], night.in2p3, ReplicaState.AVAILABLE)
    catalogue.wake(rule)
    evaluate(catalogue)
    assert datasets_told(catalogue) == ["raw at IN2P3"] * 2


def test_what_lacks_only_a_file_that_is_detached_is_told_at_the_latest_with_the_rule(catalogue, night):
    rule = catalogue.rule(night.raw, "IN2P3", notification="Y")
    evaluate(catalogue)
    taken = claim(catalogue)
    bring_files(catalogue, taken, night.first[:3])
    catalogue.detach(night.raw, night.first[3:])
    catalogue.wake(rule)
    evaluate(catalogue)
    assert catalogue.rule_row(rule).state == RuleState.OK
    assert told(catalogue) == [("RULE_OK", None), ("DATASETLOCK_OK", "raw at IN2P3")]


def test_a_dataset_among_many_others_whose_files_are_mixed_with_its_own_is_found_out(catalogue):
    """More files are missing than are glanced at, and those of the dataset come last."""
    slac = catalogue.rse("SLAC")
    catalogue.rse("IN2P3")
    files = catalogue.files(600, at=[slac])
    # every third of the first 60, and the last of all
    mine = files[:60:3] + files[-1:]
    small = catalogue.collection("small", children=mine)
    rest = catalogue.collection("rest", children=sorted(set(files) - set(mine)))
    both = catalogue.collection("both", DidType.CONTAINER, children=[small, rest])
    catalogue.rule(both, "IN2P3", notification="Y")
    evaluate(catalogue)
    taken = claim(catalogue)
    bring_files(catalogue, taken, mine[:-1])
    assert told(catalogue) == []
    # with one of the other dataset, which is not complete: each is looked at by itself
    bring_files(catalogue, taken, files[-2:])
    assert told(catalogue) == [("DATASETLOCK_OK", "small at IN2P3")]


def test_what_is_to_be_looked_at_still_is_not_told(catalogue, night):
    rule = catalogue.rule(night.night, "IN2P3", notification="Y")
    evaluate(catalogue)
    taken = claim(catalogue)
    more = catalogue.files(1, prefix="c", at=[night.slac])
    catalogue.attach(night.raw, more)
    catalogue.wake(rule)
    bring_files(catalogue, taken, night.first)
    assert told(catalogue) == []
    evaluate(catalogue)
    assert told(catalogue) == []
    bring_files(catalogue, claim(catalogue), more)
    assert told(catalogue) == [("DATASETLOCK_OK", "raw at IN2P3")]


@pytest.mark.parametrize("letter", ["N", "Y", "C", "P"])
def test_telling_takes_the_same_statements_for_any_number_of_files_datasets_and_rules(
    catalogue, letter, record_property
):
    slac = catalogue.rse("SLAC")
    catalogue.rse("IN2P3")
    catalogue.rse("LANCS")
    counts: dict[str, list[int]] = {"evaluate": [], "settle": []}
    for size in (1, 12):
        sets = [
            catalogue.collection(
                f"set{size}-{number}", children=catalogue.files(size, prefix=f"f{size}-{number}", at=[slac])
            )
            for number in range(size)
        ]
        close(catalogue, *(f"set{size}-{number}" for number in range(size)))
        whole = catalogue.collection(f"whole{size}", DidType.CONTAINER, children=sets)
        close(catalogue, f"whole{size}")
        catalogue.rule(whole, "IN2P3", notification=letter)
        with counted_statements(catalogue.database) as statements:
            evaluate(catalogue)
        counts["evaluate"].append(len(statements))
        if size > 1:
            catalogue.rule(whole, "LANCS", notification=letter)
            evaluate(catalogue)
        taken = claim(catalogue)
        with counted_statements(catalogue.database) as statements:
            bring(catalogue, taken)
        counts["settle"].append(len(statements))
    record_property(letter, str(counts))
    print(catalogue.database.engine.dialect.name, letter, counts)
    assert len(set(counts["evaluate"])) == 1
    assert len(set(counts["settle"])) == 1
