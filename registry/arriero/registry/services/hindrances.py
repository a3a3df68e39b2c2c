"""What stands in the way of copies to an RSE, as its workers see it: closed, down, as many under way as a limit allows.

Requests that wait for it are passed over, and say nothing of it themselves: who tells of them asks here.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, RowMapping

from arriero.registry.services.rse_health import LINK_BUSY
from arriero.registry.services.rse_names import index_of, matching
from arriero.registry.states import BreakerState, RseOperation, TransferDirection
from arriero.registry.store import hindrances as store
from arriero.registry.store.hindrances import BLOCKED, RSE_DOWN
from arriero.registry.store.movers import SITE_MOVER, left_to_movers
from arriero.registry.store.rses import load_rses
from arriero.registry.store.transfer_limits import limit_query

_VERBS = {RseOperation.READ: "reading", RseOperation.WRITE: "writing", RseOperation.DELETE: "deletion"}


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why no copy begins."""

    code: str
    reason: str
    until: datetime | None = None
    """When it is looked at again; None: not by itself, or at any moment."""


@dataclass(frozen=True, slots=True)
class UsedLimit:
    """A limit of transfers at one of its RSEs."""

    row: RowMapping
    rse_id: int
    used: int

    @property
    def is_full(self) -> bool:
        """Whether nothing more may begin."""
        return bool(self.used >= self.row["max_transfers"])


@dataclass(frozen=True, slots=True)
class Hindrances:
    """What stands in the way now, at every RSE."""

    closed: Mapping[int, Hindrance] = field(default_factory=dict)
    """For writing."""
    unreadable: Mapping[int, Hindrance] = field(default_factory=dict)
    down: Mapping[int, Hindrance] = field(default_factory=dict)
    left: Mapping[int, Hindrance] = field(default_factory=dict)
    """To the movers of their sites."""
    limits: Sequence[UsedLimit] = ()

    def of(self, rse_id: int, activity: str, code: str | None) -> Hindrance | None:
        """Say what a request in the queue waits for beside its turn.

        Parameters
        ----------
        rse_id
            Where it goes.
        code
            What it says itself.
        """
        found = self.closed.get(rse_id) or self.down.get(rse_id)
        if found is not None or code is not None:
            return found
        if rse_id in self.left:
            return self.left[rse_id]
        return next(
            (
                _of_limit(limit)
                for limit in self._full()
                if limit.rse_id == rse_id and limit.row["activity"] in ("", activity)
            ),
            None,
        )

    def words(self) -> store.Hindered:
        """The same for a statement over requests."""
        full = [(limit.rse_id, limit.row["activity"]) for limit in self._full()]
        return store.Hindered(tuple(self.closed), tuple(self.down), tuple(self.left), tuple(full))

    def _full(self) -> list[UsedLimit]:
        return [
            limit
            for limit in self.limits
            if limit.is_full and limit.row["direction"] is TransferDirection.DESTINATION
        ]


def _of_limit(limit: UsedLimit) -> Hindrance:
    row = limit.row
    what = f" of {row['activity']}" if row["activity"] else ""
    reason = (
        f"as many copies{what} are under way there as the transfer limit on {row['rse_expression']} allows "
        f"({limit.used} of {row['max_transfers']})"
    )
    return Hindrance(LINK_BUSY, reason)


def load_hindrances(connection: Connection) -> Hindrances:
    """Read what stands in the way, in a fixed number of statements."""
    closed: dict[RseOperation, dict[int, Hindrance]] = defaultdict(dict)
    down: dict[int, Hindrance] = {}
    for row in connection.execute(store.closed_query()).mappings():
        closed[row["operation"]][row["id"]] = Hindrance(BLOCKED, _closed(row))
    for row in connection.execute(store.down_query()).mappings():
        down[row["rse_id"]] = Hindrance(RSE_DOWN, _down(row), row["retry_at"])
    left = {
        rse_id: Hindrance(
            SITE_MOVER, f"{name} is written by the mover of its site only, which has not taken it yet"
        )
        for rse_id, name in left_to_movers(connection).items()
    }
    return Hindrances(
        closed[RseOperation.WRITE], closed[RseOperation.READ], down, left, tuple(load_limits(connection))
    )


def load_limits(connection: Connection) -> list[UsedLimit]:
    """Read the limits of transfers, each at each of its RSEs, and how much of them is used."""
    rows = connection.execute(limit_query()).mappings().all()
    if not rows:
        return []
    known = load_rses(connection)
    index = index_of(known)
    used: dict[TransferDirection, Counter[tuple[int, str]]] = defaultdict(Counter)
    for one in connection.execute(store.under_way_query()):
        for direction, rse_id in (
            (TransferDirection.SOURCE, one.source_id),
            (TransferDirection.DESTINATION, one.destination_id),
        ):
            used[direction][rse_id, one.activity] += one.copies
            used[direction][rse_id, ""] += one.copies
    return [
        UsedLimit(row, rse.id, used[row["direction"]][rse.id, row["activity"]])
        for row in rows
        for rse in matching(known, index, row["rse_expression"])
    ]


def told(hindrance: Hindrance | None, reason: str | None) -> str | None:
    """What a request waits for, in words: what stands in its way, and what went wrong before."""
    if hindrance is None:
        return reason
    return hindrance.reason if reason is None else f"{hindrance.reason}; before that: {reason}"


def next_attempt(hindrance: Hindrance | None, next_at: datetime | None) -> datetime | None:
    """When a request is looked at again; None where nothing happens by itself."""
    if hindrance is None or next_at is None:
        return next_at
    if hindrance.until is not None:
        return max(hindrance.until, next_at)
    return None if hindrance.code == BLOCKED else next_at


def _closed(row: RowMapping) -> str:
    said = f"{row['name']} is closed for {_VERBS[row['operation']]}"
    if row["since"] is not None:
        said += f" since {row['since']:%Y-%m-%d %H:%M:%S} UTC"
        said += f" by {row['account']}" if row["account"] else ""
        said += f": {row['reason']}" if row["reason"] else ""
    return said


def _down(row: RowMapping) -> str:
    said = f"{row['name']} is down since {row['opened_at']:%Y-%m-%d %H:%M:%S} UTC: {row['reason']}"
    if row["breaker"] is BreakerState.HALF_OPEN:
        said += "; one copy is under way to see whether it is back"
    return said
