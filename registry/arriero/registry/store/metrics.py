"""Figures about the queues and what works on them, each in one statement: what is measured is counted from the rows themselves."""

from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, case, func, null, select, text, union_all
from sqlalchemy import literal as value

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    arrivals,
    butlers,
    deletion_totals,
    deletions,
    evaluations,
    event_senders,
    events,
    link_totals,
    requests,
    rse_usage,
    rses,
    rules,
)
from arriero.registry.states import ArrivalState, RequestState
from arriero.registry.store.hindrances import Hindered

_SOURCE = rses.alias("source")
_DESTINATION = rses.alias("destination")


def requests_query(hindered: Hindered) -> Select[Any]:
    """Query for requests by where they go, activity, state and what they wait for, with the oldest, and the longest due."""
    due = and_(requests.c.state == RequestState.QUEUED, requests.c.not_before <= now())
    each = select(
        requests.c.destination_id,
        requests.c.activity,
        requests.c.state,
        hindered.code().label("code"),
        requests.c.bytes,
        requests.c.created_at,
        case((due, requests.c.not_before), else_=null()).label("due_at"),
    ).subquery("each")
    by = (each.c.destination_id, each.c.activity, each.c.state, each.c.code)
    counted = (
        select(
            *by,
            func.count().label("files"),
            func.sum(each.c.bytes).label("bytes"),
            func.min(each.c.created_at).label("oldest_at"),
            func.min(each.c.due_at).label("due_at"),
        )
        .group_by(*by)
        .subquery("counted")
    )
    return select(counted, rses.c.name.label("destination"), now().label("at")).join(
        rses, rses.c.id == counted.c.destination_id
    )


def link_totals_query() -> Select[Any]:
    """Query for the attempts of all links since the beginning."""
    return (
        select(link_totals, _SOURCE.c.name.label("source"), _DESTINATION.c.name.label("destination"))
        .join(_SOURCE, _SOURCE.c.id == link_totals.c.source_id)
        .join(_DESTINATION, _DESTINATION.c.id == link_totals.c.destination_id)
        .order_by(_SOURCE.c.name, _DESTINATION.c.name, link_totals.c.code)
    )


def rules_query() -> Select[Any]:
    """Query for rules and their locks by state."""
    sums = (rules.c.locks_ok, rules.c.locks_replicating, rules.c.locks_stuck)
    return select(
        rules.c.state, func.count().label("rules"), *(func.sum(column).label(column.name) for column in sums)
    ).group_by(rules.c.state)


def evaluations_query() -> Select[Any]:
    """Query for rules that are to be looked at, by whether they are held, due or wait; with the one that is due longest."""
    state = case(
        (evaluations.c.lease_owner.is_not(None), "held"),
        (evaluations.c.not_before <= now(), "due"),
        else_="later",
    )
    each = select(state.label("state"), evaluations.c.not_before).subquery("each")
    return select(
        each.c.state,
        func.count().label("rules"),
        func.min(each.c.not_before).label("due_at"),
        now().label("at"),
    ).group_by(each.c.state)


def arrivals_query(*, waiting: bool) -> Select[Any]:
    """Query for arrivals by Butler and state, with the oldest.

    Parameters
    ----------
    waiting
        Those that wait or are being ingested, which an index knows; the rest of the ledger if not.
    """
    # spelt out, so that the partial indexes serve
    queue = (text("arrivals.state IN ('pending', 'parked')"), text("arrivals.state = 'leased'"))
    rest = (text("arrivals.state NOT IN ('pending', 'parked', 'leased')"),)
    parts = [
        select(
            arrivals.c.butler_id,
            arrivals.c.state,
            func.count().label("files"),
            func.min(arrivals.c.created_at).label("oldest_at"),
        )
        .where(condition)
        .group_by(arrivals.c.butler_id, arrivals.c.state)
        for condition in (queue if waiting else rest)
    ]
    found = union_all(*parts).subquery("found")
    return select(found, butlers.c.name.label("butler"), now().label("at")).join(
        butlers, butlers.c.id == found.c.butler_id
    )


