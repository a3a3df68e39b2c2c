"""Conditions on metadata in SQL, with one answer on both databases.

A value is compared as what it is: numbers as numbers, also where a text spells one (the official command line sends
every value as text), instants as instants, other texts by code points. What is of another kind does not fit; it is no
error, since nothing makes all DIDs give a key the same kind of value.
"""

import re
import sqlite3
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    Numeric,
    String,
    and_,
    cast,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from arriero.registry.dialect import is_postgresql
from arriero.registry.schema.tables import did_meta

NOT_INDEXED = "rubin_sidecar"
"""A document, not a value to search for (docs/adr/0013-metadata-search.md)."""

_NUMBER = r"^-?([0-9]{1,15}|[0-9]{1,9}[.][0-9]{1,6})$"
_INTEGER = r"^-?[0-9]{1,15}$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_INSTANT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?Z?$"

Scalar = bool | int | float | str


def number_of(text: str) -> int | float | None:
    """Give the number that a text spells, of at most 15 digits so that nothing rounds it; None if it spells none."""
    if re.match(_NUMBER, text) is None or text.endswith("\n"):
        return None
    return float(text) if "." in text else int(text)


def instant_of(text: str) -> str | None:
    """Give the one spelling of an instant whose order is that of time; None if the text is no instant."""
    if text.endswith("\n"):
        return None
    if re.match(_DAY, text):
        return f"{text}T00:00:00"
    if re.match(_INSTANT, text) is None:
        return None
    plain = text.replace(" ", "T").rstrip("Z")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def add_functions(connection: sqlite3.Connection) -> None:
    """Give SQLite, which has no regular expressions, what these conditions need."""
    connection.create_function("arriero_number", 1, number_of, deterministic=True)
    connection.create_function("arriero_instant", 1, instant_of, deterministic=True)


class _OfKey(FunctionElement[Any]):
    """Something of the value of a key: clauses ``column, key``."""

    inherit_cache = True

    def parts(self, compiler: Any, **kw: Any) -> tuple[str, str]:
        column, key = (compiler.process(clause, **kw) for clause in self.clauses)
        return column, key


def _of_row(element: _OfKey, compiler: Any, expression: str, **kw: Any) -> str:
    column, key = element.parts(compiler, **kw)
    # made of compiled expressions, whose values are bound
    return f"(SELECT {expression} FROM json_each({column}) WHERE key = {key})"  # noqa: S608


class _kind(_OfKey):  # noqa: N801 - reads as the SQL function that it is
    """``null``, ``string``, ``number``, ``boolean``, ``array`` or ``object``; NULL when the key is not there."""

    type = String()
    inherit_cache = True


@compiles(_kind)
def _kind_sql(element: _kind, compiler: Any, **kw: Any) -> str:
    column, key = element.parts(compiler, **kw)
    return f"jsonb_typeof({column} -> {key})"


@compiles(_kind, "sqlite")
def _kind_sqlite(element: _kind, compiler: Any, **kw: Any) -> str:
    return _of_row(element, compiler, "type", **kw)


class _text(_OfKey):  # noqa: N801 - reads as the SQL function that it is
    """The value when it is a text."""

    type = String()
    inherit_cache = True


@compiles(_text)
def _text_sql(element: _text, compiler: Any, **kw: Any) -> str:
    column, key = element.parts(compiler, **kw)
    return f"(CASE WHEN jsonb_typeof({column} -> {key}) = 'string' THEN {column} ->> {key} END COLLATE \"C\")"


@compiles(_text, "sqlite")
def _text_sqlite(element: _text, compiler: Any, **kw: Any) -> str:
    return _of_row(element, compiler, "CASE WHEN type = 'text' THEN value END", **kw)


class _spelling(_OfKey):  # noqa: N801 - reads as the SQL function that it is
    """The value when it is a text, or a whole number of at most 15 digits, as text: what a pattern is held against."""

    type = String()
    inherit_cache = True


@compiles(_spelling)
def _spelling_sql(element: _spelling, compiler: Any, **kw: Any) -> str:
    column, key = element.parts(compiler, **kw)
    fits = f"jsonb_typeof({column} -> {key}) = 'string' OR {column} ->> {key} ~ '{_INTEGER}'"
    return f"(CASE WHEN {fits} THEN {column} ->> {key} END)"


@compiles(_spelling, "sqlite")
def _spelling_sqlite(element: _spelling, compiler: Any, **kw: Any) -> str:
    spelt = "WHEN type = 'integer' AND abs(value) < 1000000000000000 THEN CAST(value AS TEXT)"
    return _of_row(element, compiler, f"CASE WHEN type = 'text' THEN value {spelt} END", **kw)


