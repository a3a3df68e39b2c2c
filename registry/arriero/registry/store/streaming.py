"""Reading long results a piece at a time, and giving the connection back whatever becomes of the reader."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, text

from arriero.registry.dialect import is_postgresql

ROWS_A_FETCH = 1000


@contextmanager
def streamed(connection: Connection, query: Select[Any]) -> Iterator[Iterator[RowMapping]]:
    """Run a query of any length with constant memory: a server-side cursor on PostgreSQL.

    A reader that takes nothing for a minute loses its transaction: an old snapshot keeps the database from cleaning up.

    Parameters
    ----------
    connection
        In a transaction that only reads.
    """
    if is_postgresql(connection):
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '60s'"))
    with connection.execute(query, execution_options={"yield_per": ROWS_A_FETCH}) as result:
        yield iter(result.mappings())
