"""The queue of requests: take a batch, hold it with a sign of life. Reports go through `arriero.scheduler.settle`."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, literal, select, update

from arriero.registry.dialect import id_rows
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import requests
from arriero.registry.states import RequestState
from arriero.scheduler.core.lanes import Lane, allot, levels
from arriero.scheduler.lanes import find_lanes, first_of
from arriero.scheduler.traffic import Traffic


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
    activity: str = ""

    @property
    def attempt_name(self) -> str:
        """Name of this attempt, which no other ever has: its temporary file carries it."""
        return f"{self.id}-{self.fence}"


def claim_requests(
    connection: Connection,
    owner: str,
    *,
    limit: int,
    lease_s: float,
    traffic: Traffic | None = None,
    lanes: Sequence[Lane] | None = None,
    choose_sources: Callable[[Sequence[ClaimedRequest]], Mapping[int, int]] | None = None,
    first: Sequence[int] = (),
) -> list[ClaimedRequest]:
    """Take the most urgent requests that are due.

    Parameters
    ----------
    owner
        Who takes them; one name for each worker.
    limit
        How many at most.
    lease_s
        How long they are held without a sign of life, seconds.
    traffic
        How much each RSE may get; as much as there is when None.
    lanes
        From which; all of them when None.
    choose_sources
        Gives the RSE that each is read from, for those who look on; what it does not name keeps that of the attempt before.
    first
        Requests that are taken in any case; their rows are held already.

    Returns
    -------
    list of ClaimedRequest
        The higher priority first (5 before 1), fairly between RSEs, activities and rules, by the time when they were due;
        empty only if nothing is due that may go, or all of it is being claimed by others. Two workers never get the same
        one. The attempt is counted now.
    """
    if lanes is None:
        lanes, _ = find_lanes(connection)
    ids = list(first)
    for level in levels(lanes if traffic is None else traffic.open(lanes)):
        if len(ids) >= limit:
            break
        room = {} if traffic is None else traffic.room({lane.destination_id for lane in level})
        shares = {} if traffic is None else traffic.shares
        counts = allot(level, limit=limit - len(ids), room=room, shares=shares)
        taken = first_of(connection, list(counts.items()))
        if traffic is not None:
            traffic.note_claimed(counts)
        ids += taken
    if not ids:
        return []
    claimed = _as_claimed(connection, owner, ids)
    sources = {} if choose_sources is None else choose_sources(claimed)
    _hold(connection, owner, ids, sources, lease_s=lease_s)
    return claimed


def _as_claimed(connection: Connection, owner: str, ids: Sequence[int]) -> list[ClaimedRequest]:
    """Describe requests, whose rows are held, as they will be when they are claimed."""
    rows = connection.execute(
        select(
            requests.c.id,
            requests.c.fence,
            requests.c.file_id,
            requests.c.destination_id,
            requests.c.bytes,
            requests.c.attempt,
            requests.c.source_id,
            requests.c.code,
            requests.c.activity,
        ).where(requests.c.id.in_(id_rows(connection, ids)))
    )
    place = {request_id: index for index, request_id in enumerate(ids)}
    return [
        ClaimedRequest(
            id=row.id,
            fence=row.fence + 1,
            owner=owner,
            file_id=row.file_id,
            destination_id=row.destination_id,
            bytes=row.bytes,
            attempt=row.attempt + 1,
            failed_source_id=row.source_id if row.code else None,
            activity=row.activity,
        )
        for row in sorted(rows, key=lambda row: place[row.id])
    ]


def _hold(
    connection: Connection, owner: str, ids: Sequence[int], sources: Mapping[int, int], *, lease_s: float
) -> None:
    """Write who holds requests, and their sources: one statement for each source, and each row once."""
    by_source: dict[int | None, list[int]] = defaultdict(list)
    for request_id in ids:
        by_source[sources.get(request_id)].append(request_id)
    for source_id, read_from_it in by_source.items():
        connection.execute(
            update(requests)
            .where(requests.c.id.in_(id_rows(connection, read_from_it)))
            .values(
                state=RequestState.SUBMITTED,
                attempt=requests.c.attempt + 1,
                fence=requests.c.fence + 1,
                lease_owner=owner,
                lease_until=after(literal(lease_s)),
                started_at=now(),
                source_id=requests.c.source_id if source_id is None else source_id,
            )
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
            requests.c.id.in_(id_rows(connection, sorted(ids))),
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
