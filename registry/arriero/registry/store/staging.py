"""Temporary tables that carry what one call sent into the database, so that the rest is statements over sets.

Their number does not depend on how much was sent. Rows are gone when the transaction ends.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, Select, String, Table, Text, select

from arriero.registry.dialect import bulk_insert, use_temporary_table

_METADATA = MetaData()

staged_files = Table(
    "staged_files",
    _METADATA,
    Column("scope_id", Integer),
    Column("name", String(500)),
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
    Column("md5", String(32)),
    Column("spread", Integer),
    Column("state", String(24)),
    Column("path", Text),
    Column("meta", Text),
    Column("reason", Text),
    Column("file_id", BigInteger),
    prefixes=["TEMPORARY"],
)
"""Files to be registered, or whose replicas change."""

staged_children = Table(
    "staged_children",
    _METADATA,
    Column("parent_id", BigInteger),
    Column("scope_id", Integer),
    Column("name", String(500)),
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
    Column("md5", String(32)),
    Column("child_id", BigInteger),
    prefixes=["TEMPORARY"],
)
"""What is to be attached to, or detached from, which parent."""


def known_files() -> Select[tuple[int]]:
    """Query for the ids of the staged files that the catalogue knows, each once."""
    return select(staged_files.c.file_id).where(staged_files.c.file_id.is_not(None)).distinct()


def stage(
    connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Fill a temporary table with what was sent.

    Parameters
    ----------
    connection
        Within a writing transaction.
    """
    use_temporary_table(connection, table)
    bulk_insert(connection, table, columns, rows)
