"""Audits of a storage in the test's own process: what lies there, days apart, held against the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Table, select, update

from arriero.registry.database import Database
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import replicas, storage_findings
from arriero.registry.services import storage_audits
from arriero.registry.services.audit_comparison import compare
from arriero.registry.services.context import Actor, Context
from arriero.registry.states import AuditSource

DAY_S = 86400.0

Lines = Sequence[storage_audits.Found]


def days_ago(days: float) -> datetime:
    """An instant in the past."""
    return datetime.now(tz=UTC) - timedelta(days=days)


def age(database: Database, table: Table, seconds: float, *columns: str) -> None:
    """Move instants of every row into the past."""
    with database.transaction() as connection:
        connection.execute(update(table).values({column: after(-seconds) for column in columns}))


def age_replicas(database: Database, days: float = 30) -> None:
    """Have nothing have become of any replica for long."""
    age(database, replicas, days * DAY_S, "created_at", "updated_at")


def audited(
    context: Context, actor: Actor, rse: str, lines: Lines, *, days: float, chunk: int = 4, **options: Any
) -> dict[str, Any]:
    """Audit an RSE by a dump that is some days old."""
    begun = storage_audits.begin(context, actor, rse, AuditSource.DUMP, days_ago(days))
    for number, first in enumerate(range(0, len(lines), chunk)):
        storage_audits.add_lines(context, actor, begun.id, number, lines[first : first + chunk])
    return compare(context, actor, begun.id, **options)


def findings(database: Database) -> list[tuple[str, str, str | None, int]]:
    """Kind, state, path and how often seen of everything that was found."""
    with database.snapshot() as connection:
        rows = connection.execute(select(storage_findings).order_by(storage_findings.c.id))
        return [(row.kind.value, row.state.value, row.path, row.times) for row in rows]


def lines_of(names: Iterable[str], *, size: int | None = None, adler32: str | None = None) -> list[Any]:
    """Lines of files of scope raw at an RSE with the algorithm identity."""
    return [(f"raw/{name}", size, adler32) for name in names]
