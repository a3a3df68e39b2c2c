"""The lanes of the queue of requests: which there are, and the first requests of each.

A lane is what one rule wants at one RSE with one priority. Lanes are found by leaping from one to the next in an index, so
what it costs follows from how many there are, and not from how much waits in them.
"""

from collections.abc import Sequence

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    and_,
    bindparam,
    func,
    literal,
    select,
    text,
    true,
    tuple_,
)

from arriero.registry.dialect import is_postgresql
from arriero.registry.schema.base import AT_THIS_MOMENT
from arriero.registry.schema.tables import requests
from arriero.scheduler.core.lanes import Lane

QUEUED = text("requests.state = 'QUEUED'")
SUBMITTED = text("requests.state = 'SUBMITTED'")
"""Spelt out, so that both databases see that the partial indexes serve."""

MOST = 500
"""Lanes that one claim looks at; the next goes on with those after them."""

Place = tuple[int, int, int]
"""A lane in their order: RSE, priority, rule."""

LANE = (requests.c.destination_id, requests.c.priority, requests.c.rule_id)
"""What makes a lane."""

DUE = and_(QUEUED, requests.c.not_before <= AT_THIS_MOMENT)
"""What may be claimed now."""


def find_lanes(connection: Connection, *, beyond: Place | None = None) -> tuple[list[Lane], Place | None]:
    """Find the lanes in which something is due.

    Parameters
    ----------
    beyond
        Where the claim before has stopped.

    Returns
    -------
    tuple
        The lanes, and where to go on the next time; None when these were the last.
    """
    current = requests.alias("current")
    after = (current.c.destination_id, current.c.priority, current.c.rule_id)
    leap = first_in_lane(tuple_(*LANE) > tuple_(*after)).correlate(current).scalar_subquery()
    start = true() if beyond is None else tuple_(*LANE) > tuple_(*(literal(part) for part in beyond))
    walk = select(first_in_lane(start).scalar_subquery().label("id"), literal(1).label("step")).cte(
        "walk", recursive=True
    )
    walk = walk.union_all(
        select(leap, walk.c.step + 1).join(current, current.c.id == walk.c.id).where(walk.c.step < MOST)
    )
    due = (requests.c.not_before <= AT_THIS_MOMENT).label("due")
    rows = connection.execute(
        select(*LANE, requests.c.activity, due)
        .select_from(walk)
        .join(requests, requests.c.id == walk.c.id)
        .order_by(walk.c.step)
    ).all()
    found = [Lane(row.destination_id, row.priority, row.rule_id, row.activity) for row in rows if row.due]
    last = rows[-1] if len(rows) >= MOST else None
    more = None if last is None else (last.destination_id, last.priority, last.rule_id)
    return found + _ownerless(connection), more


def first_in_lane(condition: ColumnElement[bool]) -> Select[tuple[int]]:
    """Query for the first request that waits under a condition, in the order of lanes."""
    # by all columns of the index: so the first is the one that is due first
    order = (*LANE, requests.c.not_before)
    return (
        select(requests.c.id)
        .where(QUEUED, requests.c.rule_id.is_not(None), condition)
        .order_by(*order)
        .limit(1)
    )


def _ownerless(connection: Connection) -> list[Lane]:
    rows = connection.execute(
        select(requests.c.destination_id, requests.c.priority)
        .where(DUE, requests.c.rule_id.is_(None))
        .distinct()
        .limit(MOST)
    )
    return [Lane(row.destination_id, row.priority, None, "") for row in rows]


def is_due(connection: Connection) -> bool:
    """Whether anything is due in any lane."""
    lanes, beyond = find_lanes(connection)
    while not lanes and beyond is not None:
        lanes, beyond = find_lanes(connection, beyond=beyond)
    return bool(lanes)


def first_of(connection: Connection, counts: Sequence[tuple[Lane, int]]) -> list[int]:
    """Hold the first requests of lanes that are due and that nobody else holds; give their ids.

    Parameters
    ----------
    counts
        Lanes, and how many of each.
    """
    owned = [(lane, count) for lane, count in counts if lane.rule_id is not None]
    others = [(lane, count) for lane, count in counts if lane.rule_id is None]
    if not is_postgresql(connection):
        # one at a time: there is no LATERAL, and nobody else at the database
        others, owned = [*owned, *others], []
    found: list[int] = list(connection.scalars(_OF_EACH, _columns(owned))) if owned else []
    for lane, count in others:
        found += connection.scalars(_of_lane(lane, count))
    return found


def _of_lane(lane: Lane, count: int) -> Select[tuple[int]]:
    return (
        select(requests.c.id)
        .where(
            DUE,
            requests.c.destination_id == lane.destination_id,
            requests.c.priority == lane.priority,
            requests.c.rule_id.is_(None) if lane.rule_id is None else requests.c.rule_id == lane.rule_id,
        )
        .order_by(requests.c.not_before)
        .limit(count)
        .with_for_update(skip_locked=True)
    )


def _columns(counts: Sequence[tuple[Lane, int]]) -> dict[str, list[int | None]]:
    return {
        "destinations": [lane.destination_id for lane, _ in counts],
        "priorities": [lane.priority for lane, _ in counts],
        "rules": [lane.rule_id for lane, _ in counts],
        "counts": [count for _, count in counts],
    }


def _of_each() -> Select[tuple[int]]:
    lane = (
        func.unnest(
            bindparam("destinations", type_=ARRAY(Integer)),
            bindparam("priorities", type_=ARRAY(Integer)),
            bindparam("rules", type_=ARRAY(BigInteger)),
            bindparam("counts", type_=ARRAY(Integer)),
        )
        .table_valued("destination_id", "priority", "rule_id", "count", name="lane")
        .render_derived()
    )
    first = (
        select(requests.c.id)
        .where(
            DUE,
            requests.c.destination_id == lane.c.destination_id,
            requests.c.priority == lane.c.priority,
            requests.c.rule_id == lane.c.rule_id,
        )
        .correlate(lane)
        .order_by(requests.c.not_before)
        .limit(lane.c.count)
        .with_for_update(skip_locked=True)
        .lateral("first")
    )
    return select(first.c.id).select_from(lane).join(first, true())


_OF_EACH = _of_each()
