"""What is under way between the RSEs at this moment, and how much more may go: slots of links, limits, RSEs that are down."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from sqlalchemy import Connection, func, select, update

from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import links, requests, rse_health, transfer_limits
from arriero.registry.states import BreakerState, TransferDirection
from arriero.rse.errors import InvalidExpression
from arriero.scheduler.core.lanes import Lane
from arriero.scheduler.core.links import LinkState, quota, share
from arriero.scheduler.core.sources import Refusal
from arriero.scheduler.lanes import SUBMITTED
from arriero.scheduler.rse_catalogue import READ, RseCatalogue

NEW_SOURCES = 16
"""Copies that are claimed for an RSE beyond what its known links take."""

FULL_WAIT_S = 1.0
"""When what finds a link full is looked at again, seconds."""

PROBE_S = 120.0
"""How long the copy may take that shows whether an RSE is back, seconds; then another is let through."""

Link = tuple[int, int]
"""Source and destination."""


@dataclass(frozen=True, slots=True)
class _Limit:
    """Copies at once at each of some RSEs (Rucio's transfer limits)."""

    direction: TransferDirection
    rse_ids: frozenset[int]
    activity: str
    most: int

    def covers(self, direction: TransferDirection, rse_id: int, activity: str | None) -> bool:
        return (
            self.direction is direction and rse_id in self.rse_ids and self.activity in ("", activity or "")
        )


@dataclass(slots=True)
class Traffic:
    """What is under way, and what may go. Counted along while a claim is planned."""

    known: RseCatalogue
    links: Mapping[Link, LinkState] = field(default_factory=dict)
    down: Mapping[int, Refusal] = field(default_factory=dict)
    """RSEs that are down, with the reason."""
    probes: set[int] = field(default_factory=set)
    """Those of them that one copy may be tried with now."""
    probed: set[int] = field(default_factory=set)
    """Those that one is tried with."""
    shares: Mapping[str, float] = field(default_factory=dict)
    limits: Sequence[_Limit] = ()
    used: Counter[tuple[int | None, int, str]] = field(default_factory=Counter)
    """Copies under way by source, destination and activity."""
    site: frozenset[int] = frozenset()
    """RSEs that only the mover of their site reaches, and for which it is this mover that asks."""

    def open(self, lanes: Iterable[Lane]) -> list[Lane]:
        """Leave out the lanes of RSEs that are blocked for writing, down, or left to the movers of sites."""
        return [lane for lane in lanes if self._takes(lane.destination_id)]

    def carries(self, rse_id: int) -> bool:
        """Whether who asks reaches an RSE: some are left to the movers of their sites."""
        rse = self.known.by_id.get(rse_id)
        return rse is None or not rse.is_of_a_site_mover or rse_id in self.site

    def closed(self) -> list[int]:
        """RSEs to which nothing may be carried now by who asks."""
        return [rse_id for rse_id in self.known.by_id if not self._takes(rse_id)]

    def _takes(self, rse_id: int) -> bool:
        rse = self.known.by_id.get(rse_id)
        # what has no RSE any more is claimed, so that it ends
        if rse is None:
            return True
        return rse.writable and self.carries(rse_id) and (rse_id not in self.down or rse_id in self.probes)

    def room(self, rse_ids: Collection[int]) -> dict[int, float]:
        """How many more copies may begin to each of some RSEs; one that is not in the answer has no limit."""
        found: dict[int, float] = {}
        for rse_id in rse_ids:
            room = self._limited(TransferDirection.DESTINATION, rse_id, None)
            if rse_id in self.down:
                room = min(room, 1)
            into = [link for link in self.links if link[1] == rse_id]
            if into:
                more = NEW_SOURCES if self._has_new_sources(rse_id) else 0
                room = min(room, more + sum(max(self.link_room(link), 0) for link in into))
            if room < inf:
                found[rse_id] = room
        return found

    def _has_new_sources(self, rse_id: int) -> bool:
        """Whether copies may come to an RSE by a link of which nothing is known yet."""
        return any(
            rse.id != rse_id
            and (rse.id, rse_id) not in self.links
            and rse.readable
            and rse.protocol_for(*READ) is not None
            for rse in self.known.by_id.values()
        )

    def note_claimed(self, counts: Mapping[Lane, int]) -> None:
        """Count what a claim has been allotted: the next level of it finds that less room is left."""
        for lane, count in counts.items():
            self.used[None, lane.destination_id, lane.activity] += count

    def link_room(self, link: Link) -> float:
        """How many more copies may be claimed for a link."""
        return quota(self.links.get(link, LinkState())) - self._under_way(source=link[0], destination=link[1])

    def slots(self, own: Mapping[Link, int]) -> dict[Link, int]:
        """How many copies a worker runs at once on each of its links.

        Parameters
        ----------
        own
            Copies that it holds, by link.
        """
        return {
            link: share(
                self.links.get(link, LinkState()).slots,
                own=count,
                total=self._under_way(source=link[0], destination=link[1]),
            )
            for link, count in own.items()
            if count
        }

    def success(self, link: Link) -> float | None:
        """Share of the last copies on a link that succeeded; None where nothing is known."""
        state = self.links.get(link)
        return None if state is None else state.success

    def refusal(self, source_id: int, destination_id: int, activity: str) -> Refusal | None:
        """Say why no copy may begin from an RSE to another now; None when it may."""
        if source_id in self.down and source_id not in self.probes:
            return self.down[source_id]
        if self._limited(TransferDirection.SOURCE, source_id, activity) <= 0:
            return Refusal("has as many copies under way as its limit allows", FULL_WAIT_S)
        if self.link_room((source_id, destination_id)) <= 0:
            return Refusal("has as many copies under way on this link as it carries", FULL_WAIT_S)
        return None

    def begin(self, source_id: int, destination_id: int, activity: str) -> None:
        """Count a copy that begins."""
        self.used[source_id, destination_id, activity] += 1
        # one copy is enough to see whether an RSE is back
        tried = self.probes & {source_id, destination_id}
        self.probes -= tried
        self.probed |= tried

    def _limited(self, direction: TransferDirection, rse_id: int, activity: str | None) -> float:
        room = inf
        for limit in self.limits:
            if not limit.covers(direction, rse_id, activity):
                continue
            at = {"source": rse_id} if direction is TransferDirection.SOURCE else {"destination": rse_id}
            room = min(room, limit.most - self._under_way(**at, activity=limit.activity))
        return max(room, 0)

    def _under_way(
        self, *, source: int | None = None, destination: int | None = None, activity: str = ""
    ) -> int:
        return sum(
            count
            for (from_id, to_id, what), count in self.used.items()
            if source in (None, from_id) and destination in (None, to_id) and activity in ("", what)
        )


def load_traffic(connection: Connection, known: RseCatalogue, shares: Mapping[str, float]) -> Traffic:
    """Read what is under way; in the transaction of a claim, which waits for others where there are limits.

    Parameters
    ----------
    shares
        Of activities.
    """
    # two claims at once would each take all that a limit leaves
    rows = connection.execute(select(transfer_limits).order_by(transfer_limits.c.id).with_for_update()).all()
    limits = [
        _Limit(row.direction, _matching(known, row.rse_expression), row.activity, row.max_transfers)
        for row in rows
    ]
    down, probes = _down(connection)
    counted = connection.execute(
        select(
            requests.c.source_id,
            requests.c.destination_id,
            requests.c.activity,
            func.count().label("copies"),
        )
        .where(SUBMITTED)
        .group_by(requests.c.source_id, requests.c.destination_id, requests.c.activity)
    )
    used = Counter({(row.source_id, row.destination_id, row.activity): row.copies for row in counted})
    return Traffic(known, load_links(connection), down, probes, shares=shares, limits=limits, used=used)


def load_links(connection: Connection) -> dict[Link, LinkState]:
    """Read what is known of the links."""
    rows = connection.execute(
        select(links.c.source_id, links.c.destination_id, links.c.slots, links.c.duration, links.c.success)
    )
    return {
        (row.source_id, row.destination_id): LinkState(
            slots=row.slots, duration=row.duration, success=row.success
        )
        for row in rows
    }


def _matching(known: RseCatalogue, expression: str) -> frozenset[int]:
    try:
        return known.matching(expression)
    except InvalidExpression:
        # its RSEs have gone
        return frozenset()


def _down(connection: Connection) -> tuple[dict[int, Refusal], set[int]]:
    rows = connection.execute(
        select(
            rse_health.c.rse_id,
            rse_health.c.opened_at,
            rse_health.c.retry_at,
            rse_health.c.reason,
            now().label("at"),
        ).where(rse_health.c.breaker != BreakerState.CLOSED)
    ).all()
    wait_s = {row.rse_id: (row.retry_at - row.at).total_seconds() for row in rows}
    down = {
        row.rse_id: Refusal(
            f"is down since {row.opened_at:%Y-%m-%d %H:%M:%S} UTC: {row.reason}", max(wait_s[row.rse_id], 1.0)
        )
        for row in rows
    }
    return down, {rse_id for rse_id, wait in wait_s.items() if wait <= 0}


def note_probes(connection: Connection, rse_ids: Collection[int]) -> None:
    """Note that a copy is under way to see whether RSEs are back: no other begins meanwhile."""
    if rse_ids:
        connection.execute(
            update(rse_health)
            .where(rse_health.c.rse_id.in_(sorted(rse_ids)), rse_health.c.breaker != BreakerState.CLOSED)
            .values(breaker=BreakerState.HALF_OPEN, retry_at=after(PROBE_S))
        )
