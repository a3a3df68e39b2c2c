"""Dark files in the database."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    RowMapping,
    Table,
    Text,
    delete,
    literal,
    select,
)

from arriero.registry.dialect import id_rows, insert_into
from arriero.registry.pages import pages_of
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import quarantined_replicas, storage_findings
from arriero.registry.states import FindingKind, FindingState
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


def hold_dark(connection: Connection, rse_id: int, finding_ids: Collection[int]) -> Sequence[RowMapping]:
    """Hold those of some findings that are confirmed dark files of an RSE: ``id``, ``path``, ``bytes``, ``adler32``."""
    found = storage_findings.c
    query = (
        select(found.id, found.path, found.bytes, found.adler32)
        .where(
            found.id.in_(id_rows(connection, sorted(finding_ids))),
            found.rse_id == rse_id,
            found.kind == FindingKind.DARK,
            found.state == FindingState.CONFIRMED,
        )
        .order_by(found.id)
        .with_for_update(of=storage_findings)
    )
    return connection.execute(query).mappings().all()


def note_aside(connection: Connection, rse_id: int, finding_ids: Sequence[int], folder: str) -> None:
    """Write down that dark files are moved below a folder."""
    found = storage_findings.c
    rows = (
        select(
            found.rse_id,
            found.path,
            found.bytes,
            found.adler32,
            literal(f"{folder}/") + found.path,
            select(now()).scalar_subquery(),
        )
        .where(found.id.in_(id_rows(connection, sorted(finding_ids))), found.rse_id == rse_id)
        .order_by(found.path)
    )
    columns = ["rse_id", "path", "bytes", "adler32", "moved_to", "created_at"]
    statement = insert_into(connection, quarantined_replicas).from_select(columns, rows)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["rse_id", "path"],
            set_={"moved_to": statement.excluded.moved_to, "created_at": statement.excluded.created_at},
        )
    )


def forget_aside(connection: Connection, rse_id: int, paths: Collection[str]) -> None:
    """Take back that files were moved aside."""
    for page in pages_of(sorted(paths), 500):
        connection.execute(
            delete(quarantined_replicas).where(
                quarantined_replicas.c.rse_id == rse_id,
                quarantined_replicas.c.path.in_(page),
            )
        )
