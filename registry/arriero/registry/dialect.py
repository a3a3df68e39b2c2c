"""Where PostgreSQL and SQLite differ, and nowhere else.

``FOR UPDATE`` needs nothing here: SQLAlchemy leaves it out for SQLite, where a writing transaction holds the whole
database from its start (``BEGIN IMMEDIATE``).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Table, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable


def is_postgresql(connection: Connection) -> bool:
    """Whether this connection speaks to PostgreSQL."""
    return connection.dialect.name == "postgresql"


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """``INSERT`` of this dialect, the one that has ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    return postgresql.insert(table) if is_postgresql(connection) else sqlite.insert(table)


def bulk_insert(
    connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Insert many rows: ``COPY`` on PostgreSQL, ``executemany`` on SQLite.

    Parameters
    ----------
    connection
        Within a writing transaction.
    table
        Also a temporary table made with `use_temporary_table`.
    columns
        Names of the columns that ``rows`` give; others take the database's default, and none that only SQLAlchemy
        knows.
    rows
        Consumed once; streamed on PostgreSQL.
    """
    if not is_postgresql(connection):
        values = [dict(zip(columns, row, strict=True)) for row in rows]
        if values:
            connection.execute(insert(table), values)
        return
    quote = connection.dialect.identifier_preparer.quote
    statement = f"COPY {quote(table.name)} ({', '.join(quote(name) for name in columns)}) FROM STDIN"
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def use_temporary_table(connection: Connection, table: Table) -> None:
    """Have ``table`` (defined with ``prefixes=["TEMPORARY"]``) in this session, empty until the transaction ends."""
    if is_postgresql(connection):
        ddl = str(CreateTable(table, if_not_exists=True).compile(dialect=connection.dialect)).rstrip()
        connection.exec_driver_sql(f"{ddl} ON COMMIT DELETE ROWS")
        connection.execute(table.delete())
        return
    connection.execute(CreateTable(table, if_not_exists=True))
    connection.execute(table.delete())


def wait_for_writers(connection: Connection, table: Table) -> None:
    """Wait until no other transaction has changes to ``table`` that are not committed; hold off new ones meanwhile.

    Parameters
    ----------
    connection
        In a transaction that is to be short. On SQLite it is the only one that writes anyway.
    """
    if is_postgresql(connection):
        quote = connection.dialect.identifier_preparer.quote
        connection.exec_driver_sql(f"LOCK TABLE {quote(table.name)} IN SHARE MODE")


def like_pattern(pattern: str) -> str:
    r"""Turn an operator's pattern (``*`` any text) into a LIKE pattern whose escape character is ``\``."""
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")
