"""Audits of storages in the database, and the comparison of one with the catalogue, by sets."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    RowMapping,
    Select,
    String,
    Table,
    Text,
    and_,
    case,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from arriero.registry.dialect import use_temporary_table
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import (
    accounts,
    dids,
    replicas,
    rses,
    storage_audit_lines,
    storage_audits,
)
from arriero.registry.states import AuditSource, AuditState, FindingKind, ReplicaState

found_at_storage = Table(
    "found_at_storage",
    MetaData(),
    Column("kind", String(24)),
    Column("file_id", BigInteger),
    Column("path", Text),
    Column("bytes", BigInteger),
    Column("adler32", String(8)),
    prefixes=["TEMPORARY"],
)
"""What is found wrong, before anybody believes it."""

_FOUND = ["kind", "file_id", "path", "bytes", "adler32"]


def abandon(connection: Connection, rse_id: int, *, reason: str) -> None:
    """End the audits of an RSE whose lines are still to come."""
    connection.execute(
        update(storage_audits)
        .where(storage_audits.c.rse_id == rse_id, storage_audits.c.state == AuditState.RECEIVING)
        .values(state=AuditState.ABANDONED, code="abandoned", reason=reason, updated_at=now())
    )


def abandon_old(connection: Connection, *, older_s: float) -> int:
    """End audits of which no line has come for long; give how many."""
    return connection.execute(
        update(storage_audits)
        .where(
            storage_audits.c.state == AuditState.RECEIVING,
            storage_audits.c.updated_at < select(after(literal(-older_s))).scalar_subquery(),
        )
        .values(
            state=AuditState.ABANDONED,
            code="abandoned",
            reason="its lines stopped coming",
            updated_at=now(),
        )
    ).rowcount


def begin(
    connection: Connection, rse_id: int, source: AuditSource, observed_at: datetime | None, account_id: int
) -> int:
    """Insert an audit; give its id."""
    values = {
        "rse_id": rse_id,
        "source": source,
        "state": AuditState.RECEIVING,
        "observed_at": now() if observed_at is None else observed_at,
        "account_id": account_id,
    }
    statement = insert(storage_audits).values(**values).returning(storage_audits.c.id)
    audit_id: int = connection.execute(statement).scalar_one()
    return audit_id


def newest(connection: Connection, rse_id: int) -> RowMapping | None:
    """The audit of the latest moment of an RSE that counts."""
    query = (
        select(storage_audits)
        .where(storage_audits.c.rse_id == rse_id, storage_audits.c.state == AuditState.COMPARED)
        .order_by(storage_audits.c.observed_at.desc())
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def audit_row(connection: Connection, audit_id: int, *, hold: bool = False) -> RowMapping | None:
    """Row of an audit with the name of its RSE; held against other changes if asked for."""
    query = (
        select(storage_audits, rses.c.name.label("rse"))
        .join(rses, rses.c.id == storage_audits.c.rse_id)
        .where(storage_audits.c.id == audit_id)
    )
    if hold:
        query = query.with_for_update(of=storage_audits)
    return connection.execute(query).mappings().one_or_none()


def change(connection: Connection, audit_id: int, values: Mapping[str, Any]) -> None:
    """Change columns of an audit."""
    connection.execute(
        update(storage_audits).where(storage_audits.c.id == audit_id).values(**values, updated_at=now())
    )


def audits_query(rse_id: int | None, audit_id: int | None = None) -> Select[Any]:
    """Query for audits, the latest first, as they are shown."""
    columns = [
        storage_audits.c[name]
        for name in (
            "id",
            "source",
            "state",
            "observed_at",
            "code",
            "reason",
            "chunks",
            "cursor",
            "lines",
            "unusable",
            "judged",
            "missing",
            "dark",
            "wrong_size",
            "wrong_checksum",
            "declared",
            "created_at",
            "updated_at",
        )
    ]
    query = (
        select(rses.c.name.label("rse"), accounts.c.name.label("account"), *columns)
        .join(rses, rses.c.id == storage_audits.c.rse_id)
        .outerjoin(accounts, accounts.c.id == storage_audits.c.account_id)
        .order_by(storage_audits.c.id.desc())
    )
    if rse_id is not None:
        query = query.where(storage_audits.c.rse_id == rse_id)
    return query if audit_id is None else query.where(storage_audits.c.id == audit_id)


def ended_with_lines(connection: Connection) -> int | None:
    """Id of an audit that has ended and still has lines."""
    query = (
        select(storage_audits.c.id)
        .where(
            storage_audits.c.state != AuditState.RECEIVING,
            or_(
                *(
                    exists().where(storage_audit_lines.c.audit_id == storage_audits.c.id, half)
                    for half in _HALVES
                )
            ),
        )
        .limit(1)
    )
    return connection.scalar(query)


_HALVES = (storage_audit_lines.c.file_id.is_not(None), storage_audit_lines.c.file_id.is_(None))
"""Each has an index."""


def _judged(rse_id: int, before: datetime) -> Any:
    """Condition that a replica was there before a moment and nothing has become of it since."""
    return and_(
        replicas.c.rse_id == rse_id,
        replicas.c.state == ReplicaState.AVAILABLE,
        replicas.c.updated_at <= before,
    )


def count_judged(connection: Connection, rse_id: int, before: datetime) -> int:
    """Count the replicas that an audit can judge."""
    return connection.execute(
        select(func.count()).select_from(replicas).where(_judged(rse_id, before))
    ).scalar_one()


def find(connection: Connection, audit_id: int, rse_id: int, before: datetime, *, checksums: bool) -> None:
    """Fill ``found_at_storage`` with what an audit finds.

    Parameters
    ----------
    before
        Replicas that have changed since are not judged.
    checksums
        Whether the lines have any.
    """
    use_temporary_table(connection, found_at_storage)
    lines = storage_audit_lines.c
    listed = exists().where(lines.audit_id == audit_id, lines.file_id == replicas.c.file_id)
    missing = select(literal(FindingKind.MISSING.value), replicas.c.file_id, null(), null(), null()).where(
        _judged(rse_id, before), ~listed
    )
    connection.execute(insert(found_at_storage).from_select(_FOUND, missing))
    connection.execute(
        insert(found_at_storage).from_select(_FOUND, _wrong(audit_id, rse_id, before, checksums))
    )
    dark = (
        select(
            literal(FindingKind.DARK.value),
            null(),
            lines.path,
            func.min(lines.bytes),
            func.min(lines.adler32),
        )
        .where(lines.audit_id == audit_id, lines.file_id.is_(None))
        .group_by(lines.path)
    )
    connection.execute(insert(found_at_storage).from_select(_FOUND, dark))


def _wrong(audit_id: int, rse_id: int, before: datetime, checksums: bool) -> Select[Any]:
    lines = storage_audit_lines.c
    there = and_(replicas.c.file_id == lines.file_id, _judged(rse_id, before))
    source = storage_audit_lines.join(replicas, there)
    size = lines.bytes != replicas.c.bytes
    wrong = size
    if checksums:
        source = source.join(dids, dids.c.id == lines.file_id)
        wrong = or_(size, lines.adler32 != dids.c.adler32)
    kind = case((size, FindingKind.WRONG_SIZE.value), else_=FindingKind.WRONG_CHECKSUM.value)
    return (
        # a line may be there twice
        select(func.min(kind), lines.file_id, null(), func.min(lines.bytes), func.min(lines.adler32))
        .select_from(source)
        .where(lines.audit_id == audit_id, lines.file_id.is_not(None), wrong)
        .group_by(lines.file_id)
    )


def count_found(connection: Connection) -> dict[FindingKind, int]:
    """Count what was found, by kind."""
    rows = connection.execute(select(found_at_storage.c.kind, func.count()).group_by(found_at_storage.c.kind))
    counts = {FindingKind(kind): number for kind, number in rows}
    return {kind: counts.get(kind, 0) for kind in FindingKind}
