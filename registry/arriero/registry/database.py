"""The database: engine, transactions, and the retry of those that lost a race.

Transactions begin in services only: a store function takes a connection that is in one already.
"""

import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import orjson
import structlog
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from arriero.registry.errors import Busy
from arriero.registry.store.json_filters import add_functions

log = structlog.get_logger(__name__)

T = TypeVar("T")

_RETRY_SQLSTATES = frozenset({"40001", "40P01", "55P03", "23503"})
"""Serialisation failure, deadlock, lock not available (PostgreSQL, Appendix A); and a foreign key that leads nowhere any
more: what the transaction had found was removed before it got there, and it will not be found again."""

_WRITES = "arriero_writes"


class Database:
    """One pool of connections to the catalogue's database.

    Parameters
    ----------
    url
        ``sqlite:///PATH`` or ``postgresql://...`` (psycopg 3).
    pool_size
        Connections kept; as many again may be opened under load.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.engine = _engine(url, pool_size)

    @property
    def is_postgresql(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Begin a transaction that writes; commit at the end, roll back on an exception."""
        with self.engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
            yield connection

    @contextmanager
    def snapshot(self, *, one_moment: bool = False) -> Iterator[Connection]:
        """Begin a transaction that only reads.

        Parameters
        ----------
        one_moment
            Have all its statements see the same; otherwise, on PostgreSQL, each sees what is there when it begins.
        """
        options: dict[str, Any] = {"postgresql_readonly": True} if self.is_postgresql else {}
        if one_moment and self.is_postgresql:
            options["isolation_level"] = "REPEATABLE READ"
        with self.engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def run(self, work: Callable[[Connection], T], *, attempts: int = 6) -> T:
        """Run ``work`` in a transaction that writes, again when it lost a race.

        Parameters
        ----------
        work
            Called with the connection; may be called several times, so it must change nothing but the database.
        attempts
            Tries in all.

        Raises
        ------
        Busy
            The last try lost too.
        """
        for attempt in range(1, attempts + 1):
            try:
                with self.transaction() as connection:
                    return work(connection)
            except DBAPIError as error:
                if not _lost_a_race(error):
                    raise
                if attempt == attempts:
                    raise Busy("the database is busy: the transaction lost every race; try again") from error
                log.info("transaction retried", attempt=attempt, cause=type(error.orig).__name__)
                time.sleep(random.uniform(0.5, 1.5) * 0.02 * 2**attempt)  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")

    def dispose(self) -> None:
        """Close every pooled connection (in a forked child: forget the parent's)."""
        self.engine.dispose()


def _lost_a_race(error: DBAPIError) -> bool:
    original = error.orig
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", 0)
        return (code & 0xFF) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    return getattr(original, "sqlstate", None) in _RETRY_SQLSTATES


def _engine(url: str, pool_size: int) -> Engine:
    if url.startswith("sqlite"):
        engine = create_engine(url, pool_size=pool_size, max_overflow=pool_size, connect_args={"timeout": 30})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        # JSONB writes 1e30 with all its digits: read as a whole number it could not be given out again
        json_deserializer=orjson.loads,
        connect_args={"application_name": "arriero"},
    )


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # the driver must not begin transactions by itself: `_begin_sqlite` does
    connection.isolation_level = None
    connection.create_function("arriero_json_merge", 2, _json_merge, deterministic=True)
    add_functions(connection)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def _json_merge(below: str, above: str) -> str:
    # as PostgreSQL's ||: a value is replaced as a whole
    return json.dumps(json.loads(below) | json.loads(above))


def _begin_sqlite(connection: Connection) -> None:
    # a transaction that reads first and writes later cannot wait for another writer in SQLite: take the lock at once
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
