"""The queue of arrivals: claimed under a lease and a fence, reported as a set.

Fences decide whose report counts, never clocks; only the database's clock is read (DESIGN section 11).
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
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
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)

from arriero.registry.dialect import bulk_insert, is_sent, use_temporary_table
from arriero.registry.pages import pages_of
from arriero.registry.schema.base import BigId, after, now
from arriero.registry.schema.tables import arrivals, butlers, did_meta, dids, replicas, rses, scopes
from arriero.registry.states import ArrivalState
from arriero.registry.store.json import json_of

LEASE_EXPIRED = "lease_expired"
"""Code of an arrival whose agent went silent."""

_WAITING = text("arrivals.state IN ('pending', 'parked')")
_PARKED = text("arrivals.state = 'parked'")
_LEASED = text("arrivals.state = 'leased'")
"""Spelt out, so that both databases see that the partial indexes serve."""

WOKEN_AT_ONCE = 1000
"""Prerequisites in one statement; each is a bound parameter."""

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
    Column("may_hold", Boolean),
    Column("datasets", Text),
    prefixes=["TEMPORARY"],
)
"""What becomes of each reported arrival, handed to the database as a set."""


def butlers_with_work(connection: Connection, butler_ids: Collection[int]) -> set[int]:
    """Give those of some butlers of which a claim would find anything: due arrivals, or leases that ran out."""
    of_butler = arrivals.c.butler_id == butlers.c.id
    due = select(arrivals.c.id).where(of_butler, _WAITING, arrivals.c.not_before <= _NOW)
    outlived = select(arrivals.c.id).where(of_butler, _LEASED, arrivals.c.lease_until < _NOW)
    query = select(butlers.c.id).where(butlers.c.id.in_(butler_ids), or_(due.exists(), outlived.exists()))
    return set(connection.scalars(query))


def free_outlived_leases(connection: Connection, max_attempts: int, *, butler_id: int | None = None) -> int:
    """Make arrivals due again whose agent has gone silent, of one butler or of all; give how many.

    Those that this happened to too often fail.
    """
    spent = arrivals.c.attempt >= max_attempts
    of_butler = () if butler_id is None else (arrivals.c.butler_id == butler_id,)
    return connection.execute(
        update(arrivals)
        .where(_LEASED, arrivals.c.lease_until < _NOW, *of_butler)
        .values(
            state=case((spent, ArrivalState.FAILED.value), else_=ArrivalState.PENDING.value),
            not_before=now(),
            lease_owner=None,
            lease_until=None,
            may_hold=true(),
            code=LEASE_EXPIRED,
            reason="the agent that had it ("
            + func.coalesce(arrivals.c.lease_owner, "?")
            + ") did not report in time",
        )
    ).rowcount


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
        .where(is_sent(connection, arrivals.c.id, ids))
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
            arrivals.c.butler_id,
            butlers.c.name.label("butler"),
            butlers.c.transfer,
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
        .where(is_sent(connection, arrivals.c.id, ids), _LEASED)
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
            datasets=json_of(connection, REPORTS.c.datasets),
            code=REPORTS.c.code,
            reason=REPORTS.c.reason,
            waits_for=REPORTS.c.waits_for,
            may_hold=func.coalesce(REPORTS.c.may_hold, arrivals.c.may_hold),
            lease_owner=None,
            lease_until=None,
            ingested_at=case((ingested, now()), else_=arrivals.c.ingested_at),
        )
    )


def doubt(connection: Connection, ids: Sequence[int]) -> None:
    """Have arrivals count as held that somebody wrote into a Butler too late; who has them in hand finds out."""
    connection.execute(
        update(arrivals)
        .where(arrivals.c.id.in_(ids), arrivals.c.state.not_in((ArrivalState.INGESTED, ArrivalState.LEASED)))
        .values(may_hold=true(), updated_at=now())
    )


def wake(connection: Connection, butler_id: int, prerequisites: Sequence[str]) -> int:
    """Make due now what is parked at a butler for one of these prerequisites; give how many arrivals."""
    woken = 0
    for page in pages_of(prerequisites, WOKEN_AT_ONCE):
        statement = (
            update(arrivals)
            .where(
                arrivals.c.butler_id == butler_id,
                _PARKED,
                arrivals.c.waits_for.in_(page),
                arrivals.c.not_before > _NOW,
            )
            .values(not_before=now(), updated_at=now())
        )
        woken += connection.execute(statement).rowcount
    return woken


def extend_leases(connection: Connection, held: Sequence[tuple[int, int]], lease_s: float) -> set[int]:
    """Extend leases that are still held; give their ids."""
    statement = (
        update(arrivals)
        .where(tuple_(arrivals.c.id, arrivals.c.fence).in_(list(held)), _LEASED)
        .values(lease_until=after(literal(lease_s)))
        .returning(arrivals.c.id)
    )
    return set(connection.scalars(statement))
