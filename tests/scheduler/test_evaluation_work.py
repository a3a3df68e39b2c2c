"""How the work of an evaluation grows: ratios of processor time of runs of the same size, on PostgreSQL."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event, text, update

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import replicas
from arriero.registry.states import DidType, RuleGrouping
from arriero.registry.store.evaluations import look_at_rules
from arriero.scheduler.evaluate import Evaluator
from support.database import migrated_database
from support.processor import processor_s
from support.scheduling import Catalogue
from support.services import drop_database

FILES = 10_000
TOMBSTONES_COST = 8
"""How many times as long an evaluation may take that takes tombstones from all its replicas. Measured: 1.5 to 3."""


@pytest.fixture
def catalogue(services, tmp_path) -> Iterator[Catalogue]:
    url = migrated_database(services, "postgresql", tmp_path)
    catalogue = Catalogue(url)
    yield catalogue
    catalogue.close()
    drop_database(services, url)


def evaluated_s(catalogue: Catalogue, rule_id: int) -> float:
    took_s = processor_s(catalogue.database, Evaluator(catalogue.context).run)
    assert catalogue.rule_row(rule_id).locks_ok == FILES
    return took_s


@pytest.mark.parametrize("statistics", ["with", "without"])
def test_replicas_with_tombstones_are_taken_back_as_a_set(catalogue, statistics):
    slac = catalogue.rse("SLAC")
    sets = [
        catalogue.collection(name, children=catalogue.files(FILES, prefix=name, at=[slac]))
        for name in ("first", "plain", "buried", "buried_too")
    ]
    if statistics == "with":
        with catalogue.database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))
    evaluated_s(catalogue, catalogue.rule(sets[0], "SLAC"))
    plain_s = evaluated_s(catalogue, catalogue.rule(sets[1], "SLAC"))
    with catalogue.database.transaction() as tx:
        tx.execute(update(replicas).values(tombstone=now()))
    buried_s = min(evaluated_s(catalogue, catalogue.rule(buried, "SLAC")) for buried in sets[2:])
    assert catalogue.one(text("SELECT count(*) FROM replicas WHERE tombstone IS NULL"))[0] == 2 * FILES
    assert buried_s < TOMBSTONES_COST * plain_s, f"{buried_s:.2f} s and {plain_s:.2f} s"


WORK = 8_000
TIMES = 15
"""How many times as long as that of a new rule any other evaluation of as many files may take. Measured: 1 to 5."""

_HISTORY = """
INSERT INTO request_history
  (at, request_id, file_id, source_id, destination_id, rule_id, state, attempt, bytes, created_at)
