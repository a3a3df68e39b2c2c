"""The queue of arrivals: claimed under a lease and a fence, reported as a set.

Fences decide whose report counts, never clocks; only the database's clock is read (DESIGN section 11).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    Uuid,
    and_,
    case,
    func,
    literal,
    select,
    text,
    tuple_,
    update,
)

from arriero.registry.dialect import bulk_insert, use_temporary_table
from arriero.registry.schema.base import BigId, after, now
from arriero.registry.schema.tables import arrivals, butlers, did_meta, dids, replicas, rses, scopes
from arriero.registry.states import ArrivalState

LEASE_EXPIRED = "lease_expired"
"""Code of an arrival whose agent went silent."""

_WAITING = text("arrivals.state IN ('pending', 'parked')")
_LEASED = text("arrivals.state = 'leased'")
"""Spelt out, so that both databases see that the partial indexes serve."""

_NOW = select(now()).scalar_subquery()
"""Read once a statement: a bound for an index, which a volatile function is not."""

REPORTS = Table(
    "arrival_reports",
    MetaData(),
    Column("id", BigId, primary_key=True, autoincrement=False),
    Column("state", String(24)),
    Column("attempt", Integer),
    Column("wait_s", Float),
    Column("dataset_id", Uuid),
    Column("code", String(64)),
    Column("reason", Text),
    Column("waits_for", Text),
    prefixes=["TEMPORARY"],
)
"""What becomes of each reported arrival, handed to the database as a set."""


def has_work(connection: Connection, butler_id: int) -> bool:
    """Whether a claim would find anything: due arrivals, or leases that ran out."""
    due = select(arrivals.c.id).where(
        arrivals.c.butler_id == butler_id, _WAITING, arrivals.c.not_before <= _NOW
    )
    outlived = select(arrivals.c.id).where(
        _LEASED, arrivals.c.lease_until < _NOW, arrivals.c.butler_id == butler_id
    )
    found = connection.execute(select(due.exists().label("due"), outlived.exists().label("outlived"))).one()
    return bool(found.due or found.outlived)


def free_outlived_leases(connection: Connection, butler_id: int, max_attempts: int) -> None:
    """Make arrivals due again whose agent has gone silent; fail those that this happened to too often."""
    spent = arrivals.c.attempt >= max_attempts
    connection.execute(
        update(arrivals)
        .where(_LEASED, arrivals.c.lease_until < _NOW, arrivals.c.butler_id == butler_id)
        .values(
            state=case((spent, ArrivalState.FAILED.value), else_=ArrivalState.PENDING.value),
            not_before=now(),
            lease_owner=None,
            lease_until=None,
            code=LEASE_EXPIRED,
            reason="the agent that had it ("
            + func.coalesce(arrivals.c.lease_owner, "?")
            + ") did not report in time",
        )
    )


def select_due(connection: Connection, butler_id: int, limit: int) -> Sequence[RowMapping]:
    """Lock due arrivals, longest due first, passing over those that another claim holds.

    Returns
    -------
    sequence
        ``id``, ``attempt``, ``code``, the file's ``scope``, ``name``, ``bytes``, ``adler32``, ``meta``, and of its
        replica ``rse_id``, ``path`` and ``replica_state`` (None: there is none).
    """
    query = (
        select(
            arrivals.c.id,
            arrivals.c.attempt,
            arrivals.c.code,
            arrivals.c.rse_id,
            scopes.c.name.label("scope"),
            dids.c.name,
            dids.c.adler32,
            func.coalesce(replicas.c.bytes, dids.c.bytes).label("bytes"),
            did_meta.c.meta,
            replicas.c.path,
            replicas.c.state.label("replica_state"),
        )
        .join(dids, dids.c.id == arrivals.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .outerjoin(did_meta, did_meta.c.did_id == dids.c.id)
        .outerjoin(
            replicas,
            and_(replicas.c.file_id == arrivals.c.file_id, replicas.c.rse_id == arrivals.c.rse_id),
        )
        .where(arrivals.c.butler_id == butler_id, _WAITING, arrivals.c.not_before <= _NOW)
        .order_by(arrivals.c.not_before, arrivals.c.id)
        .limit(limit)
        .with_for_update(of=arrivals, skip_locked=True)
    )
    return connection.execute(query).mappings().all()


def put_off(connection: Connection, ids: Sequence[int], code: str, reason: str, wait_s: float) -> None:
    """Leave arrivals pending, with a reason and a later time."""
    connection.execute(
        update(arrivals)
        .where(arrivals.c.id.in_(ids))
        .values(code=code, reason=reason, not_before=after(literal(wait_s)))
    )


def lease(
    connection: Connection, ids: Sequence[int], worker: str, lease_s: float
) -> dict[int, tuple[int, int]]:
    """Lease arrivals that are locked; give fence and attempt of each."""
    statement = (
        update(arrivals)
        .where(arrivals.c.id.in_(ids))
        .values(
            state=ArrivalState.LEASED,
            attempt=arrivals.c.attempt + 1,
            fence=arrivals.c.fence + 1,
            lease_owner=worker,
            lease_until=after(literal(lease_s)),
            started_at=func.coalesce(arrivals.c.started_at, now()),
        )
        .returning(arrivals.c.id, arrivals.c.fence, arrivals.c.attempt)
    )
    return {row.id: (row.fence, row.attempt) for row in connection.execute(statement)}


def lock_leased(connection: Connection, ids: Sequence[int]) -> Sequence[RowMapping]:
    """Lock arrivals that are leased, by id, and give what a report has to know of them."""
    query = (
        select(
            arrivals.c.id,
            arrivals.c.fence,
            arrivals.c.attempt,
            butlers.c.name.label("butler"),
            scopes.c.name.label("scope"),
            dids.c.name,
            dids.c.bytes,
            dids.c.adler32,
            rses.c.name.label("rse"),
        )
        .join(butlers, butlers.c.id == arrivals.c.butler_id)
        .join(dids, dids.c.id == arrivals.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == arrivals.c.rse_id)
        .where(arrivals.c.id.in_(ids), _LEASED)
        .order_by(arrivals.c.id)
        .with_for_update(of=arrivals)
    )
    return connection.execute(query).mappings().all()


def settle(connection: Connection, reports: Iterable[Sequence[Any]]) -> None:
    """Give arrivals that are locked their new states, in a fixed number of statements.

    Parameters
    ----------
    reports
        Rows in the order of the columns of `REPORTS`; ``wait_s`` is the time until they are due again, seconds.
    """
    use_temporary_table(connection, REPORTS)
    bulk_insert(connection, REPORTS, [column.name for column in REPORTS.columns], reports)
    ingested = REPORTS.c.state == ArrivalState.INGESTED.value
    connection.execute(
        update(arrivals)
        .where(arrivals.c.id == REPORTS.c.id)
        .values(
            state=REPORTS.c.state,
            attempt=REPORTS.c.attempt,
            not_before=after(REPORTS.c.wait_s),
            dataset_id=REPORTS.c.dataset_id,
            code=REPORTS.c.code,
            reason=REPORTS.c.reason,
            waits_for=REPORTS.c.waits_for,
            lease_owner=None,
            lease_until=None,
            ingested_at=case((ingested, now()), else_=arrivals.c.ingested_at),
        )
    )


def extend_leases(connection: Connection, held: Sequence[tuple[int, int]], lease_s: float) -> set[int]:
    """Extend leases that are still held; give their ids."""
    statement = (
        update(arrivals)
        .where(tuple_(arrivals.c.id, arrivals.c.fence).in_(list(held)), _LEASED)
        .values(lease_until=after(literal(lease_s)))
        .returning(arrivals.c.id)
    )
    return set(connection.scalars(statement))
