"""The lines of audits: what was found at a storage, each as the replica that it is, or with its path.

A line that is a replica is reduced to numbers as it comes, by keys that have indexes: what is left to compare
in the end are integers, however many lines there are.
"""

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    null,
    select,
    text,
    update,
)

from arriero.registry.dialect import is_postgresql, join_as_planned, join_as_written
from arriero.registry.schema.tables import replicas, storage_audit_lines
from arriero.registry.store.replica_sets import Candidate, stage_candidates, staged_replicas
from arriero.registry.store.staging import stage

Line = tuple[int, str, int | None, str | None]
"""Number, path below the RSE's prefix, bytes and adler32 of a file as it was found."""

staged_lines = Table(
    "staged_lines",
    MetaData(),
    Column("place", Integer),
    Column("path", Text),
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
    Column("file_id", BigInteger),
    prefixes=["TEMPORARY"],
)


def _stage(connection: Connection, lines: Sequence[Line], found: Sequence[Candidate]) -> None:
    """Have lines in the database, each with the file whose replica it is."""
    join_as_written(connection)
    stage_candidates(connection, found)
    stage(connection, staged_lines, ["place", "path", "bytes", "adler32"], lines)
    join_as_planned(connection)
    is_one = and_(
        replicas.c.file_id == staged_replicas.c.file_id, replicas.c.rse_id == staged_replicas.c.rse_id
    )
    there = (
        select(staged_replicas.c.place, func.min(replicas.c.file_id).label("file_id"))
        .select_from(staged_replicas)
        .join(replicas, is_one)
        .group_by(staged_replicas.c.place)
        .subquery("there")
    )
    connection.execute(
        update(staged_lines).values(file_id=there.c.file_id).where(staged_lines.c.place == there.c.place)
    )


def add(connection: Connection, audit_id: int, lines: Sequence[Line], found: Sequence[Candidate]) -> None:
    """Add lines to an audit.

    Parameters
    ----------
    found
        What they may be, by their numbers (`arriero.registry.services.pfn_lookup.candidates`).
    """
    _stage(connection, lines, found)
    staged = staged_lines.c
    rows = select(
        literal(audit_id),
        staged.place,
        staged.file_id,
        case((staged.file_id.is_(None), staged.path)),
        staged.bytes,
        staged.adler32,
    ).order_by(staged.place)
    columns = ["audit_id", "number", "file_id", "path", "bytes", "adler32"]
    connection.execute(insert(storage_audit_lines).from_select(columns, rows))


def unknown(connection: Connection, audit_id: int, after: int, limit: int) -> list[Line]:
    """Give lines of an audit that are no replica, in the order of their numbers."""
    lines = storage_audit_lines.c
    query = (
        select(lines.number, lines.path, lines.bytes, lines.adler32)
        .where(lines.audit_id == audit_id, lines.file_id.is_(None), lines.number > after)
        .order_by(lines.number)
        .limit(limit)
    )
    return [(row.number, row.path, row.bytes, row.adler32) for row in connection.execute(query)]


def look_again(
    connection: Connection, audit_id: int, lines: Sequence[Line], found: Sequence[Candidate]
) -> None:
    """Have those of some lines be replicas that have become one since they came."""
    _stage(connection, lines, found)
    connection.execute(
        update(storage_audit_lines)
        .where(
            storage_audit_lines.c.audit_id == audit_id,
            storage_audit_lines.c.file_id.is_(None),
            storage_audit_lines.c.number == staged_lines.c.place,
            staged_lines.c.file_id.is_not(None),
        )
        .values(file_id=staged_lines.c.file_id, path=null())
    )


def count(connection: Connection, audit_id: int, *, only_unknown: bool = False) -> int:
    """Count the lines of an audit that are there."""
    lines = storage_audit_lines.c
    query = select(func.count()).where(lines.audit_id == audit_id)
    if only_unknown:
        query = query.where(lines.file_id.is_(None))
    return connection.execute(query).scalar_one()


def describe(connection: Connection) -> None:
    """Have the database know how many lines there are, before it compares them."""
    if is_postgresql(connection):
        connection.execute(text("ANALYZE storage_audit_lines"))


def remove(connection: Connection, audit_id: int) -> None:
    """Remove the lines of an audit."""
    connection.execute(delete(storage_audit_lines).where(storage_audit_lines.c.audit_id == audit_id))
