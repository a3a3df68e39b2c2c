"""Statements that answer about a few rows read a few rows: on PostgreSQL, loaded in bulk, without statistics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import event, text

from arriero.registry.services import dids, rules
from arriero.registry.states import DidType
from arriero.registry.store import dids as store
from support.database import migrated_database
from support.scheduling import Catalogue
from support.services import drop_database

LARGE = ("dids", "replicas", "contents", "locks", "requests")


@pytest.fixture(scope="module")
def loaded(services, tmp_path_factory):
    url = migrated_database(services, "postgresql", tmp_path_factory.mktemp("plans"))
    catalogue = Catalogue(url)
    with catalogue.database.transaction() as tx:
        for table in LARGE:
            tx.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = false)"))
        tx.execute(text("INSERT INTO scopes (name, account_id, created_at) VALUES ('other', 1, now())"))
    slac = catalogue.rse("SLAC", attributes={"lfn2pfn_algorithm": "identity"})
    files = catalogue.files(50_000, at=[slac])
    sets = [catalogue.collection(f"set{i}", children=files[i * 5000 : i * 5000 + 5000]) for i in range(10)]
    catalogue.collection("top", DidType.CONTAINER, children=sets)
    yield catalogue
    catalogue.close()
    drop_database(services, url)


def scanned(catalogue: Catalogue, work: Callable[[], object]) -> list[str]:
    """Explain the queries that ``work`` makes; give those that read a large table from end to end."""
    engine = catalogue.database.engine
    seen: list[tuple[str, object]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        if statement.startswith(("SELECT", "WITH")):
            seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert seen
    found = []
    with catalogue.database.transaction() as tx:
        for statement, parameters in seen:
            plan = "\n".join(row[0] for row in tx.exec_driver_sql(f"EXPLAIN {statement}", parameters))
            found += [plan for table in LARGE if f"Seq Scan on {table}" in plan]
    return found


NAMES = [("raw", f"file-{number:06d}") for number in range(0, 50_000, 500)]


@pytest.mark.parametrize("keys", [NAMES[:1], NAMES, [*NAMES, ("other", "x"), ("nowhere", "y")]])
def test_dids_are_found_by_their_names(loaded, keys):
    with loaded.database.snapshot() as connection:
        assert len(store.find_dids(connection, keys)) == len(set(keys) & set(NAMES))
        assert scanned(loaded, lambda: store.find_dids(connection, keys)) == []


def test_one_did_and_its_rules(loaded):
    assert scanned(loaded, lambda: dids.get_did(loaded.context, *NAMES[0])) == []
    assert scanned(loaded, lambda: list(rules.list_did_rules(loaded.context, *NAMES[0]))) == []
