"""The queue of replicas whose bytes are read again: which come into it, and who takes them when.

The longest verified come first, and before them those that somebody doubts. The pace of an RSE is kept in its row, so it
holds for any number of workers.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    case,
    delete,
    exists,
    literal,
    or_,
    select,
    update,
)

from arriero.registry.dialect import id_rows, insert_into
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import (
    dids,
    replica_checks,
    replicas,
    scopes,
    scrubbed_rses,
    storage_findings,
)
from arriero.registry.states import ReplicaState

ASKED, TURN = 0, 1
"""Ranks: somebody doubts it; it is its turn."""

MOST_CHOSEN = 10_000
"""Replicas that are chosen at once: to find the longest verified, all of an RSE are looked at."""

REFILL_AGAIN_S = 3600.0
"""When an RSE is looked at again at which all was verified lately, seconds."""

FIRST_BACKOFF_S = 60.0
LONGEST_BACKOFF_S = 6 * 3600.0
"""Wait after an attempt that told nothing, seconds; it doubles with each."""

LEASE_S = 60.0
SLOWEST_BYTES_PER_S = 1e6
"""How long a replica may take to be read: this, and the time for its bytes at this rate."""

_AT_THIS_MOMENT = select(now()).scalar_subquery()
_COLUMNS = [
    "file_id",
    "rse_id",
    "rank",
    "why",
    "bytes",
    "verified_at",
    "attempt",
    "not_before",
    "fence",
    "created_at",
]


@dataclass(frozen=True, slots=True)
class Check:
    """A replica that this worker reads until its lease runs out."""

    file_id: int
    rse_id: int
    fence: int
    rank: int
    attempt: int
    scope: str
    name: str
    path: str | None
    """Where it does not follow from the name."""
    bytes: int
    adler32: str | None
    md5: str | None

    @property
    def lease_s(self) -> float:
        """How long it may take, seconds."""
        return LEASE_S + self.bytes / SLOWEST_BYTES_PER_S


def to_be_read(source: FromClause, why: str, rank: int, *conditions: ColumnElement[bool]) -> Select[Any]:
    """Query for rows of the queue: replicas that are AVAILABLE, of whose file a checksum is known, and that are not in it.

    Parameters
    ----------
    source
        ``replicas`` joined with ``dids``, and with whatever they are found by.
    """
    return (
        select(
            replicas.c.file_id,
            replicas.c.rse_id,
            literal(rank),
            literal(why),
            replicas.c.bytes,
            replicas.c.verified_at,
            literal(0),
            _AT_THIS_MOMENT,
            literal(0),
            _AT_THIS_MOMENT,
        )
        .select_from(source)
        .where(
            replicas.c.state == ReplicaState.AVAILABLE,
            or_(dids.c.adler32.is_not(None), dids.c.md5.is_not(None)),
            ~exists().where(
                replica_checks.c.file_id == replicas.c.file_id, replica_checks.c.rse_id == replicas.c.rse_id
            ),
            *conditions,
        )
    )


def put(connection: Connection, rows: Select[Any]) -> int:
    """Put rows into the queue; give how many were new."""
    statement = insert_into(connection, replica_checks).from_select(_COLUMNS, rows)
    return connection.execute(
        statement.on_conflict_do_nothing(index_elements=["file_id", "rse_id"]),
        execution_options={"preserve_rowcount": True},
    ).rowcount


def read_already() -> ColumnElement[bool]:
    """Condition that a replica's bytes were read and something is wrong with them: that is for the findings to settle."""
    return exists().where(
        storage_findings.c.file_id == replicas.c.file_id,
        storage_findings.c.rse_id == replicas.c.rse_id,
        storage_findings.c.audit_id.is_(None),
    )


def choose_oldest(connection: Connection, rse_id: int, *, age_s: float) -> int:
    """Put the replicas of an RSE into the queue that were verified longest ago, or never; give how many."""
    aged = or_(
        replicas.c.verified_at.is_(None),
        replicas.c.verified_at < select(after(literal(-age_s))).scalar_subquery(),
    )
    source = replicas.join(dids, dids.c.id == replicas.c.file_id)
    rows = (
        to_be_read(source, "it is its turn", TURN, replicas.c.rse_id == rse_id, aged, ~read_already())
        .order_by(replicas.c.verified_at.asc().nulls_first(), replicas.c.file_id)
        .limit(MOST_CHOSEN)
    )
    return put(connection, rows)


def know(connection: Connection, rse_ids: Collection[int]) -> None:
    """Have a row for each of some RSEs."""
    if not rse_ids:
        return
    ids = id_rows(connection, sorted(rse_ids)).subquery("ids")
    rows = select(ids.c.id, _AT_THIS_MOMENT, _AT_THIS_MOMENT, literal(0), literal(0)).where(
        ~exists().where(scrubbed_rses.c.rse_id == ids.c.id)
    )
    columns = ["rse_id", "next_at", "refill_at", "files", "bytes"]
    statement = insert_into(connection, scrubbed_rses).from_select(columns, rows)
    connection.execute(statement.on_conflict_do_nothing(index_elements=["rse_id"]))


