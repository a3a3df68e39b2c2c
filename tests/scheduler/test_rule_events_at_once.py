"""What owners of rules are told when several transactions bring it about at the same moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, select, text

from support.database import migrated_database
from support.notified import Night, bring, bring_files, claim, close, evaluate, told
from support.scheduling import Catalogue, dids
from support.services import drop_database


@pytest.fixture
def postgresql(services, tmp_path) -> Iterator[Catalogue]:
    url = migrated_database(services, "postgresql", tmp_path)
    made = Catalogue(url)
    yield made
    made.close()
    drop_database(services, url)


@contextmanager
def held_before_commit(catalogue: Catalogue, work: Callable[[], None]) -> Iterator[None]:
    """Have work done in a thread up to its commit, which waits until this ends."""
    done, go = threading.Event(), threading.Event()
    mine: list[int] = []

    def wait(_connection: Any) -> None:
        if threading.get_ident() in mine and not done.is_set():
            done.set()
            assert go.wait(30)

    def run() -> None:
        mine.append(threading.get_ident())
        work()

    event.listen(catalogue.database.engine, "commit", wait)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert done.wait(30)
        yield
    finally:
        go.set()
        thread.join(30)
        event.remove(catalogue.database.engine, "commit", wait)


def wait_for_a_lock(catalogue: Catalogue) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with catalogue.database.snapshot() as connection:
            if connection.scalar(text(query)):
                return
        time.sleep(0.01)
    raise AssertionError("nobody waits")


def test_two_settlers_that_bring_the_last_files_of_a_dataset_at_once_tell_it_once(postgresql):
    night = Night(postgresql)
    postgresql.rule(night.night, "IN2P3", notification="Y")
    evaluate(postgresql)
    taken = claim(postgresql)
    later = threading.Thread(target=bring_files, args=(postgresql, taken, night.first[2:]))
    with held_before_commit(postgresql, lambda: bring_files(postgresql, taken, night.first[:2])):
        later.start()
        wait_for_a_lock(postgresql)
    later.join(30)
    assert told(postgresql) == [("DATASETLOCK_OK", "raw at IN2P3")]
    postgresql.check_invariants()


@pytest.mark.parametrize("closes_first", [True, False])
def test_closing_while_the_last_file_comes_is_told_once(postgresql, closes_first):
    night = Night(postgresql)
    postgresql.rule(night.raw, "IN2P3", notification="C")
    evaluate(postgresql)
    taken = claim(postgresql)

    def closing() -> None:
        close(postgresql, "raw")

    def settling() -> None:
        bring(postgresql, taken)

    first, second = (closing, settling) if closes_first else (settling, closing)
    later = threading.Thread(target=second)
    with held_before_commit(postgresql, first):
        later.start()
        wait_for_a_lock(postgresql)
    later.join(30)
    assert postgresql.one(select(dids.c.is_open).where(dids.c.id == night.raw))[0] is False
    assert told(postgresql) == [("RULE_OK", None), ("DATASETLOCK_OK", "raw at IN2P3")]
