"""What still fits into the limits of an account. Pure: no database, no clock.

It says whether a rule could be placed at all. Which RSEs it gets in the end is the scheduler's choice, which measures
again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

_MAX_TRIES = 5000
"""Sets of RSEs that are looked at before it is believed that none fits; only overlapping global limits need them."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A rule that wants a place."""

    bytes: int
    copies: int
    rse_ids: Sequence[int]
    """Those that its expression names."""
    held: Mapping[int, int] = field(default_factory=dict)
    """For each RSE, the bytes of it that the account holds there already: they cost nothing."""
    divisible: bool = False
    """Whether its files may lie on different RSEs."""

    def missing(self, rse_id: int) -> int:
        """Bytes that it would add at an RSE."""
        return max(self.bytes - self.held.get(rse_id, 0), 0)


@dataclass(slots=True)
class Shared:
    """What is left of a limit for several RSEs together."""

    expression: str
    rse_ids: frozenset[int]
    left: float


@dataclass(slots=True)
class Room:
    """What is left of an account's limits, bytes; an RSE that is not named has no limit."""

    left: dict[int, float]
    shared: Sequence[Shared]

    def take(self, demand: Demand) -> bool:
        """Take what a demand needs; False, with nothing taken, where it does not fit."""
        taken = self._spread(demand) if demand.divisible else self._set(demand)
        if taken is None:
            return False
        self._subtract(taken)
        return True

    def force(self, demand: Demand) -> None:
        """Take what a demand needs from where most is left, also what is not there."""
        if not self.take(demand):
            roomiest = sorted(demand.rse_ids, key=lambda one: (-self._left(one), one))[: demand.copies]
            self._subtract({rse_id: demand.missing(rse_id) for rse_id in roomiest})

    def set_for(self, demand: Demand) -> tuple[int, ...] | None:
        """Find RSEs that take the whole of a demand; None where no set of them does."""
        taken = self._set(demand)
        return None if taken is None else tuple(taken)

    def left_at(self, rse_id: int) -> float:
        """Bytes that may still be added at one RSE, by its own limit and those that it shares."""
        return min([self._left(rse_id), *(one.left for one in self._over(rse_id))])

    def takes_anywhere(self, size: int, copies: int) -> bool:
        """Whether so many bytes fit with all their copies, wherever these go."""
        return all(left >= size for left in self.left.values()) and all(
            one.left >= size * copies for one in self.shared
        )

    def _left(self, rse_id: int) -> float:
        return self.left.get(rse_id, float("inf"))

    def _over(self, rse_id: int) -> list[Shared]:
        return [one for one in self.shared if rse_id in one.rse_ids]

    def _subtract(self, taken: Mapping[int, float]) -> None:
        for rse_id, size in taken.items():
            if rse_id in self.left:
                self.left[rse_id] -= size
            for one in self._over(rse_id):
                one.left -= size

    def _set(self, demand: Demand) -> dict[int, float] | None:
        """Find ``copies`` RSEs that each take the whole."""
        fit = [one for one in demand.rse_ids if demand.missing(one) <= max(self._left(one), 0)]
        fit.sort(key=lambda one: (len(self._over(one)), demand.missing(one), -self._left(one), one))
        for chosen in islice(combinations(fit, demand.copies), _MAX_TRIES):
            taken: dict[int, float] = {one: demand.missing(one) for one in chosen}
            if self._fits_shared(taken):
                return taken
        return None

    def _fits_shared(self, taken: Mapping[int, float]) -> bool:
        return all(
            size <= max(one.left, 0)
            for one in self.shared
            if (size := sum(taken[rse_id] for rse_id in taken if rse_id in one.rse_ids)) > 0
        )

    def _spread(self, demand: Demand) -> dict[int, float] | None:
        """Fill RSEs one after another; exact unless global limits overlap, and then it may refuse too early."""
        wanted: float = demand.bytes * demand.copies
        wanted -= sum(min(demand.held.get(one, 0), demand.bytes) for one in demand.rse_ids)
        taken: dict[int, float] = {}
        shared_left = {id(one): one.left for one in self.shared}
        for rse_id in sorted(demand.rse_ids, key=lambda one: (len(self._over(one)), -self._left(one), one)):
            over = self._over(rse_id)
            most = [float(demand.missing(rse_id)), self._left(rse_id), wanted]
            size = max(min([*most, *(shared_left[id(one)] for one in over)]), 0)
            for one in over:
                shared_left[id(one)] -= size
            taken[rse_id] = size
            wanted -= size
        return taken if wanted <= 0 else None


def room_left(
    local: Mapping[int, int], shared: Iterable[tuple[str, frozenset[int], int]], used: Mapping[int, int]
) -> Room:
    """Measure what is left.

    Parameters
    ----------
    local
        Limits by RSE, bytes; only those that limit.
    shared
        Expression, its RSEs and bytes of the limits for several RSEs.
    used
        What the account uses, by RSE.
    """
    return Room(
        {rse_id: limit - used.get(rse_id, 0) for rse_id, limit in local.items()},
        [
            Shared(expression, rse_ids, limit - sum(used.get(rse_id, 0) for rse_id in rse_ids))
            for expression, rse_ids, limit in shared
        ],
    )
