"""Where PostgreSQL and SQLite differ, and nowhere else.

``FOR UPDATE`` needs nothing here: SQLAlchemy leaves it out for SQLite, where a writing transaction holds the whole
database from its start (``BEGIN IMMEDIATE``).
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    FromClause,
    Select,
    Table,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError
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
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        # as SQLAlchemy would have it, which the driver's own cursor goes past
        raise DBAPIError.instance(statement, None, error, psycopg.Error) from error


@dataclass(frozen=True, slots=True)
class Load:
    """Rows for one table, for `bulk_insert_new`."""

    table: Table
    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]


def bulk_insert_new(connection: Connection, loads: Sequence[Load]) -> bool:
    """Insert many rows of which most likely none is there: ``COPY`` straight into the tables, all of it or nothing.

    Returns
    -------
    bool
        False when a key was taken, and nothing was inserted.
    """
    savepoint = connection.begin_nested()
    try:
        for load in loads:
            bulk_insert(connection, load.table, load.columns, load.rows)
    except IntegrityError:
        savepoint.rollback()
        return False
    savepoint.commit()
    return True


def reserve_ids(connection: Connection, table: Table, count: int) -> Sequence[int] | None:
    """Take ids of a table before its rows are inserted, so that nobody has to ask afterwards which they were given.

    Parameters
    ----------
    table
        With a surrogate key ``id``.

    Returns
    -------
    ids
        As many as asked for, rising; those that are not used are lost, which 64 bits can bear. None where the database
        gives ids to rows only (SQLite).
    """
    if not is_postgresql(connection):
        return None
    # looked up once by standing in a query of its own, and one value fetched instead of a row for each id
    sequence = select(func.pg_get_serial_sequence(table.name, "id")).scalar_subquery()
    each = select(func.nextval(sequence).label("id")).select_from(func.generate_series(1, count)).subquery()
    ids: Sequence[int] = connection.scalar(select(func.array_agg(each.c.id))) or ()
    return ids


def id_rows(connection: Connection, ids: Sequence[int]) -> Select[tuple[int]]:
    """Query for ids that were sent, one column ``id``: one parameter, however many there are."""
    if is_postgresql(connection):
        sent = literal(list(ids), postgresql.ARRAY(BigInteger))
        return select(func.unnest(sent, type_=BigInteger).label("id"))
    each = func.json_each(json.dumps(list(ids))).table_valued("value")
    return select(cast(each.c.value, BigInteger).label("id"))


def is_sent(connection: Connection, column: ColumnElement[int], ids: Sequence[int]) -> ColumnElement[bool]:
    """Condition that a key is one of those that were sent: one parameter, however many, and the planner sees how many."""
    if is_postgresql(connection):
        return column == func.any(literal(list(ids), postgresql.ARRAY(BigInteger)))
    return column.in_(id_rows(connection, ids))


def value_rows(connection: Connection, values: Mapping[int, int]) -> Select[int, int]:
    """Query for numbers that were sent by id, columns ``id`` and ``value``: as few parameters, however many there are."""
    if is_postgresql(connection):
        ids, sent = (literal(list(part), postgresql.ARRAY(BigInteger)) for part in (values, values.values()))
        each = [func.unnest(part, type_=BigInteger) for part in (ids, sent)]
        return select(each[0].label("id"), each[1].label("value"))
    pairs = func.json_each(json.dumps(list(values.items()))).table_valued("value")
    first, second = (cast(func.json_extract(pairs.c.value, f"$[{place}]"), BigInteger) for place in (0, 1))
    return select(first.label("id"), second.label("value"))


def use_temporary_table(connection: Connection, *tables: Table) -> None:
    """Have ``tables`` (defined with ``prefixes=["TEMPORARY"]``) in this session, empty until the transaction ends."""
    if is_postgresql(connection):
        # one round trip for all of them
        connection.exec_driver_sql(";".join(_temporary_on_postgresql(table) for table in tables))
        return
    for table in tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        connection.execute(table.delete())


@cache
def _temporary_on_postgresql(table: Table) -> str:
    ddl = str(CreateTable(table, if_not_exists=True).compile(dialect=postgresql.dialect())).rstrip()  # type: ignore[no-untyped-call]
    return f"{ddl} ON COMMIT DELETE ROWS;DELETE FROM {table.name}"  # noqa: S608 - a name of the schema


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


def prefer_indexes(connection: Connection) -> None:
    """Have the statements of this transaction find a few rows by an index, and what belongs to each by its key.

    For conditions of which PostgreSQL knows nothing: it takes a hundredth of all rows to fit any ``@>``, and would
    read whole tables, or an index from end to end, to join them.
    """
    settings = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
    _set_local(connection, dict.fromkeys(settings, "off"))


def among(connection: Connection, column: ColumnElement[int], ids: Select[tuple[int]]) -> ColumnElement[bool]:
    """Condition that a key is one of those that a query gives: found one by one, whatever the planner expects.

    Only where no other condition of the statement has an index too: PostgreSQL might choose that, and search the ids from
    end to end for each row.
    """
    if is_postgresql(connection):
        return column == func.any(func.array(ids.scalar_subquery()))
    return column.in_(ids)


def one_of(column: ColumnElement[Any], values: Select[Any]) -> ColumnElement[bool]:
    """Condition that a value is one of those that a query gives, which is asked once and kept as a hash.

    Under `join_as_written`, for a query over a table without an index for it: ``IN`` alone is a join, and reads that table
    for every row.
    """
    return column.in_(values).is_(true())


def rows_changed(connection: Connection, statement: Executable) -> int:
    """Run a statement; give how many rows it has changed, which SQLite's driver does not know where it begins with ``WITH``."""
    done = connection.execute(statement, execution_options={"preserve_rowcount": True})
    if is_postgresql(connection):
        return done.rowcount
    return int(connection.execute(select(func.changes())).scalar_one())


