"""The months of the histories: on PostgreSQL a partition each, made ahead and dropped whole; on SQLite rows.

Rows whose month has no partition yet are in the default one, and are moved when it is made: nothing that is written
waits for this module to have run.
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime

from sqlalchemy import Column, Connection, Table, delete, select, text

from arriero.registry.dialect import is_postgresql
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    audit_log,
    deletion_history,
    events,
    request_attempts,
    request_history,
    rule_history,
)

HistoryTime = Column[datetime]
"""The column of a history that says when a row was written; on PostgreSQL its table is partitioned by it."""

HISTORIES: tuple[HistoryTime, ...] = (
    audit_log.c.at,
    deletion_history.c.at,
    events.c.created_at,
    request_attempts.c.at,
    request_history.c.at,
    rule_history.c.at,
)

_LOCK = 0x6D6F6E74
"""Key of the advisory lock that lets one process work on partitions at a time."""

_WAIT = "2s"
"""How long a change of partitions waits for its lock, and whoever writes waits behind it."""


def month_of(instant: datetime) -> datetime:
    """First moment of a month (UTC)."""
    return instant.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def months_from(month: datetime, count: int) -> list[datetime]:
    """Months from one on; a negative number gives those before it, the nearest first."""
    step = 1 if count > 0 else -1
    return [_shifted(month, step * distance) for distance in range(abs(count) + 1)]


def _shifted(month: datetime, distance: int) -> datetime:
    years, index = divmod(month.month - 1 + distance, 12)
    return month.replace(year=month.year + years, month=index + 1)


def this_month(connection: Connection) -> datetime:
    """The month that it is, by the database's clock."""
    return month_of(connection.execute(select(now())).scalar_one())


def partition_of(at: HistoryTime, month: datetime) -> str:
    """Name of the partition for a month."""
    return f"{at.table.name}_{month:%Y_%m}"


def partitions(connection: Connection) -> frozenset[str]:
    """Names of the partitions that there are (PostgreSQL)."""
    query = text("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")
    return frozenset(connection.scalars(query))


def lock_partitions(connection: Connection) -> bool:
    """Become the one that changes partitions until the transaction ends; False when another process is."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{_WAIT}'"))
    return connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}) is True


def add_month(connection: Connection, at: HistoryTime, month: datetime) -> None:
    """Make the partition of a month, with the rows of it that the default one holds; the same statements for any number."""
    quote = connection.dialect.identifier_preparer.quote
    whole, part = quote(at.table.name), quote(partition_of(at, month))
    default, time = quote(f"{at.table.name}_default"), quote(at.name)
    first, end = (f"'{instant.isoformat()}'" for instant in (month, _shifted(month, 1)))
    within = f"{time} >= {first} AND {time} < {end}"
    for statement in (
        # all of it, not only the default partition: a row that waits there has chosen its place already, the wrong one
        f"LOCK TABLE {whole} IN SHARE ROW EXCLUSIVE MODE",
        f"CREATE TABLE {part} (LIKE {whole} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
        f"WITH moved AS (DELETE FROM {default} WHERE {within} RETURNING *) INSERT INTO {part} SELECT * FROM moved",  # noqa: S608
        f"ALTER TABLE {whole} ATTACH PARTITION {part} FOR VALUES FROM ({first}) TO ({end})",
    ):
        connection.exec_driver_sql(statement)


def old_partitions(names: Iterable[str], at: HistoryTime, first_kept: datetime) -> Iterator[str]:
    """Those of some partitions that hold months of a history before the first that is kept."""
    for name in sorted(names):
        month = name.removeprefix(f"{at.table.name}_")
        if month != name and month.replace("_", "").isdigit() and name < partition_of(at, first_kept):
            yield name


def drop_partitions(connection: Connection, names: Collection[str]) -> None:
    """Drop months whole: no row is looked at."""
    quote = connection.dialect.identifier_preparer.quote
    for name in names:
        connection.exec_driver_sql(f"DROP TABLE {quote(name)}")


def delete_before(connection: Connection, at: HistoryTime, instant: datetime, limit: int) -> int:
    """Delete the oldest rows of a history from before an instant, at most so many; give how many.

    The first rows by id are the oldest, to within what transactions overlap: where the first is young, no other is
    looked at.
    """
    table = at.table
    assert isinstance(table, Table)
    source = table.name
    if is_postgresql(connection):
        # only what no month's partition took
        source = f"{source}_default"
        quote = connection.dialect.identifier_preparer.quote
        statement = text(
            f"DELETE FROM {quote(source)} WHERE id IN (SELECT id FROM {quote(source)} "  # noqa: S608 - quoted names
            f"WHERE {quote(at.name)} < :instant LIMIT :limit)"
        )
        return connection.execute(statement, {"instant": instant, "limit": limit}).rowcount
    first = connection.scalar(select(at).order_by(table.c.id).limit(1))
    if first is None or first >= instant:
        return 0
    oldest = select(table.c.id).order_by(table.c.id).limit(limit)
    return connection.execute(delete(table).where(table.c.id.in_(oldest), at < instant)).rowcount
