"""How many copies each lane of the queue gets: fair between RSEs, by the shares of activities, fair between rules.

A lane is what one rule wants at one RSE with one priority. Pure: no database, no clock.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

DEFAULT_SHARE = 1.0
"""Share of an activity that has none of its own."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Where requests wait for one RSE, for one rule, with one priority."""

    destination_id: int
    priority: int
    rule_id: int | None
    """None: of requests whose rule has gone."""
    activity: str


def levels(lanes: Iterable[Lane]) -> list[list[Lane]]:
    """Group lanes by priority, the most urgent first."""
    by_priority: dict[int, list[Lane]] = defaultdict(list)
    for lane in lanes:
        by_priority[lane.priority].append(lane)
    return [by_priority[priority] for priority in sorted(by_priority, reverse=True)]


def allot(
    lanes: Sequence[Lane], *, limit: int, room: Mapping[int, float], shares: Mapping[str, float]
) -> dict[Lane, int]:
    """Divide a claim among lanes of one priority.

    Every RSE with room gets the same, within it every activity by its share, within it every rule the same. What comes
    out as less than one copy goes to the lanes that are owed most, so the limit is always used up.

    Parameters
    ----------
    lanes
        All of them have something due. Of lanes that are owed the same, earlier ones come first.
    limit
        Copies in all.
    room
        By RSE, how many more it may get; one that is not named has no limit.
    shares
        By activity; `DEFAULT_SHARE` for one that is not named. An activity whose share is 0 gets what others leave.

    Returns
    -------
    dict
        Copies by lane, at least one each; lanes that get none are left out.
    """
    left = min(float(limit), sum(_room(room, one) for one in {lane.destination_id for lane in lanes}))
    owed = _owed(lanes, left, room, shares)
    given = {lane: int(owed[lane]) for lane in lanes}
    rooms = {one: _room(room, one) for one in {lane.destination_id for lane in lanes}}
    for lane, count in given.items():
        rooms[lane.destination_id] -= count
    rest = int(left) - sum(given.values())
    for lane in sorted(lanes, key=lambda one: given[one] - owed[one]):
        if rest <= 0:
            break
        if rooms[lane.destination_id] >= 1:
            given[lane] += 1
            rooms[lane.destination_id] -= 1
            rest -= 1
    return {lane: count for lane, count in given.items() if count}


def _room(room: Mapping[int, float], rse_id: int) -> float:
    return max(room.get(rse_id, inf), 0)


def _owed(
    lanes: Sequence[Lane], left: float, room: Mapping[int, float], shares: Mapping[str, float]
) -> dict[Lane, float]:
    by_rse: dict[int, dict[str, list[Lane]]] = defaultdict(lambda: defaultdict(list))
    for lane in lanes:
        by_rse[lane.destination_id][lane.activity].append(lane)
    owed: dict[Lane, float] = {}
    for rse_id, size in _fill(left, {one: _room(room, one) for one in by_rse}).items():
        activities = by_rse[rse_id]
        weights = {name: max(shares.get(name, DEFAULT_SHARE), 0.0) for name in activities}
        total = sum(weights.values())
        for name, members in activities.items():
            part = size * weights[name] / total if total else size / len(activities)
            owed.update(dict.fromkeys(members, part / len(members)))
    return owed


def _fill(size: float, room: Mapping[int, float]) -> dict[int, float]:
    """Divide evenly; what one has no room for goes to the others."""
    given: dict[int, float] = {}
    waiting = sorted(room, key=lambda one: (room[one], one))
    for place, one in enumerate(waiting):
        given[one] = min(room[one], size / (len(waiting) - place))
        size -= given[one]
    return given
