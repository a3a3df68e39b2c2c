"""On what terms deletion works at an RSE now: whether at all, how fast, and how much has to go.

What has to go is worked out and reserved in the database: whoever claims holds the RSE's row, and what is claimed counts as
gone from then on (docs/adr/0023).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, exists, func, or_, select

from arriero.registry.dialect import insert_into
from arriero.registry.schema.base import AT_THIS_MOMENT, now
from arriero.registry.schema.tables import (
    bad_replicas,
    deletion_passes,
    deletions,
    replicas,
    rse_attributes,
    rse_deletions,
    rse_limits,
    rse_usage,
    rses,
    stops,
)
from arriero.registry.states import DeletionPass
from arriero.registry.store.deletion_guards import AT_ONCE, DECLARED_BAD
from arriero.registry.store.stops import DELETIONS

GREEDY = "greedyDeletion"
"""Rucio's attribute of an RSE where everything goes whose tombstone is due, whether or not space is needed."""

RATE = "deletion_rate"
"""Attribute of an RSE: deletions a second, of all workers together."""

MIN_FREE = "MinFreeSpace"

_OFF = frozenset({"", "0", "false", "no", "none"})

_FREE = (
    select(func.min(rse_usage.c.free + rse_usage.c.freed))
    .where(rse_usage.c.rse_id == rses.c.id, rse_usage.c.free.is_not(None))
    .correlate(rses)
    .scalar_subquery()
)
"""Free bytes by the source that measured the least, with what deletion has freed since."""

_RESERVED = (
    select(func.coalesce(func.sum(deletions.c.bytes), 0))
    .where(
        deletions.c.rse_id == rses.c.id, deletions.c.lease_owner.is_not(None), deletions.c.gone_at.is_(None)
    )
    .correlate(rses)
    .scalar_subquery()
)
"""Bytes that workers are deleting now."""

_WAITING = (
    select(func.count())
    .select_from(deletions)
    .where(deletions.c.rse_id == rses.c.id, deletions.c.lease_owner.is_(None), deletions.c.gone_at.is_(None))
    .correlate(rses)
    .scalar_subquery()
)
"""Deletions that have failed and wait for their time."""


def _attribute(key: str) -> ScalarSelect[str]:
    return (
        select(rse_attributes.c.value)
        .where(rse_attributes.c.rse_id == rses.c.id, rse_attributes.c.key == key)
        .correlate(rses)
        .scalar_subquery()
    )


_LIMIT = (
    select(rse_limits.c.value)
    .where(rse_limits.c.rse_id == rses.c.id, rse_limits.c.name == MIN_FREE)
    .correlate(rses)
    .scalar_subquery()
)

STOPPED = exists().where(stops.c.name == DELETIONS)

