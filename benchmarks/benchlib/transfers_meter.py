"""What the database has used meanwhile: processor time, and what went into its write-ahead log."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from benchlib.sides import postmaster_pid
from benchlib.stopwatch import tree_cpu_s


@dataclass
class Meter:
    """What was used, when its block has ended."""

    cpu_s: float = 0.0
    wal_bytes: int = 0
    page_bytes: int | None = None
    """Of them those of pages that went there whole, for their first change after a checkpoint; None if nobody can tell."""


@contextmanager
def metered(admin_url: str) -> Iterator[Meter]:
    """Read off what a PostgreSQL, with all its databases, uses in a block."""
    postmaster, meter = postmaster_pid(admin_url), Meter()
    began, cpu_s = _position(admin_url), tree_cpu_s(postmaster)
    yield meter
    meter.cpu_s = tree_cpu_s(postmaster) - cpu_s
    _read_log(admin_url, began, meter)


def _position(admin_url: str) -> str:
    with psycopg.connect(admin_url) as connection:
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None
    return str(row[0])


def _read_log(admin_url: str, began: str, meter: Meter) -> None:
    with psycopg.connect(admin_url, autocommit=True) as connection:
        query = "SELECT pg_current_wal_flush_lsn()::text, pg_current_wal_flush_lsn() - %s::pg_lsn"
        row = connection.execute(query, [began]).fetchone()
        assert row is not None
        ended, meter.wal_bytes = str(row[0]), int(row[1])
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
            query = "SELECT sum(fpi_size)::bigint FROM pg_get_wal_stats(%s, %s)"
            row = connection.execute(query, [began, ended]).fetchone()
        except psycopg.Error:
            # an extension of PostgreSQL 15
            return
        assert row is not None
        meter.page_bytes = int(row[0])
