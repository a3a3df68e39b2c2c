"""What every table shares: metadata, column types, and the clock of the database.

Only the database's clock decides about leases and due times (DESIGN section 11), so ``now`` and ``after`` are SQL
expressions, never values from Python.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, DateTime, Enum, Integer, MetaData, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

BigId = BigInteger().with_variant(Integer, "sqlite")
"""64-bit surrogate key; SQLite counts up only in a column that is called INTEGER."""

Json = JSON().with_variant(JSONB, "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """An instant. Naive datetimes are refused; SQLite, which has no zones, holds UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: give it a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock at this statement."""

    type = UtcDateTime()
    inherit_cache = True


class after(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock plus a number of seconds (value or expression; may be negative)."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(now)
def _now(_element: now, _compiler: Any, **_kw: Any) -> str:
    return "clock_timestamp()"


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: Any, **_kw: Any) -> str:
    # three digits of the second, padded to the six that SQLAlchemy writes, so that text compares as time
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


@compiles(after)
def _after(element: after, compiler: Any, **kw: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **kw)}))"


@compiles(after, "sqlite")
def _after_sqlite(element: after, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', ({seconds}) || ' seconds') || '000')"


AT_THIS_MOMENT = select(now()).scalar_subquery()
"""The clock, read once a statement: a bound for an index, which a volatile function is not."""


def words(enum: type[StrEnum], name: str) -> Enum:
    """Column type for a state: its word as text, checked by the database.

    Parameters
    ----------
    enum
        The words.
    name
        Name of the check constraint within its table.
    """
    return Enum(
        enum,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=24,
        values_callable=lambda members: [member.value for member in members],
    )


def created_at() -> Column[datetime]:
    """Column for when a row came to be, by the database's clock."""
    return Column("created_at", UtcDateTime, nullable=False, default=now())


def updated_at() -> Column[datetime]:
    """Column for when a row last changed, by the database's clock."""
    return Column("updated_at", UtcDateTime, nullable=False, default=now(), onupdate=now())
