"""JSON in SQL, where the two databases write it differently."""

from typing import Any

from sqlalchemy import Cast, ColumnElement, Connection, cast, type_coerce
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from arriero.registry.dialect import is_postgresql
from arriero.registry.schema.base import Json


def json_of(connection: Connection, text: ColumnElement[Any]) -> Cast[Any] | ColumnElement[Any]:
    """Read a column of text as the JSON that it is."""
    return cast(text, JSONB) if is_postgresql(connection) else type_coerce(text, Json)


class json_merge(FunctionElement[Any]):  # noqa: N801 - reads as the SQL function that it is
    """One JSON object with the keys of another laid over it."""

    type = Json
    inherit_cache = True


@compiles(json_merge)
def _json_merge(element: json_merge, compiler: Any, **kw: Any) -> str:
    below, above = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({below} || {above})"


@compiles(json_merge, "sqlite")
def _json_merge_sqlite(element: json_merge, compiler: Any, **kw: Any) -> str:
    below, above = (compiler.process(clause, **kw) for clause in element.clauses)
    # json_patch goes on merging below, and takes keys away whose value is null
    return f"arriero_json_merge({below}, {above})"