SELECT now(), id, file_id, source_id, destination_id, rule_id, 'FAILED', 1, bytes, created_at FROM requests
WHERE rule_id = :rule
"""


def test_every_evaluation_works_on_sets(catalogue):
    """Without statistics, when the planner expects a handful of rows wherever it guesses."""
    slac, in2p3 = catalogue.rse("SLAC"), catalogue.rse("IN2P3")
    for name in ("ONE", "OTHER"):
        catalogue.rse(name, attributes={"spare": "1"})
    took: dict[str, float] = {}

    def measure(what: str) -> None:
        took[what] = processor_s(catalogue.database, Evaluator(catalogue.context).run)

    def write(statement: str, **values: Any) -> None:
        with catalogue.database.transaction() as tx:
            tx.execute(text(statement), values)

    files = catalogue.files(WORK, prefix="one", at=[slac])
    dataset = catalogue.collection("one", children=files)
    rule_id = catalogue.rule(dataset, "IN2P3")
    measure("new")
    shared = catalogue.rule(dataset, "IN2P3|IN2P3", priority=5)
    measure("copies are shared")
    assert catalogue.rule_row(shared).locks_replicating == WORK

    write("UPDATE replicas SET state = 'AVAILABLE' WHERE rse_id = :rse", rse=in2p3)
    catalogue.database.run(lambda tx: look_at_rules(tx, [rule_id]))
    measure("copies came by themselves")
    assert catalogue.rule_row(rule_id).locks_ok == WORK

    catalogue.detach(dataset, files)
    catalogue.database.run(lambda tx: look_at_rules(tx, [rule_id, shared]))
    measure("detached")
    assert catalogue.locks_of(rule_id) == catalogue.locks_of(shared) == {}

    files = catalogue.files(WORK, prefix="two", at=[slac])
    rule_id = catalogue.rule(
        catalogue.collection("two", children=files), "spare=1", grouping=RuleGrouping.NONE
    )
    measure("file by file")
    write(
        "UPDATE replicas SET state = 'UNAVAILABLE', updated_at = now() - interval '3 h' WHERE state = 'COPYING'"
    )
    write("UPDATE locks SET state = 'STUCK', code = 'unreachable' WHERE rule_id = :rule", rule=rule_id)
    write("UPDATE requests SET state = 'FAILED' WHERE rule_id = :rule", rule=rule_id)
    write(_HISTORY, rule=rule_id)
    write(
        "UPDATE rules SET locks_stuck = locks_replicating, locks_replicating = 0, state = 'STUCK' WHERE id = :rule",
        rule=rule_id,
    )
    catalogue.wake(rule_id)
    write("UPDATE evaluations SET retry_at = now()")
    before = catalogue.locks_of(rule_id)
    measure("tried elsewhere")
    after = catalogue.locks_of(rule_id)
    assert all(not before[file_id] & after[file_id] for file_id in files)
    assert catalogue.rule_row(rule_id).locks_replicating == WORK

    assert max(took.values()) < TIMES * took["new"], took


PER_DATASET = 2
DATASETS = 8_000
SHARE = 0.15
"""Of the time of all statements, what finding the new groups may take. Measured: 0.01; 0.5 with a loop over pairs."""

_FILES = """
INSERT INTO dids (scope_id, name, type, account_id, is_open, monotonic, bytes, adler32, spread, created_at, updated_at)
SELECT :scope, :prefix || '-file-' || i, 'FILE', :account, false, false, 1000, '0000002a', i, now(), now()
FROM generate_series(0, :files - 1) i
"""
_DATASETS = """
INSERT INTO dids (scope_id, name, type, account_id, is_open, monotonic, spread, created_at, updated_at)
SELECT :scope, :prefix || '-set-' || i, 'DATASET', :account, true, false, 0, now(), now()
FROM generate_series(0, :files / :each - 1) i
"""
_HELD = """
INSERT INTO contents (parent_id, child_id, created_at)
SELECT parent.id, child.id, now() FROM generate_series(0, :files - 1) i
JOIN dids child ON child.name = :prefix || '-file-' || i
JOIN dids parent ON parent.name = :prefix || '-set-' || (i / :each)
UNION ALL SELECT :top, id, now() FROM dids WHERE name LIKE :prefix || '-set-%'
"""
_REPLICAS = """
INSERT INTO replicas (file_id, rse_id, bytes, state, created_at, updated_at)
SELECT id, :rse, 1000, 'AVAILABLE', now(), now() FROM dids WHERE name LIKE :prefix || '-file-%'
"""


def night_of(catalogue: Catalogue, prefix: str, datasets: int, rse_id: int) -> int:
    """Make a container of datasets of two files each; give its id."""
    top = catalogue.collection(prefix, DidType.CONTAINER)
    known = {
        "scope": catalogue.scope_id,
        "account": catalogue.account_id,
        "prefix": prefix,
        "files": datasets * PER_DATASET,
        "each": PER_DATASET,
        "top": top,
        "rse": rse_id,
    }
    with catalogue.database.transaction() as tx:
        for statement in (_FILES, _DATASETS, _HELD, _REPLICAS):
            tx.execute(text(statement), {key: known[key] for key in known if f":{key}" in statement})
    return top


def test_a_chunk_of_many_datasets_looks_at_each_once(catalogue):
    slac = catalogue.rse("SLAC")
    catalogue.rse("IN2P3")
    rule_id = catalogue.rule(night_of(catalogue, "night", DATASETS, slac), "IN2P3")
    spent: Counter[str] = Counter()
    begun: list[float] = []

    def before(*_: Any) -> None:
        begun.append(time.perf_counter())

    def after(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        spent[statement] += time.perf_counter() - begun.pop()

    event.listen(catalogue.database.engine, "before_cursor_execute", before)
    event.listen(catalogue.database.engine, "after_cursor_execute", after)
    Evaluator(catalogue.context).run()
    assert catalogue.rule_row(rule_id).locks_replicating == DATASETS * PER_DATASET
    finding = sum(took for statement, took in spent.items() if statement.startswith("UPDATE eval_sets"))
    assert 0 < finding < SHARE * spent.total()
