"""The queue of requests: take a batch, hold it with a sign of life. Reports go through `arriero.scheduler.settle`."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, func, literal, null, select, update

from arriero.registry.dialect import id_rows, value_rows
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import requests
from arriero.registry.states import RequestState
from arriero.scheduler.core.lanes import Lane, allot, levels
from arriero.scheduler.lanes import DUE, SUBMITTED, find_lanes, first_of
from arriero.scheduler.traffic import Traffic

_WORKERS = 8
"""So many workers at least find a full claim each where no more is counted of what is due."""


@dataclass(frozen=True, slots=True)
class PutOff:
    """A request that was looked at and has to wait for its turn: nobody holds it, and no attempt is counted."""

    id: int
    code: str
    reason: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """What somebody who has looked at requests says of them."""

    sources: Mapping[int, int] = field(default_factory=dict)
    """The RSE that each is read from; what is not named keeps that of the attempt before."""
    put_off: Sequence[PutOff] = ()
    """Those that are not to be taken now."""


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
    choose: Callable[[Sequence[ClaimedRequest]], Chosen] | None = None,
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
    choose
        Says where each is read from, for those who look on, and which are left where they are.
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
    chosen = Chosen() if choose is None else choose(claimed)
    if chosen.put_off:
        _put_off(connection, chosen.put_off)
        waiting = {one.id for one in chosen.put_off}
        claimed = [one for one in claimed if one.id not in waiting]
    _hold(connection, owner, [one.id for one in claimed], chosen.sources, lease_s=lease_s)
    return claimed


def fair_part(connection: Connection, owner: str, most: int) -> int:
    """How many of the requests that are due one worker takes; at most ``most``.

    Half of its share, time and again, so that all who copy now come to the end together, whoever began first.
    """
    due = select(literal(1)).where(DUE).limit(2 * most * _WORKERS).subquery()
    others = select(func.count(func.distinct(requests.c.lease_owner))).where(
        SUBMITTED, requests.c.lease_owner != owner
    )
    row = connection.execute(
        select(
            select(func.count()).select_from(due).scalar_subquery().label("due"),
            others.scalar_subquery().label("others"),
        )
    ).one()
    return min(most, -(-int(row.due) // (2 * max(1 + int(row.others), 2))))


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
                copied=null(),
                source_id=requests.c.source_id if source_id is None else source_id,
            )
        )


def _put_off(connection: Connection, waiting: Sequence[PutOff]) -> None:
    """Leave requests in the queue for a while: their fence stays, so whoever takes them looks for no earlier attempt."""
    alike: dict[tuple[str, str, float], list[int]] = defaultdict(list)
    for one in waiting:
        alike[one.code, one.reason[:1000], one.wait_s].append(one.id)
    for (code, reason, wait_s), ids in alike.items():
        connection.execute(
            update(requests)
            .where(requests.c.id.in_(id_rows(connection, ids)))
            .values(not_before=after(literal(wait_s)), code=code, reason=reason)
        )


def extend_leases(
    connection: Connection,
    owner: str,
    ids: Collection[int],
    *,
    lease_s: float,
    copied: Mapping[int, int] = MappingProxyType({}),
) -> frozenset[tuple[int, int]]:
    """Hold requests for another ``lease_s`` seconds, and write down how far they are.

    Parameters
    ----------
    copied
        Bytes at the destination so far, by request; those that it does not name keep what was written before.

    Returns
    -------
    frozenset
        (id, fence) of those that are still this worker's; work on the others has to end.
    """
    if not ids:
        return frozenset()
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
    values: dict[str, Any] = {"lease_until": after(literal(lease_s))}
    if copied:
        told = value_rows(connection, copied).subquery("told")
        so_far = select(told.c.value).where(told.c.id == requests.c.id).scalar_subquery()
        values["copied"] = func.coalesce(so_far, requests.c.copied)
    rows = connection.execute(
        update(requests)
        .where(requests.c.id == held.c.id)
        .values(values)
        .returning(requests.c.id, requests.c.fence)
    )
    return frozenset((row.id, row.fence) for row in rows)


def still_held(connection: Connection, owner: str, ids: Collection[int]) -> frozenset[tuple[int, int]]:
    """Give (id, fence) of those requests that are still this worker's; changes nothing."""
    if not ids:
        return frozenset()
    rows = connection.execute(
        select(requests.c.id, requests.c.fence).where(
            requests.c.id.in_(id_rows(connection, sorted(ids))),
            requests.c.lease_owner == owner,
            requests.c.state == RequestState.SUBMITTED,
        )
    )
    return frozenset((row.id, row.fence) for row in rows)
