"""A subscription that is applied to the past reads the collections, not the files among which they lie."""

from __future__ import annotations

import pytest
from sqlalchemy import event, func, insert, select, text

from arriero.registry.schema.tables import dids
from arriero.scheduler.subscription_page import read_page
from arriero.scheduler.subscription_queue import Batch
from support.in_process import catalogue
from support.subscriptions import site, subscribed

__all__ = ["catalogue", "site"]

FILES, DATASETS, LIMIT = 20_000, 200, 50
WALK = "ix_dids_collection_ids"


@pytest.fixture
def loaded(site):
    """Datasets that lie a hundred files apart."""
    rows = [
        {
            "scope_id": 1,
            "name": f"{number:06d}",
            "type": "FILE" if number % (FILES // DATASETS + 1) else "DATASET",
            "account_id": site.root.account_id,
            "spread": number,
        }
        for number in range(FILES + DATASETS)
    ]
    with site.database.transaction() as tx:
        tx.execute(insert(dids), rows)
    with site.database.transaction() as tx:
        tx.execute(text("ANALYZE dids" if site.database.is_postgresql else "ANALYZE"))
    return site


def walked(site, **filter_: object) -> tuple[int, str]:
    """Read a page of a walk over everything; give how many DIDs were taken, and the plan of reading them."""
    subscribed(site, "nightly", {"scope": ["raw"], **filter_})
    seen: list[tuple[str, object]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        if "BETWEEN" in statement:
            seen.append((statement, parameters))

    with site.database.transaction() as tx:
        last = tx.scalar(select(func.max(dids.c.id)))
        batch = Batch("w", (1,), None, False, 1, (), (1, last), LIMIT)
        event.listen(site.database.engine, "before_cursor_execute", note)
        try:
            page = read_page(tx, batch)
        finally:
            event.remove(site.database.engine, "before_cursor_execute", note)
        [(statement, parameters)] = seen
        explain = "EXPLAIN" if site.database.is_postgresql else "EXPLAIN QUERY PLAN"
        plan = tx.exec_driver_sql(f"{explain} {statement}", parameters).all()
    [taken] = page.taken.values()
    return len(taken), "\n".join(str(row[-1]) for row in plan)


def test_a_walk_over_the_past_reads_collections_by_their_own_index(loaded):
    taken, plan = walked(loaded)
    assert taken == LIMIT
    assert WALK in plan
    assert "Seq Scan on dids" not in plan


def test_a_walk_for_files_does_not(loaded):
    taken, plan = walked(loaded, did_type=["FILE"])
    # among the fifty is a dataset, which the filter refuses
    assert taken == LIMIT - 1
    assert WALK not in plan