class _number(_OfKey):  # noqa: N801 - reads as the SQL function that it is
    """The value when it is a number, or a text that spells one."""

    type = Numeric()
    inherit_cache = True


@compiles(_number)
def _number_sql(element: _number, compiler: Any, **kw: Any) -> str:
    column, key = element.parts(compiler, **kw)
    kind, value = f"jsonb_typeof({column} -> {key})", f"({column} ->> {key})"
    fits = f"{kind} = 'number' OR ({kind} = 'string' AND {value} ~ '{_NUMBER}')"
    return f"(CASE WHEN {fits} THEN {value}::numeric END)"


@compiles(_number, "sqlite")
def _number_sqlite(element: _number, compiler: Any, **kw: Any) -> str:
    spelt = "WHEN type = 'text' THEN arriero_number(value)"
    return _of_row(element, compiler, f"CASE WHEN type IN ('integer', 'real') THEN value {spelt} END", **kw)


class _instant(_OfKey):  # noqa: N801 - reads as the SQL function that it is
    """The value, in the spelling of `instant_of`, when it is a text that spells an instant."""

    type = String()
    inherit_cache = True


@compiles(_instant)
def _instant_sql(element: _instant, compiler: Any, **kw: Any) -> str:
    column, key = element.parts(compiler, **kw)
    value = f"({column} ->> {key})"
    plain = f"rtrim(replace({value}, ' ', 'T'), 'Z')"
    whole = f"CASE WHEN {plain} LIKE '%%.%%' THEN rtrim(rtrim({plain}, '0'), '.') ELSE {plain} END"
    return (
        f"(CASE WHEN {value} ~ '{_DAY}' THEN {value} || 'T00:00:00' "
        f"WHEN {value} ~ '{_INSTANT}' THEN {whole} END COLLATE \"C\")"
    )


@compiles(_instant, "sqlite")
def _instant_sqlite(element: _instant, compiler: Any, **kw: Any) -> str:
    return _of_row(element, compiler, "CASE WHEN type = 'text' THEN arriero_instant(value) END", **kw)


def is_there(key: str) -> ColumnElement[bool]:
    """Whether a key has a value, which is not null."""
    return _kind(did_meta.c.meta, literal(key)) != "null"


def is_one_of(connection: Connection, key: str, values: list[Scalar]) -> ColumnElement[bool]:
    """Whether a key has one of some values, each of its own kind; on PostgreSQL the index answers."""
    if is_postgresql(connection):
        meta: ColumnElement[Any] = did_meta.c.meta
        if key != NOT_INDEXED:
            meta = did_meta.c.meta.op("-", return_type=JSONB())(
                cast(literal(NOT_INDEXED, literal_execute=True), String)
            )
        held = [cast(literal(orjson.dumps({key: value}).decode()), JSONB) for value in values]
        return or_(*(meta.op("@>", is_comparison=True)(one) for one in held))
    row = func.json_each(did_meta.c.meta).table_valued("key", "value", "type")
    return exists(
        select(1).select_from(row).where(row.c.key == key, or_(*(_is(row.c, one) for one in values)))
    )


def _is(row: Any, value: Scalar) -> ColumnElement[bool]:
    if isinstance(value, bool):
        return and_(row.type == ("true" if value else "false"))
    if isinstance(value, str):
        return and_(row.type == "text", row.value == literal(value, String))
    return and_(row.type.in_(("integer", "real")), row.value == _bound(value))


def _bound(value: float) -> ColumnElement[Any]:
    return literal(value, BigInteger if isinstance(value, int) else Double)


def spelling_of(key: str) -> ColumnElement[str]:
    """Give what a pattern is held against."""
    return _spelling(did_meta.c.meta, literal(key))


def ordered_number(
    connection: Connection, key: str, value: float
) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Both sides of a comparison of numbers."""
    known = _number(did_meta.c.meta, literal(key))
    if is_postgresql(connection):
        # as it is written: a double would be compared by the digits that nobody wrote
        return known, cast(literal(repr(value)), Numeric)
    return known, _bound(value)


def ordered_text(key: str, value: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Both sides of a comparison of texts, by code points."""
    return _text(did_meta.c.meta, literal(key)), literal(value)


def ordered_instant(key: str, value: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Both sides of a comparison of instants; ``value`` in the spelling of `instant_of`."""
    return _instant(did_meta.c.meta, literal(key)), literal(value)


def otherwise(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Give the contrary of a condition, also where it is unknown."""
    return not_(func.coalesce(condition, literal(False)))
