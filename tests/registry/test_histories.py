"""Histories have a partition for each month on PostgreSQL, made ahead; what is too old goes, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy import func, insert, select, text

from arriero.registry import migrate
from arriero.registry.schema.tables import audit_log, events
from arriero.registry.services import histories
from arriero.registry.store import histories as store

NOW = datetime.now(tz=UTC)


def write(catalogue, *instants: datetime) -> None:
    with catalogue.database.transaction() as connection:
        for at in instants:
            connection.execute(insert(audit_log).values(at=at, action="x", allowed=True))
            connection.execute(insert(events).values(event_type="x", key="k", payload={}, created_at=at))


def rows_in(catalogue, partition: str) -> int:
    with catalogue.database.snapshot() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {partition}")) or 0)


def months_ago(count: int) -> datetime:
    return store.months_from(store.month_of(NOW), -count)[-1] + timedelta(days=3)


def test_months_are_counted_over_the_end_of_a_year():
    assert store.months_from(datetime(2026, 11, 1, tzinfo=UTC), 2)[-1] == datetime(2027, 1, 1, tzinfo=UTC)
    assert store.months_from(datetime(2026, 2, 1, tzinfo=UTC), -13)[-1] == datetime(2025, 1, 1, tzinfo=UTC)


def test_what_is_older_than_the_retention_goes_and_nothing_else(catalogue, monkeypatch):
    monkeypatch.setattr(histories, "_BATCH", 2)
    before = catalogue.count(audit_log)
    kept, gone = [NOW, months_ago(13)], [months_ago(14)] * 5
    write(catalogue, *gone, *kept)
    histories.maintain_histories(catalogue.context)
    assert catalogue.count(audit_log) == before + len(kept)
    assert catalogue.count(events) == len(kept)
    oldest = catalogue.rows(select(func.min(events.c.created_at).label("at")))[0]["at"]
    assert oldest == pytest.approx(months_ago(13), abs=timedelta(seconds=1))
    assert histories.maintain_histories(catalogue.context) == 0


def test_months_are_made_ahead_with_the_rows_that_were_there_before(postgresql_catalogue):
    write(postgresql_catalogue, NOW, NOW, months_ago(1))
    histories.maintain_histories(postgresql_catalogue.context)
    assert rows_in(postgresql_catalogue, store.partition_of(events.c.created_at, NOW)) == 2
    assert rows_in(postgresql_catalogue, "events_default") == 1
    write(postgresql_catalogue, NOW, store.months_from(store.month_of(NOW), 2)[-1])
    assert rows_in(postgresql_catalogue, store.partition_of(events.c.created_at, NOW)) == 3
    assert rows_in(postgresql_catalogue, "events_default") == 1
    assert postgresql_catalogue.count(events) == 5
    migrate.compare(postgresql_catalogue.url)


def test_old_months_are_dropped_whole(postgresql_catalogue):
    old, first_kept = store.month_of(months_ago(20)), store.month_of(months_ago(13))
    with postgresql_catalogue.database.transaction() as connection:
        for month in (old, first_kept):
            store.add_month(connection, audit_log.c.at, month)
    write(postgresql_catalogue, old, first_kept)
    histories.maintain_histories(postgresql_catalogue.context)
    with postgresql_catalogue.database.snapshot() as connection:
        there = store.partitions(connection)
    assert store.partition_of(audit_log.c.at, old) not in there
    assert store.partition_of(audit_log.c.at, first_kept) in there
    assert rows_in(postgresql_catalogue, store.partition_of(audit_log.c.at, first_kept)) == 1


def test_of_several_at_once_one_works_while_others_write(postgresql_catalogue):
    together, failures = Barrier(4), []

    def run(work) -> None:
        together.wait()
        try:
            for _ in range(10):
                work()
        except Exception as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [
        Thread(target=run, args=(work,))
        for work in (
            lambda: histories.maintain_histories(postgresql_catalogue.context),
            lambda: histories.maintain_histories(postgresql_catalogue.context),
            lambda: write(postgresql_catalogue, NOW),
            lambda: write(postgresql_catalogue, NOW),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert postgresql_catalogue.count(events) == 20
    assert rows_in(postgresql_catalogue, "events_default") == 0