def due_rses(connection: Connection, rse_ids: Collection[int], *, turns: bool) -> list[int]:
    """Those of some RSEs at which something may be read now.

    Parameters
    ----------
    turns
        Also what nobody doubts, and RSEs at which more is to be chosen.
    """
    waiting = select(replica_checks.c.rse_id).where(replica_checks.c.not_before <= _AT_THIS_MOMENT)
    if not turns:
        waiting = waiting.where(replica_checks.c.rank == ASKED)
    found = set(connection.scalars(waiting.distinct())) & set(rse_ids)
    know(connection, rse_ids if turns else found)
    ready = select(scrubbed_rses.c.rse_id, scrubbed_rses.c.refill_at <= _AT_THIS_MOMENT).where(
        scrubbed_rses.c.next_at <= _AT_THIS_MOMENT
    )
    return sorted(
        rse_id
        for rse_id, refill in connection.execute(ready)
        if rse_id in found or (turns and refill and rse_id in rse_ids)
    )


def claim_checks(
    connection: Connection,
    rse_id: int,
    owner: str,
    *,
    limit: int,
    pace: float,
    window_s: float,
    age_s: float,
) -> list[Check]:
    """Take replicas of an RSE whose turn it is, if its pace allows and nobody else is at it.

    Parameters
    ----------
    limit
        How many at most.
    pace
        Bytes a second; 0 for those that are doubted only.
    window_s
        As many as the pace allows in this time, seconds; one at least.
    age_s
        When none is left, those are chosen that were verified longer ago, seconds.
    """
    due = select(scrubbed_rses.c.refill_at <= _AT_THIS_MOMENT).where(
        scrubbed_rses.c.rse_id == rse_id, scrubbed_rses.c.next_at <= _AT_THIS_MOMENT
    )
    refill = connection.scalar(due.with_for_update(skip_locked=True))
    if refill is None:
        return []
    _drop_obsolete(connection, rse_id)
    rows = _due(connection, rse_id, limit, turns=pace > 0)
    if not rows and pace > 0 and refill:
        if choose_oldest(connection, rse_id, age_s=age_s):
            rows = _due(connection, rse_id, limit, turns=True)
        else:
            connection.execute(
                update(scrubbed_rses)
                .where(scrubbed_rses.c.rse_id == rse_id)
                .values(refill_at=after(literal(REFILL_AGAIN_S)))
            )
    chosen: list[Check] = []
    total = 0
    for row in rows:
        if chosen and pace > 0 and total + row.bytes > pace * window_s:
            break
        chosen.append(_check(row))
        total += row.bytes
    if chosen:
        _lease(connection, rse_id, owner, chosen)
        connection.execute(
            update(scrubbed_rses)
            .where(scrubbed_rses.c.rse_id == rse_id)
            .values(next_at=after(literal(total / pace if pace > 0 else 0.0)))
        )
    return chosen


def _check(row: Any) -> Check:
    return Check(
        file_id=row.file_id,
        rse_id=row.rse_id,
        fence=row.fence + 1,
        rank=row.rank,
        attempt=row.attempt + 1,
        scope=row.scope,
        name=row.name,
        path=row.path,
        bytes=row.bytes,
        adler32=row.adler32,
        md5=row.md5,
    )


def _drop_obsolete(connection: Connection, rse_id: int) -> None:
    """Forget replicas that are not AVAILABLE any more."""
    there = exists().where(
        replicas.c.file_id == replica_checks.c.file_id,
        replicas.c.rse_id == replica_checks.c.rse_id,
        replicas.c.state == ReplicaState.AVAILABLE,
    )
    connection.execute(
        delete(replica_checks).where(
            replica_checks.c.rse_id == rse_id, replica_checks.c.lease_owner.is_(None), ~there
        )
    )


def _due(connection: Connection, rse_id: int, limit: int, *, turns: bool) -> list[Any]:
    check = replica_checks.c
    query = (
        select(
            check.file_id,
            check.rse_id,
            check.rank,
            check.fence,
            check.attempt,
            scopes.c.name.label("scope"),
            dids.c.name,
            replicas.c.path,
            dids.c.bytes,
            dids.c.adler32,
            dids.c.md5,
        )
        .join(replicas, and_(replicas.c.file_id == check.file_id, replicas.c.rse_id == check.rse_id))
        .join(dids, dids.c.id == check.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(
            check.rse_id == rse_id,
            check.not_before <= _AT_THIS_MOMENT,
            or_(check.lease_until.is_(None), check.lease_until < _AT_THIS_MOMENT),
        )
        .order_by(check.rank, check.verified_at.asc().nulls_first(), check.file_id)
        .limit(limit)
    )
    return list(connection.execute(query if turns else query.where(check.rank == ASKED)))


def _lease(connection: Connection, rse_id: int, owner: str, chosen: list[Check]) -> None:
    ids = id_rows(connection, [check.file_id for check in chosen])
    connection.execute(
        update(replica_checks)
        .where(replica_checks.c.rse_id == rse_id, replica_checks.c.file_id.in_(ids))
        .values(
            lease_owner=owner,
            lease_until=after(literal(LEASE_S) + replica_checks.c.bytes / SLOWEST_BYTES_PER_S),
            # if it kills its worker it waits, and longer each time
            not_before=after(_backoff()),
            claimed_at=now(),
            fence=replica_checks.c.fence + 1,
            attempt=replica_checks.c.attempt + 1,
        )
    )


def _backoff() -> ColumnElement[float]:
    attempt = replica_checks.c.attempt
    waits = [(attempt <= step, literal(FIRST_BACKOFF_S * 2.0**step)) for step in range(8)]
    return case(*waits, else_=literal(LONGEST_BACKOFF_S))


def moment(connection: Connection) -> datetime:
    """The database's clock."""
    value: datetime = connection.execute(select(now())).scalar_one()
    return value
