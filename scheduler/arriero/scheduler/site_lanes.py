"""What the mover of a site may take: the lanes of its RSEs, and copies elsewhere that only it can read."""

from collections import Counter
from collections.abc import Collection
from math import inf

from sqlalchemy import Connection, and_, literal, select, text, tuple_

from arriero.registry.dialect import id_rows
from arriero.registry.schema.base import AT_THIS_MOMENT
from arriero.registry.schema.tables import requests
from arriero.scheduler.core.lanes import Lane
from arriero.scheduler.lanes import LANE, MOST, QUEUED, first_in_lane
from arriero.scheduler.traffic import Traffic

_WAITS_FOR_A_SITE = text("requests.state = 'QUEUED' AND requests.code = 'site_mover'")
"""Spelt out, so that both databases see that the partial index serves."""


def find_site_lanes(connection: Connection, rse_ids: Collection[int]) -> list[Lane]:
    """Find the lanes of some RSEs in which something is due; `MOST` at each of them are looked at."""
    sites = id_rows(connection, sorted(rse_ids)).subquery("sites")
    current = requests.alias("current")
    at_site = requests.c.destination_id == sites.c.id
    begin = first_in_lane(at_site).correlate(sites).scalar_subquery()
    after = (current.c.destination_id, current.c.priority, current.c.rule_id)
    beyond = and_(requests.c.destination_id == current.c.destination_id, tuple_(*LANE) > tuple_(*after))
    leap = first_in_lane(beyond).correlate(current).scalar_subquery()
    walk = select(begin.label("id"), literal(1).label("step")).select_from(sites).cte("walk", recursive=True)
    walk = walk.union_all(
        select(leap, walk.c.step + 1).join(current, current.c.id == walk.c.id).where(walk.c.step < MOST)
    )
    rows = connection.execute(
        select(*LANE, requests.c.activity)
        .select_from(walk)
        .join(requests, requests.c.id == walk.c.id)
        .where(requests.c.not_before <= AT_THIS_MOMENT)
        .order_by(walk.c.step)
    )
    found = [Lane(row.destination_id, row.priority, row.rule_id, row.activity) for row in rows]
    ownerless = connection.execute(
        select(requests.c.destination_id, requests.c.priority)
        .where(
            QUEUED,
            requests.c.rule_id.is_(None),
            requests.c.not_before <= AT_THIS_MOMENT,
            requests.c.destination_id.in_(select(sites.c.id)),
        )
        .distinct()
        .limit(MOST)
    )
    return found + [Lane(row.destination_id, row.priority, None, "") for row in ownerless]


def is_due_at(connection: Connection, rse_ids: Collection[int]) -> bool:
    """Whether the mover of some RSEs would find something to do."""
    waits = select(requests.c.id).where(_WAITS_FOR_A_SITE, requests.c.source_id.in_(sorted(rse_ids))).limit(1)
    return connection.scalar(waits) is not None or bool(find_site_lanes(connection, rse_ids))


def outgoing(connection: Connection, traffic: Traffic, *, limit: int) -> list[int]:
    """Hold requests elsewhere that wait for the mover of these RSEs, the most urgent first; give their ids.

    Parameters
    ----------
    traffic
        Of the mover that asks; says what its destinations have room for.
    """
    rows = connection.execute(
        select(requests.c.id, requests.c.destination_id, requests.c.activity)
        .where(
            _WAITS_FOR_A_SITE,
            requests.c.source_id.in_(sorted(traffic.site)),
            requests.c.destination_id.not_in(traffic.closed()),
        )
        .order_by(requests.c.priority.desc(), requests.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    room = traffic.room({row.destination_id for row in rows})
    found: list[int] = []
    counts: Counter[Lane] = Counter()
    for row in rows:
        left = room.get(row.destination_id, inf)
        if left >= 1:
            room[row.destination_id] = left - 1
            found.append(row.id)
            counts[Lane(row.destination_id, 0, None, row.activity)] += 1
    traffic.note_claimed(counts)
    return found
