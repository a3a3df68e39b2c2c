"""The queue of requests: take a batch, hold it with a sign of life. Reports go through `arriero.scheduler.settle`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, literal, select, text, update

from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import requests
from arriero.registry.states import RequestState

AT_THIS_MOMENT = select(now()).scalar_subquery()
"""The clock, read once a statement: a bound for an index, which a volatile function is not."""

QUEUED = text("requests.state = 'QUEUED'")
SUBMITTED = text("requests.state = 'SUBMITTED'")
"""Spelt out, so that both databases see that the partial indexes serve."""


@dataclass(frozen=True, slots=True)
class ClaimedRequest:
    """A request that this worker holds until its lease runs out."""

    id: int
    fence: int
    owner: str
    file_id: int
    destination_id: int
    bytes: int
    attempt: int
    failed_source_id: int | None
    """The source of the attempt before, if that failed."""

    @property
    def attempt_name(self) -> str:
        """Name of this attempt, which no other ever has: its temporary file carries it."""
        return f"{self.id}-{self.fence}"


def claim_requests(connection: Connection, owner: str, *, limit: int, lease_s: float) -> list[ClaimedRequest]:
    """Take the most urgent requests that are due.

    Parameters
    ----------
    owner
        Who takes them; one name for each worker.
    limit
        How many at most.
    lease_s
        How long they are held without a sign of life, seconds.

    Returns
    -------
    list of ClaimedRequest
        All of the highest priority that is due (5 before 1), by age; empty only if nothing is due, or all of it is
        being claimed by others. Two workers never get the same one. The attempt is counted now.
    """
    is_due = and_(QUEUED, requests.c.not_before <= AT_THIS_MOMENT)
    due = (
        select(requests.c.id)
        # one level at a time: so the index gives the order, whatever is queued
        .where(
            is_due,
            requests.c.priority == select(func.max(requests.c.priority)).where(is_due).scalar_subquery(),
        )
        .order_by(requests.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    rows = connection.execute(
        update(requests)
        .where(requests.c.id == due.c.id)
        .values(
            state=RequestState.SUBMITTED,
            attempt=requests.c.attempt + 1,
            fence=requests.c.fence + 1,
            lease_owner=owner,
            lease_until=after(literal(lease_s)),
            started_at=now(),
        )
        .returning(
            requests.c.id,
            requests.c.fence,
            requests.c.file_id,
            requests.c.destination_id,
            requests.c.bytes,
            requests.c.attempt,
            requests.c.source_id,
            requests.c.code,
        )
    )
    taken = sorted(rows, key=lambda row: row.id)
    return [
        ClaimedRequest(
            id=row.id,
            fence=row.fence,
            owner=owner,
            file_id=row.file_id,
            destination_id=row.destination_id,
            bytes=row.bytes,
            attempt=row.attempt,
            failed_source_id=row.source_id if row.code else None,
        )
        for row in taken
    ]


def note_sources(connection: Connection, owner: str, sources: Mapping[int, int]) -> None:
    """Note where each request's attempt reads from (request: RSE), for those who look on."""
    if not sources:
        return
    by_source: dict[int, list[int]] = {}
    for request_id, source_id in sorted(sources.items()):
        by_source.setdefault(source_id, []).append(request_id)
    for source_id, ids in by_source.items():
        connection.execute(
            update(requests)
            .where(requests.c.id.in_(ids), requests.c.lease_owner == owner)
            .values(source_id=source_id)
        )


def extend_leases(
    connection: Connection, owner: str, ids: Collection[int], *, lease_s: float
) -> frozenset[tuple[int, int]]:
    """Hold requests for another ``lease_s`` seconds.

    Returns
    -------
    frozenset
        (id, fence) of those that are still this worker's; work on the others has to end.
    """
    held = (
        select(requests.c.id)
        .where(
            requests.c.id.in_(sorted(ids)),
            requests.c.lease_owner == owner,
            requests.c.state == RequestState.SUBMITTED,
        )
        .order_by(requests.c.id)
        .with_for_update()
        .cte("held")
    )
    rows = connection.execute(
        update(requests)
        .where(requests.c.id == held.c.id)
        .values(lease_until=after(literal(lease_s)))
        .returning(requests.c.id, requests.c.fence)
    )
    return frozenset((row.id, row.fence) for row in rows)
