"""How the work of an evaluation grows: ratios of runs of the same size, on PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text, update

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import replicas
from arriero.scheduler.evaluate import Evaluator
from support.database import migrated_database
from support.scheduling import Catalogue
from support.services import drop_database

FILES = 10_000
TOMBSTONES_COST = 8
"""How many times as long an evaluation may take that takes tombstones from all its replicas. Measured: 2 to 3."""


@pytest.fixture
def catalogue(services, tmp_path) -> Iterator[Catalogue]:
    url = migrated_database(services, "postgresql", tmp_path)
    catalogue = Catalogue(url)
    yield catalogue
    catalogue.close()
    drop_database(services, url)


def evaluated_s(catalogue: Catalogue, rule_id: int) -> float:
    begun = time.perf_counter()
    Evaluator(catalogue.context).run()
    took_s = time.perf_counter() - begun
    assert catalogue.rule_row(rule_id).locks_ok == FILES
    return took_s


@pytest.mark.parametrize("statistics", ["with", "without"])
def test_replicas_with_tombstones_are_taken_back_as_a_set(catalogue, statistics):
    slac = catalogue.rse("SLAC")
    sets = [
        catalogue.collection(name, children=catalogue.files(FILES, prefix=name, at=[slac]))
        for name in ("first", "plain", "buried")
    ]
    if statistics == "with":
        with catalogue.database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))
    evaluated_s(catalogue, catalogue.rule(sets[0], "SLAC"))
    plain_s = evaluated_s(catalogue, catalogue.rule(sets[1], "SLAC"))
    with catalogue.database.transaction() as tx:
        tx.execute(update(replicas).values(tombstone=now()))
    buried_s = evaluated_s(catalogue, catalogue.rule(sets[2], "SLAC"))
    assert catalogue.one(text("SELECT count(*) FROM replicas WHERE tombstone IS NULL"))[0] == FILES
    assert buried_s < TOMBSTONES_COST * plain_s, f"{buried_s:.2f} s and {plain_s:.2f} s"
