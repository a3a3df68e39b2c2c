"""What an evaluation takes from its items when a rule needs several chunks, or goes away, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import insert, select, update

from arriero.registry.schema.tables import evaluation_items, replicas, requests, rses, unplaced_groups
from arriero.registry.states import DidType, ReplicaState, RuleGrouping, RuleState
from arriero.registry.store.rules import delete_rule
from arriero.scheduler import evaluation_copies
from arriero.scheduler.evaluate import SECOND_LOOK_S, Evaluator
from support.database import migrated_database
from support.scheduling import Catalogue, evaluations
from support.services import drop_database

CHUNK = 5


@pytest.fixture
def small_chunks(services, database_kind, tmp_path) -> Iterator[Catalogue]:
    url = migrated_database(services, database_kind, tmp_path)
    made = Catalogue(url, evaluation_chunk_files=CHUNK)
    yield made
    made.close()
    drop_database(services, url)


def open_for_writing(catalogue: Catalogue, rse_id: int, is_open: bool) -> None:
    """Behind the back of whoever would have rules looked at: as when space or a limit frees itself."""
    with catalogue.database.transaction() as tx:
        tx.execute(update(rses).where(rses.c.id == rse_id).values(availability_write=is_open))


@pytest.mark.parametrize("grouping", list(RuleGrouping))
@pytest.mark.parametrize("kind", [DidType.DATASET, DidType.CONTAINER])
def test_a_group_that_gets_its_place_between_two_chunks_is_placed_whole(small_chunks, grouping, kind):
    catalogue = small_chunks
    slac, in2p3 = catalogue.rse("SLAC"), catalogue.rse("IN2P3")
    did = catalogue.collection("night", children=catalogue.files(CHUNK + 2, at=[slac]))
    if kind is DidType.CONTAINER:
        did = catalogue.collection("all", DidType.CONTAINER, children=[did])
    open_for_writing(catalogue, in2p3, False)
    rule = catalogue.rule(did, "IN2P3", grouping=grouping)
    evaluator = Evaluator(catalogue.context)
    assert not evaluator.evaluate(evaluator._claim()).complete
    assert catalogue.rule_row(rule).state is RuleState.STUCK
    open_for_writing(catalogue, in2p3, True)
    evaluator.run()
    catalogue.age(evaluations, SECOND_LOOK_S + 1, "not_before", "retry_at")
    evaluator.run()
    assert len(catalogue.locks_of(rule)) == CHUNK + 2
    assert catalogue.count(unplaced_groups) == 0
    catalogue.check_invariants()


def test_a_rule_that_has_just_become_stuck_is_looked_at_soon_once_more(catalogue, two_sites):
    """Who opened an RSE at the same moment has seen no STUCK rule, and the evaluation has not seen it open."""
    slac, in2p3 = two_sites
    open_for_writing(catalogue, in2p3, False)
    rule = catalogue.rule(catalogue.collection("night", children=catalogue.files(2, at=[slac])), "IN2P3")
    evaluator = Evaluator(catalogue.context)
    evaluator.run()
    row = catalogue.one(select(evaluations.c.retry_at, evaluations.c.created_at))
    assert (row.retry_at - row.created_at).total_seconds() < SECOND_LOOK_S + 30
    catalogue.age(evaluations, SECOND_LOOK_S + 1, "not_before", "retry_at")
    evaluator.run()
    row = catalogue.one(select(evaluations.c.retry_at, evaluations.c.created_at))
    assert (row.retry_at - row.created_at).total_seconds() > 3600
    assert catalogue.rule_row(rule).state is RuleState.STUCK


def test_a_rule_that_has_gone_while_it_was_claimed_leaves_no_items(catalogue, two_sites):
    slac, _ = two_sites
    rule = catalogue.rule(catalogue.collection("night", children=catalogue.files(1, at=[slac])), "IN2P3")
    evaluator = Evaluator(catalogue.context)
    held = evaluator._claim()
    with catalogue.database.transaction() as tx:
        delete_rule(tx, rule)
    report = evaluator.evaluate(held)
    assert (report.complete, report.state) == (True, None)
    assert catalogue.count(evaluation_items) == 0


@pytest.mark.parametrize("came", [ReplicaState.AVAILABLE, ReplicaState.UNAVAILABLE])
@pytest.mark.parametrize("grouping", list(RuleGrouping))
def test_a_replica_that_comes_just_before_the_copies_are_written(
    catalogue, two_sites, monkeypatch, grouping, came
):
    slac, in2p3 = two_sites
    files = catalogue.files(3, at=[slac])
    rule = catalogue.rule(catalogue.collection("night", children=files), "IN2P3", grouping=grouping)
    copy_what_is_new = evaluation_copies.copy_what_is_new
    plainly = []

    def one_comes_first(tx, *args):
        tx.execute(insert(replicas).values(file_id=files[1], rse_id=in2p3, bytes=1000, state=came))
        plainly.append(copy_what_is_new(tx, *args))
        return plainly[-1]

    monkeypatch.setattr(evaluation_copies, "copy_what_is_new", one_comes_first)
    Evaluator(catalogue.context).run()
    assert plainly == [False]
    row = catalogue.rule_row(rule)
    is_there = came is ReplicaState.AVAILABLE
    assert (row.locks_ok, row.locks_replicating) == (int(is_there), 3 - is_there)
    assert catalogue.count(requests) == 3 - is_there
    catalogue.check_invariants()
