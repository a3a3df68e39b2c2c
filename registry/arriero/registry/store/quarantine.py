"""Dark files in the database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    Table,
    Text,
    literal,
    select,
)

from arriero.registry.dialect import insert_into
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import quarantined_replicas
from arriero.registry.store.staging import stage

staged_dark_files = Table(
    "staged_dark_files",
    MetaData(),
    Column("path", Text),
    Column("bytes", BigInteger),
    Column("scope", Text),
    Column("name", Text),
    prefixes=["TEMPORARY"],
)


def add(connection: Connection, rse_id: int, rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert files of an RSE that are not there yet; give how many.

    Parameters
    ----------
    rows
        Path, bytes, scope and name of each; all but the path may be None.
    """
    stage(connection, staged_dark_files, ["path", "bytes", "scope", "name"], rows)
    staged = staged_dark_files.c
    found = (
        select(
            literal(rse_id),
            staged.path,
            staged.bytes,
            staged.scope,
            staged.name,
            select(now()).scalar_subquery(),
        )
        .where(literal(True))
        .order_by(staged.path)
    )
    columns = ["rse_id", "path", "bytes", "scope", "name", "created_at"]
    statement = insert_into(connection, quarantined_replicas).from_select(columns, found)
    return connection.execute(
        statement.on_conflict_do_nothing(index_elements=["rse_id", "path"]),
        execution_options={"preserve_rowcount": True},
    ).rowcount