def look_up(
    connection: Connection,
    rows: FromClause,
    table: Table,
    on: ColumnElement[bool],
    *,
    outer: bool = False,
    hold: bool = False,
) -> tuple[FromClause, Any]:
    """Join a table to rows by looking it up for each of them, whatever the planner expects of either.

    Parameters
    ----------
    rows
        From which to go: a table, or a join of some.
    on
        Which rows of ``table`` belong to one of ``rows``; an index has to answer it.
    outer
        Also those of ``rows`` for which there are none.
    hold
        Their rows are held until the transaction ends, in the order of ``rows``.

    Returns
    -------
    tuple
        The join, and the columns of ``table`` in it.
    """
    if not is_postgresql(connection):
        return rows.join(table, on, isouter=outer), table.c
    # the offset keeps the planner from making a join of it, which it might begin at the other end
    looked_up = select(table).where(on).correlate_except(table).offset(literal_column("0"))
    found = (looked_up.with_for_update() if hold else looked_up).lateral()
    return rows.join(found, true(), isouter=outer), found.c


def is_found(*conditions: ColumnElement[bool], of: FromClause) -> ColumnElement[bool]:
    """Condition that a table has a row for the one at hand: looked up, where ``EXISTS`` may be a join from the other end.

    Parameters
    ----------
    of
        The table; an index has to answer the conditions.
    """
    found = select(literal(1)).select_from(of).where(*conditions).correlate_except(of).limit(1)
    return found.scalar_subquery().is_not(None)


def delete_each(connection: Connection, rows: FromClause, table: Table, on: ColumnElement[bool]) -> None:
    """Delete what `look_up` finds.

    Parameters
    ----------
    rows, on
        As of `look_up`. Nobody else may change what is found: the transaction holds it.
    """
    if not is_postgresql(connection):
        connection.execute(delete(table).where(select(literal(1)).select_from(rows).where(on).exists()))
        return
    at: ColumnElement[Any] = literal_column(f"{table.name}.ctid")
    found = (
        select(at.label("at"))
        .select_from(table)
        .where(on)
        .correlate_except(table)
        .offset(literal_column("0"))
        .lateral()
    )
    places = select(found.c.at).select_from(rows.join(found, true())).scalar_subquery()
    connection.execute(delete(table).where(at == func.any(func.array(places))))


_AS_WRITTEN = {
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    # a chunk asks for each key once: what is remembered is never asked for again
    "enable_memoize": "off",
    "join_collapse_limit": "1",
    "from_collapse_limit": "1",
}


def join_as_written(connection: Connection) -> None:
    """Have the statements of this transaction begin with the table that they name first, and find the rest by keys.

    For statements that begin with a temporary table: PostgreSQL knows neither its size nor, soon after a large change,
    that of the others, and reads a whole table to find a few of its rows.
    """
    # nor is any of them worth being compiled
    _set_local(connection, {**_AS_WRITTEN, "jit": "off"})


def join_as_planned(connection: Connection) -> None:
    """End `join_as_written`."""
    _set_local(connection, dict.fromkeys(_AS_WRITTEN, "DEFAULT"))


def interpret(connection: Connection) -> None:
    """Have the statements of this transaction run as they are: to compile them can take a second, to run them less.

    For statements over a temporary table, of which PostgreSQL expects thousands of rows although there are few.
    """
    _set_local(connection, {"jit": "off"})


@contextmanager
def give_up_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Have statements fail that take longer than this.

    Parameters
    ----------
    connection
        In a transaction that only reads, and that ends with this.

    Raises
    ------
    sqlalchemy.exc.OperationalError
        One has.
    """
    if is_postgresql(connection):
        _set_local(connection, {"statement_timeout": str(int(seconds * 1000))})
        yield
        return
    driver: Any = connection.connection.driver_connection
    ends = time.monotonic() + seconds
    driver.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


_STEPS = 100_000
"""Instructions of SQLite between two looks at the clock."""


def _set_local(connection: Connection, settings: Mapping[str, str]) -> None:
    if is_postgresql(connection):
        connection.exec_driver_sql(
            ";".join(f"SET LOCAL {name} TO {value}" for name, value in settings.items())
        )


def like_pattern(pattern: str) -> str:
    r"""Turn an operator's pattern (``*`` any text) into a LIKE pattern whose escape character is ``\``."""
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def write_alone(connection: Connection, table: Table) -> None:
    """Have every other transaction that writes to ``table`` wait until this one ends; readers do not."""
    if is_postgresql(connection):
        quote = connection.dialect.identifier_preparer.quote
        connection.exec_driver_sql(f"LOCK TABLE {quote(table.name)} IN SHARE ROW EXCLUSIVE MODE")