_TERMS = select(
    now().label("now"),
    STOPPED.label("stopped"),
    rses.c.id,
    rses.c.name,
    rses.c.availability_delete,
    rses.c.deleted_at,
    rse_deletions.c.not_before,
    rse_deletions.c.failures,
    rse_deletions.c.paced_until,
    _attribute(GREEDY).label("greedy"),
    _attribute(RATE).label("rate"),
    _LIMIT.label("min_free"),
    _FREE.label("free"),
    _RESERVED.label("reserved"),
    _WAITING.label("waiting"),
).select_from(rses.outerjoin(rse_deletions, rse_deletions.c.rse_id == rses.c.id))


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for deletions at an RSE at one moment."""

    rse_id: int
    name: str
    now: datetime
    is_open: bool
    """Neither everything nor this RSE is stopped, and no failure is waited out."""
    failures: int
    """Failures of the storage in a row; after one, a single deletion is tried first."""
    waiting: int
    need: int | None
    """Bytes that have to go, less what is going; None: all that may."""
    rate: float | None
    paced_until: datetime | None

    @property
    def pace_wait_s(self) -> float:
        """Seconds until the pace allows another deletion."""
        if self.rate is None or self.paced_until is None:
            return 0.0
        return max(0.0, (self.paced_until - self.now).total_seconds())

    def paced(self, limit: int) -> int:
        """How many of some deletions the pace allows now: those of a second, one at least."""
        return limit if self.rate is None else min(limit, max(1, int(self.rate)))

    def paced_after(self, count: int) -> datetime | None:
        """Until when the pace is used up after so many more."""
        return None if self.rate is None else self.now + timedelta(seconds=count / self.rate)


def read_terms(connection: Connection, rse_id: int) -> Terms | None:
    """Read the terms of an RSE; None when there is no such RSE any more."""
    row = connection.execute(_TERMS.where(rses.c.id == rse_id)).one_or_none()
    return None if row is None else _terms(row)


def hold_rse(connection: Connection, rse_id: int) -> None:
    """Hold an RSE against everybody else who claims there; what is read of it afterwards stays so."""
    held = select(rse_deletions.c.rse_id).where(rse_deletions.c.rse_id == rse_id).with_for_update()
    if connection.scalar(held) is None:
        connection.execute(
            insert_into(connection, rse_deletions).values(rse_id=rse_id).on_conflict_do_nothing()
        )
        connection.execute(held)


def _terms(row: Any) -> Terms:
    waits = row.not_before is not None and row.not_before > row.now
    is_open = not (row.stopped or waits or row.deleted_at) and row.availability_delete
    return Terms(
        rse_id=row.id,
        name=row.name,
        now=row.now,
        is_open=bool(is_open),
        failures=row.failures or 0,
        waiting=row.waiting,
        need=_need(row),
        rate=_rate(row.rate),
        paced_until=row.paced_until,
    )


def _need(row: Any) -> int | None:
    if row.greedy is not None and row.greedy.casefold() not in _OFF:
        return None
    if row.free is None or row.min_free is None:
        return 0
    return max(0, int(row.min_free) - int(row.free) - int(row.reserved))


def _rate(value: str | None) -> float | None:
    try:
        rate = float(value or 0)
    except ValueError:
        return None
    return rate if rate > 0 else None


def sites(connection: Connection) -> list[dict[str, Any]]:
    """How deletion stands with each RSE, by name: the columns of `arriero.registry.deletion_words.DeletionSite`."""
    held = deletions.c.lease_owner.is_not(None)
    of_rse = deletions.c.rse_id == rses.c.id
    under_way = select(func.count()).select_from(deletions).where(of_rse, held)
    waiting = select(func.count()).select_from(deletions).where(of_rse, ~held)
    query = (
        _TERMS.add_columns(
            rse_deletions.c.code,
            rse_deletions.c.reason,
            rse_deletions.c.marked_at,
            under_way.correlate(rses).scalar_subquery().label("under_way"),
            waiting.correlate(rses).scalar_subquery().label("all_waiting"),
        )
        .where(rses.c.deleted_at.is_(None))
        .order_by(rses.c.name)
    )
    found = []
    for row in connection.execute(query):
        terms = _terms(row)
        found.append(
            {
                "rse": row.name,
                "is_open": terms.is_open,
                "availability_delete": row.availability_delete,
                "greedy": terms.need is None,
                "rate": terms.rate,
                "min_free": row.min_free,
                "free": row.free,
                "need": terms.need,
                "under_way": row.under_way,
                "waiting": row.all_waiting,
                "failures": terms.failures,
                "code": row.code,
                "reason": row.reason,
                "next_look_at": row.not_before,
                "marked_at": row.marked_at,
            }
        )
    return found


_NO_PASS_RESTS: Mapping[DeletionPass, ColumnElement[bool]] = {
    kind: ~exists().where(
        deletion_passes.c.rse_id == rses.c.id,
        deletion_passes.c.kind == kind,
        deletion_passes.c.not_before > AT_THIS_MOMENT,
    )
    for kind in DeletionPass
}


def due_rses(connection: Connection) -> Sequence[Terms]:
    """Give the RSEs at which there is something to do, by name; a claim may still find that all of it has to stay."""
    again = exists().where(
        deletions.c.rse_id == rses.c.id,
        deletions.c.not_before <= AT_THIS_MOMENT,
        deletions.c.lease_owner.is_(None),
        deletions.c.gone_at.is_(None),
    )
    at_once = exists().where(replicas.c.rse_id == rses.c.id, AT_ONCE)
    bad = exists().where(bad_replicas.c.rse_id == rses.c.id, DECLARED_BAD)
    buried = exists().where(
        replicas.c.rse_id == rses.c.id,
        replicas.c.tombstone.is_not(None),
        replicas.c.tombstone <= AT_THIS_MOMENT,
    )
    new = or_(
        and_(at_once, _NO_PASS_RESTS[DeletionPass.AT_ONCE]), and_(bad, _NO_PASS_RESTS[DeletionPass.BAD])
    ).label("new")
    needed = and_(buried, _NO_PASS_RESTS[DeletionPass.WHEN_NEEDED]).label("needed")
    query = _TERMS.add_columns(again.label("again"), new, needed).where(
        rses.c.availability_delete,
        rses.c.deleted_at.is_(None),
        ~STOPPED,
        or_(rse_deletions.c.not_before.is_(None), rse_deletions.c.not_before <= AT_THIS_MOMENT),
    )
    due = []
    for row in connection.execute(query.order_by(rses.c.name)):
        terms = _terms(row)
        if row.again or row.new or (row.needed and terms.need != 0):
            due.append(terms)
    return due
