"""A rule with many locks is explained in a few passes over them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select, text

from arriero.registry.dialect import bulk_insert
from arriero.registry.schema.tables import locks, request_history, requests, rules
from arriero.registry.states import LockState
from arriero.registry.store import rule_explanation as store
from support.processor import processor_s
from support.server import running_registry

LOCKS = 40_000
STUCK = LOCKS // 10
RSES = 20
CODES = ("no_source", "checksum_mismatch", "timed_out", "bad_replica")
STATES = ("OK",) * 5 + ("REPLICATING",) * 4 + ("STUCK",)

TIMES = 10
SLOWER_THAN_A_COUNT = 80
"""How many times as long as one count of the same locks everything may take. Measured: 16 to 27."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request, services, tmp_path_factory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("explained")
    with running_registry(services, request.param, directory) as registry:
        yield filled(registry)


def filled(registry: Any) -> Any:
    client = registry.client()
    client.add_scope("root", "raw")
    for number in range(RSES):
        client.add_rse(f"R{number:02d}")
    client.add_did("raw", "d", "DATASET")
    [rule_id] = client.add_replication_rule([{"scope": "raw", "name": "d"}], 1, "*")
    at = datetime.now(tz=UTC)
    with registry.database.transaction() as tx:
        key = tx.scalar(select(rules.c.id))
        bulk_insert(
            tx,
            locks,
            ("rule_id", "file_id", "rse_id", "bytes", "state", "code", "created_at"),
            (
                (
                    key,
                    number + 1,
                    number % RSES + 1,
                    1000,
                    STATES[number % 10],
                    CODES[number // 10 % 4] if number % 10 == 9 else None,
                    at,
                )
                for number in range(LOCKS)
            ),
        )
        wanted = ("type", "file_id", "destination_id", "bytes", "activity", "priority", "state", "attempt")
        bulk_insert(
            tx,
            requests,
            (*wanted, "not_before", "fence", "created_at"),
            (
                ("TRANSFER", number + 1, number % RSES + 1, 1000, "x", 3, "QUEUED", 0, at, 0, at)
                for number in range(LOCKS)
                if number % 10 in {5, 6, 7, 8}
            ),
        )
        ended = ("at", "request_id", "file_id", "destination_id", "source_id", "state", "attempt", "bytes")
        bulk_insert(
            tx,
            request_history,
            (*ended, "seconds", "created_at"),
            (
                (at, number, number + 1, number % RSES + 1, 1, "DONE", 1, 1000, 0.5, at)
                for number in range(2 * store.RECENT_COPIES)
            ),
        )
        tx.execute(
            rules.update().values(
                state="STUCK", locks_ok=LOCKS // 2, locks_replicating=4 * LOCKS // 10, locks_stuck=STUCK
            )
        )
    if registry.database.is_postgresql:
        with registry.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
    return registry, client, rule_id, key


def test_it_takes_as_long_as_a_few_counts(world):
    registry, client, rule_id, key = world
    told = client.explain_replication_rule(rule_id)
    assert sum(wait.files for wait in told.waits) + told.files_left_out == LOCKS // 2
    assert sum(one.files for one in told.rses) == LOCKS
    assert sum(link.copies_measured for link in told.ending.links) <= store.RECENT_COPIES

    counted = select(func.count()).select_from(locks).where(locks.c.rule_id == key)
    counted = counted.where(locks.c.state != LockState.OK)

    def count() -> None:
        with registry.database.snapshot() as connection:
            assert connection.scalar(counted) == LOCKS // 2

    database = registry.database
    ours = processor_s(database, lambda: [client.explain_replication_rule(rule_id) for _ in range(TIMES)])
    bare = processor_s(database, lambda: [count() for _ in range(TIMES)])
    print(f"{TIMES} explained in {ours * 1000:.0f} ms, counted in {bare * 1000:.0f} ms: {ours / bare:.0f}")
    assert ours < SLOWER_THAN_A_COUNT * bare


def test_what_it_reads(world):
    """The locks of the rule, each once a statement; of the history only its end."""
    registry, _, _, key = world
    with registry.database.snapshot() as connection:
        prefix = "EXPLAIN" if registry.database.is_postgresql else "EXPLAIN QUERY PLAN"

        def plan(query: Any) -> str:
            compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
            return "\n".join(str(row) for row in connection.execute(text(f"{prefix} {compiled}")))

        waits = plan(store.waits_of(key))
        recent = plan(store.recent_rates_query())
    if registry.database.is_postgresql:
        assert "Seq Scan on request_history" not in recent
        assert "Limit" in recent
    else:
        assert "SCAN locks" not in waits
        assert "USING INDEX sqlite_autoindex_requests_1" in waits