def arrival_reasons_query() -> Select[Any]:
    """Query for arrivals that wait, by Butler, state and code."""
    return (
        select(
            butlers.c.name.label("butler"),
            arrivals.c.state,
            arrivals.c.code,
            func.count().label("files"),
        )
        .join(butlers, butlers.c.id == arrivals.c.butler_id)
        # spelt out, so that the partial index serves
        .where(text("arrivals.state IN ('pending', 'parked')"))
        .group_by(butlers.c.name, arrivals.c.state, arrivals.c.code)
    )


def last_ingests_query() -> Select[Any]:
    """Query for when something was ingested last, by Butler."""
    last = (
        select(func.max(arrivals.c.ingested_at))
        .where(arrivals.c.butler_id == butlers.c.id, arrivals.c.ingested_at.is_not(None))
        .scalar_subquery()
    )
    return select(butlers.c.name.label("butler"), last.label("last_at"), now().label("at"))


def deletions_query() -> Select[Any]:
    """Query for deletions by RSE and whether they are held, failing or wait; with the oldest."""
    state = case(
        (deletions.c.lease_owner.is_not(None), "held"),
        (deletions.c.code.is_not(None), "failing"),
        else_="waiting",
    )
    each = select(
        deletions.c.rse_id, state.label("state"), deletions.c.bytes, deletions.c.created_at
    ).subquery("each")
    return (
        select(
            rses.c.name.label("rse"),
            each.c.state,
            func.count().label("files"),
            func.sum(each.c.bytes).label("bytes"),
            func.min(each.c.created_at).label("oldest_at"),
            now().label("at"),
        )
        .join(rses, rses.c.id == each.c.rse_id)
        .group_by(rses.c.name, each.c.state)
    )


def deletion_totals_query() -> Select[Any]:
    """Query for the deletions of all RSEs since the beginning."""
    return (
        select(deletion_totals, rses.c.name.label("rse"))
        .join(rses, rses.c.id == deletion_totals.c.rse_id)
        .order_by(rses.c.name, deletion_totals.c.outcome, deletion_totals.c.code)
    )


def workers_query() -> Select[Any]:
    """Query for who holds work of each queue now, and how much of it is held longer than its lease."""
    parts = (
        _held("transfer", requests, requests.c.state == RequestState.SUBMITTED),
        _held("rules", evaluations, evaluations.c.lease_owner.is_not(None)),
        _held("delete", deletions, deletions.c.lease_owner.is_not(None)),
        _held("ingest", arrivals, arrivals.c.state == ArrivalState.LEASED),
    )
    found = union_all(*parts).subquery("found")
    return select(found)


def _held(queue: str, table: Table, condition: ColumnElement[bool]) -> Select[Any]:
    late = case((table.c.lease_until < now(), 1), else_=0)
    return select(
        value(queue).label("queue"),
        func.count(table.c.lease_owner.distinct()).label("workers"),
        func.coalesce(func.sum(late), 0).label("late"),
    ).where(condition)


def event_senders_query() -> Select[Any]:
    """Query for the first event behind each sender's place."""
    first = (
        select(events.c.created_at)
        .where(events.c.id > event_senders.c.position)
        .order_by(events.c.id)
        .limit(1)
        .correlate(event_senders)
        .scalar_subquery()
    )
    return select(event_senders.c.name, first.label("oldest"), now().label("at"))


def usage_query() -> Select[Any]:
    """Query for the space of RSEs as their storages say."""
    return (
        select(rses.c.name.label("rse"), rse_usage.c.used, rse_usage.c.free, rse_usage.c.freed)
        .join(rses, rses.c.id == rse_usage.c.rse_id)
        .where(rse_usage.c.source == "storage", rses.c.deleted_at.is_(None))
        .order_by(rses.c.name)
    )
