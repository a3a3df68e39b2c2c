"""What keeps requests waiting in the queue that they do not say themselves, as statements see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    String,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    text,
    union_all,
)

from arriero.registry.schema.tables import accounts, requests, rse_health, rse_pauses, rses
from arriero.registry.states import BreakerState, RequestState, RseOperation
from arriero.registry.store.movers import SITE_MOVER
from arriero.registry.store.rse_health import FLAGS
from arriero.registry.store.rule_explanation import COPYING, QUEUED

BLOCKED = "blocked"
"""Code of what waits for an RSE that is closed."""

RSE_DOWN = "rse_down"
"""Code of what waits for an RSE that is down."""

_FULL = "link_busy"

SUBMITTED = text("requests.state = 'SUBMITTED'")
"""Spelt out, so that both databases see that the partial index serves."""


@dataclass(frozen=True, slots=True)
class Hindered:
    """RSEs to which nothing goes, by their ids."""

    closed: Sequence[int] = ()
    down: Sequence[int] = ()
    left: Sequence[int] = ()
    """To the movers of their sites."""
    full: Sequence[tuple[int, str]] = ()
    """With the activity; none for all of them."""

    def code(self) -> ColumnElement[str]:
        """What a request waits for."""
        destination = requests.c.destination_id
        limited = [
            and_(destination == rse_id, requests.c.activity == activity if activity else literal(True))
            for rse_id, activity in self.full
        ]
        said: list[tuple[ColumnElement[bool], Any]] = [
            (requests.c.state == RequestState.SUBMITTED, literal(COPYING)),
            (requests.c.state == RequestState.FAILED, func.coalesce(requests.c.code, literal("failed"))),
            (destination.in_(self.closed), literal(BLOCKED)),
            (destination.in_(self.down), literal(RSE_DOWN)),
            (requests.c.code.is_not(None), requests.c.code),
            (destination.in_(self.left), literal(SITE_MOVER)),
        ]
        if limited:
            said.append((or_(*limited), literal(_FULL)))
        return case(*said, else_=literal(QUEUED, String))


def closed_query() -> CompoundSelect[Any]:
    """Query for RSEs that are closed for reading or writing, with who has closed them if that is known."""
    return union_all(*(_closed_for(one) for one in (RseOperation.READ, RseOperation.WRITE)))


def _closed_for(operation: RseOperation) -> Select[Any]:
    of_it = and_(rse_pauses.c.rse_id == rses.c.id, rse_pauses.c.operation == operation)
    return (
        select(
            rses.c.id,
            rses.c.name,
            literal(operation, rse_pauses.c.operation.type).label("operation"),
            rse_pauses.c.created_at.label("since"),
            rse_pauses.c.reason,
            accounts.c.name.label("account"),
        )
        .outerjoin(rse_pauses, of_it)
        .outerjoin(accounts, accounts.c.id == rse_pauses.c.account_id)
        .where(~FLAGS[operation], rses.c.deleted_at.is_(None))
    )


def down_query() -> Select[Any]:
    """Query for RSEs that are down."""
    return (
        select(rse_health, rses.c.name)
        .join(rses, rses.c.id == rse_health.c.rse_id)
        .where(rse_health.c.breaker != BreakerState.CLOSED)
    )


def under_way_query() -> Select[Any]:
    """Query for how many copies are under way, by their ends and activity."""
    by = (requests.c.source_id, requests.c.destination_id, requests.c.activity)
    return select(*by, func.count().label("copies")).where(SUBMITTED).group_by(*by)
