"""What an evaluation takes from its items when a rule needs several chunks, or goes away, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, delete, insert, select, text, update

from arriero.registry.dialect import join_as_written
from arriero.registry.schema.tables import dids, evaluation_items, replicas, requests, rses, unplaced_groups
from arriero.registry.states import DidType, ReplicaState, RuleGrouping, RuleState
from arriero.registry.store.rules import delete_rule
from arriero.scheduler import evaluation_copies, temporary
from arriero.scheduler import evaluation_items as items
from arriero.scheduler.evaluate import SECOND_LOOK_S, Evaluator
from arriero.scheduler.evaluation_words import Scope
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


_READ = """
SELECT sum(pg_stat_get_xact_tuples_returned(relid)) FROM (
    SELECT 'contents'::regclass::oid AS relid
    UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = 'contents'::regclass
) AS read
"""


def read_in_taking(catalogue: Catalogue, rule_id: int, limit: int) -> int:
    """Take the files of one chunk; give how much is read for it."""
    with catalogue.database.transaction() as tx:
        temporary.prepare(tx, *temporary.EVALUATION_TABLES)
        join_as_written(tx)
        scope = Scope(rule_id, 0, DidType.CONTAINER, RuleGrouping.DATASET, 1)
        with counted_reads(tx) as read:
            items.take(tx, scope, limit=limit, stuck_retry_s=0)
        return read[0]


@contextmanager
def counted_reads(tx: Connection) -> Iterator[list[int]]:
    """How much is read meanwhile: rows of ``contents`` on PostgreSQL, steps of the virtual machine on SQLite."""
    read: list[int] = []
    if tx.dialect.name == "sqlite":
        steps: list[None] = []
        tx.connection.driver_connection.set_progress_handler(lambda: steps.append(None), 1)
        yield read
        tx.connection.driver_connection.set_progress_handler(None, 0)
        read.append(len(steps))
    else:
        before = tx.scalar(text(_READ))
        yield read
        read.append(int(tx.scalar(text(_READ)) - before))


@pytest.mark.parametrize("empty", [0, 70])
def test_datasets_are_counted_no_further_than_one_chunk_goes(catalogue, two_sites, empty):
    """However many are to be looked at, and if the first of them are empty."""
    files = catalogue.files(60)
    for number in range(empty):
        catalogue.collection(f"a{number:03}")
    read = []
    for number in range(120):
        catalogue.collection(f"b{number:03}", children=files)
    everything = catalogue.rows(select(dids.c.id, dids.c.name).where(dids.c.type == DidType.DATASET))
    names = sorted((row.name, row.id) for row in everything)
    for count in (empty + 4, empty + 120):
        top = catalogue.collection(
            f"all{count}", DidType.CONTAINER, children=[did_id for _, did_id in names[:count]]
        )
        rule_id = catalogue.rule(top, "IN2P3")
        # opens the container
        read_in_taking(catalogue, rule_id, 1)
        read.append(read_in_taking(catalogue, rule_id, 50))
        with catalogue.database.transaction() as tx:
            tx.execute(delete(evaluation_items))
    few, many = read
    if catalogue.database.is_postgresql:
        assert many <= 4 * 51
    assert many <= 1.5 * few + 100


@pytest.mark.parametrize(
    "sizes", [[5], [0], [0, 0], [4, 0, 1, 0, 5], [6, 1], [1, 6], [3, 3, 3], [0, 5, 0, 0]]
)
def test_datasets_are_taken_whole_or_in_parts_until_none_is_left(small_chunks, sizes):
    catalogue = small_chunks
    slac, in2p3 = catalogue.rse("SLAC"), catalogue.rse("IN2P3")
    sets = [
        catalogue.collection(
            f"s{number}",
            children=catalogue.files(size, prefix=f"f{number}", at=[slac]) if size else [],
        )
        for number, size in enumerate(sizes)
    ]
    rule = catalogue.rule(catalogue.collection("all", DidType.CONTAINER, children=sets), "IN2P3")
    evaluator = Evaluator(catalogue.context)
    chunks = []
    while held := evaluator._claim():
        chunks.append(evaluator.evaluate(held).files)
    assert sum(chunks) == sum(sizes)
    assert max(chunks) <= CHUNK
    assert {rse for held in catalogue.locks_of(rule).values() for rse in held} <= {in2p3}
    assert catalogue.count(evaluation_items) == 0
    catalogue.check_invariants()
