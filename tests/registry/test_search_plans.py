"""Searches read what they find, not what there is: plans of PostgreSQL on 200,000 files and 2,000 datasets."""

from __future__ import annotations

import json
import time

import pytest
from sqlalchemy import event, text

from arriero.registry.services import did_lists
from support.database import migrated_database
from support.scheduling import Catalogue
from support.services import drop_database

FILES, DATASETS = 200_000, 2_000

LOAD = """
INSERT INTO dids (scope_id, name, type, account_id, is_open, monotonic, bytes, spread, created_at, updated_at)
SELECT s.id, 'LSSTCam/raw/' || lpad(n::text, 9, '0') || '.fits', 'FILE', 1, true, false, n, n, now(), now()
FROM scopes s, generate_series(1, :files) n WHERE s.name = 'raw';
INSERT INTO dids (scope_id, name, type, account_id, is_open, monotonic, spread, created_at, updated_at)
SELECT s.id, 'Dataset/LSSTCam/night-' || lpad(n::text, 6, '0'), 'DATASET', 1, true, false, n, now(), now()
FROM scopes s, generate_series(1, :datasets) n WHERE s.name = 'raw';
INSERT INTO did_meta (did_id, meta)
SELECT id, jsonb_build_object('exposure', id / 200, 'detector', id % 189, 'filter', 'r_' || id % 6,
                              'rubin_butler', 'raw')
FROM dids WHERE type = 'FILE'
"""


@pytest.fixture(scope="module")
def loaded(services, tmp_path_factory):
    url = migrated_database(services, "postgresql", tmp_path_factory.mktemp("search"))
    catalogue = Catalogue(url)
    with catalogue.database.transaction() as tx:
        for statement in LOAD.split(";"):
            wanted = {
                key: value
                for key, value in (("files", FILES), ("datasets", DATASETS))
                if f":{key}" in statement
            }
            tx.execute(text(statement), wanted)
    with catalogue.database.transaction() as tx:
        tx.execute(text("ANALYZE dids, did_meta"))
    yield catalogue
    catalogue.close()
    drop_database(services, url)


def explained(catalogue: Catalogue, filters: list[dict[str, object]], **options: object):
    """Search; give what is found, the plan of the query with what it really read, and the milliseconds."""
    seen: list[tuple[str, object]] = []

    settings: list[tuple[str, object]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        if statement.startswith("SET LOCAL"):
            settings.append((statement, parameters))
        elif "dids" in statement and statement.startswith(("SELECT", "WITH")):
            seen.append((statement, parameters))

    engine = catalogue.database.engine
    event.listen(engine, "before_cursor_execute", note)
    began = time.perf_counter()
    try:
        query = {"did_type": "collection", "long": False, "recursive": False, **options}
        found = list(did_lists.search(catalogue.context, "raw", filters=json.dumps(filters), **query))
    finally:
        event.remove(engine, "before_cursor_execute", note)
    took = time.perf_counter() - began
    [(statement, parameters)] = seen
    with catalogue.database.transaction() as tx:
        for setting in settings:
            tx.exec_driver_sql(*setting)
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
        [plan] = tx.exec_driver_sql(explain, parameters).scalars().one()
    print(
        f"\n{filters} {options}: {len(found)} in {took * 1000:.1f} ms, {buffers(plan)} buffers, {indexes(plan)}"
    )
    return found, plan


def nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def indexes(plan) -> set[str]:
    return {node["Index Name"] for node in nodes(plan["Plan"]) if "Index Name" in node}


def buffers(plan) -> int:
    return plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]


def whole_tables(plan) -> set[str]:
    return {node["Relation Name"] for node in nodes(plan["Plan"]) if node["Node Type"] == "Seq Scan"}


@pytest.mark.parametrize(
    ("filters", "options", "count", "index", "most"),
    [
        ([{"exposure": 300}], {"did_type": "file"}, 200, "ix_did_meta_searched", 2500),
        ([{"exposure": 300, "detector": 100}], {"did_type": "file"}, 1, "ix_did_meta_searched", 1500),
        ([{"exposure": 300}, {"exposure": 301}], {"did_type": "file"}, 400, "ix_did_meta_searched", 4500),
        ([{"name": "LSSTCam/raw/0001234*"}], {"did_type": "file"}, 100, "uq_dids_scope_id_name", 150),
        ([{"name": "LSSTCam/raw/000123456.fits"}], {"did_type": "file"}, 1, "uq_dids_scope_id_name", 20),
        ([{"name": "*night-0012*"}], {}, 100, "ix_dids_collections", 400),
        ([{"name": "*night-0012*"}], {"did_type": "dataset"}, 100, "ix_dids_collections", 400),
        (
            [],
            {"did_type": "file", "limit": 100, "behind": "LSSTCam/raw/000100000"},
            100,
            "uq_dids_scope_id_name",
            150,
        ),
        ([], {"limit": 50}, 50, "ix_dids_collections", 100),
        (
            [{"name": "LSSTCam/raw/000123*", "detector.gte": 180}],
            {"did_type": "file"},
            None,
            "uq_dids_scope_id_name",
            8000,
        ),
    ],
    ids=json.dumps,
)
def test_a_search_reads_what_it_finds(loaded, filters, options, count, index, most):
    found, plan = explained(loaded, filters, **options)
    assert found
    assert count is None or len(found) == count
    assert index in indexes(plan)
    assert whole_tables(plan) <= {"scopes"}
    assert buffers(plan) < most


def test_a_range_with_nothing_else_to_go_by_reads_the_scope_once(loaded):
    """No index has the order of every key: a name or an equal value beside it bounds such a search."""
    found, plan = explained(loaded, [{"exposure.gt": 990}], did_type="file")
    with loaded.database.snapshot() as connection:
        expected = connection.scalar(
            text("SELECT count(*) FROM did_meta WHERE (meta->>'exposure')::int > 990")
        )
    assert len(found) == expected > 0
    assert sum(node["Node Type"] == "Seq Scan" for node in nodes(plan["Plan"])) <= 3
