"""Transfers in the database, for those who look at them: lists, totals, and all that is known of one."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    case,
    exists,
    func,
    literal,
    null,
    select,
    union_all,
)

from arriero.registry.schema.tables import (
    accounts,
    dids,
    locks,
    replicas,
    request_attempts,
    request_history,
    requests,
    rses,
    rules,
    scopes,
)
from arriero.registry.states import LockState, RequestState
from arriero.registry.store.contents import file_ids_below
from arriero.registry.store.hindrances import Hindered
from arriero.registry.store.rule_explanation import COPYING, QUEUED

_SOURCE = rses.alias("source")
_DESTINATION = rses.alias("destination")

ATTEMPTS = 100
"""Past attempts at a file that are told."""

_TOLD = (
    *("at", "request_id", "source_id", "destination_id", "attempt"),
    *("bytes", "code", "reason", "created_at", "started_at"),
)
"""What is known of every attempt."""

_OF_THE_LAST = ("state", "mode", "mode_reason", "seconds")
"""What is known only of the one that ended its request."""


def wanted_by(rule_id: int) -> ColumnElement[bool]:
    """Condition that a request is for what a rule lacks; also where another rule has asked first."""
    return exists().where(
        locks.c.rule_id == rule_id,
        locks.c.file_id == requests.c.file_id,
        locks.c.rse_id == requests.c.destination_id,
        locks.c.state != LockState.OK,
    )


def below(did_id: int) -> ColumnElement[bool]:
    """Condition that a request is for a file that a DID is or holds."""
    return requests.c.file_id.in_(select(file_ids_below([did_id]).c.id))


def transfers_query(
    which: Sequence[ColumnElement[bool]], hindered: Hindered, code: str | None
) -> Select[Any]:
    """Query for requests with the names of what they point at, and what they wait for as ``waits_for``.

    Parameters
    ----------
    which
        Conditions on ``requests``.
    code
        Only those that wait for this.
    """
    waits_for = hindered.code()
    query = (
        select(
            requests,
            waits_for.label("waits_for"),
            scopes.c.name.label("scope"),
            dids.c.name.label("name"),
            _SOURCE.c.name.label("source"),
            _DESTINATION.c.name.label("destination"),
            rules.c.uuid.label("rule_uuid"),
            accounts.c.name.label("account"),
        )
        .join(dids, dids.c.id == requests.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(_DESTINATION, _DESTINATION.c.id == requests.c.destination_id)
        .outerjoin(_SOURCE, _SOURCE.c.id == requests.c.source_id)
        .outerjoin(rules, rules.c.id == requests.c.rule_id)
        .outerjoin(accounts, accounts.c.id == rules.c.account_id)
        .where(*which)
    )
    return query if code is None else query.where(waits_for == code)


def by_age(query: Select[Any]) -> Select[Any]:
    """Have the oldest first."""
    return query.order_by(requests.c.id)


def by_problem(query: Select[Any], hindered: Hindered) -> Select[Any]:
    """Have what has gone wrong last first, and what goes its way at the end, the oldest first."""
    well = case((hindered.code().in_((COPYING, QUEUED)), 1), else_=0)
    return query.order_by(well, requests.c.started_at.desc().nulls_last(), requests.c.id)


def totals_query(which: Sequence[ColumnElement[bool]], hindered: Hindered, code: str | None) -> Select[Any]:
    """Query for requests counted by what they wait for and where they go.

    Parameters
    ----------
    which, code
        As of `transfers_query`.
    """
    queued = requests.c.state == RequestState.QUEUED
    each = (
        select(
            requests.c.id,
            requests.c.state,
            requests.c.destination_id,
            requests.c.bytes,
            requests.c.attempt,
            requests.c.created_at,
            case((queued, requests.c.not_before), else_=null()).label("next_attempt_at"),
            hindered.code().label("waits_for"),
        )
        .where(*which)
        .subquery("each")
    )
    counted = select(
        each.c.state,
        each.c.waits_for,
        each.c.destination_id,
        func.count().label("files"),
        func.sum(each.c.bytes).label("bytes"),
        func.max(each.c.attempt).label("attempts"),
        func.min(each.c.created_at).label("oldest_at"),
        func.min(each.c.next_attempt_at).label("next_attempt_at"),
        func.min(each.c.id).label("example_id"),
    ).group_by(each.c.state, each.c.waits_for, each.c.destination_id)
    if code is not None:
        counted = counted.where(each.c.waits_for == code)
    found = counted.subquery("counted")
    return (
        select(
            found,
            _DESTINATION.c.name.label("destination"),
            requests.c.code.label("example_code"),
            requests.c.reason.label("example_reason"),
            requests.c.activity,
        )
        .join(requests, requests.c.id == found.c.example_id)
        .join(_DESTINATION, _DESTINATION.c.id == found.c.destination_id)
        .order_by(found.c.files.desc(), _DESTINATION.c.name, found.c.waits_for)
    )


def attempts_of(connection: Connection, file_id: int, rse_id: int | None) -> Sequence[RowMapping]:
    """Attempts at copies of a file that have ended, the last first, at one RSE or at all."""
    ended = select(*(request_history.c[name] for name in (*_TOLD, *_OF_THE_LAST)))
    none = [
        literal(None, request_history.c[name].type).label(name) for name in ("mode", "mode_reason", "seconds")
    ]
    again = literal(RequestState.QUEUED.value, request_history.c.state.type).label("state")
    followed = select(*(request_attempts.c[name] for name in _TOLD), again, *none)
    parts = []
    for query, table in ((ended, request_history), (followed, request_attempts)):
        part = query.where(table.c.file_id == file_id)
        parts.append(part if rse_id is None else part.where(table.c.destination_id == rse_id))
    tried = union_all(*parts).subquery("tried")
    query = (
        select(tried, _SOURCE.c.name.label("source"), _DESTINATION.c.name.label("destination"))
        .join(_DESTINATION, _DESTINATION.c.id == tried.c.destination_id)
        .outerjoin(_SOURCE, _SOURCE.c.id == tried.c.source_id)
        .order_by(tried.c.at.desc(), tried.c.request_id.desc(), tried.c.attempt.desc())
        .limit(ATTEMPTS)
    )
    return connection.execute(query).mappings().all()


def locks_on(connection: Connection, file_id: int, rse_id: int | None) -> Sequence[RowMapping]:
    """Locks on a file, at one RSE or at all."""
    query = (
        select(
            _DESTINATION.c.name.label("destination"),
            rules.c.uuid.label("rule_uuid"),
            accounts.c.name.label("account"),
            locks.c.state,
            locks.c.code,
            locks.c.reason,
        )
        .join(rules, rules.c.id == locks.c.rule_id)
        .join(accounts, accounts.c.id == rules.c.account_id)
        .join(_DESTINATION, _DESTINATION.c.id == locks.c.rse_id)
        .where(locks.c.file_id == file_id)
        .order_by(locks.c.rse_id, locks.c.rule_id)
    )
    if rse_id is not None:
        query = query.where(locks.c.rse_id == rse_id)
    return connection.execute(query).mappings().all()


def replicas_of(connection: Connection, file_id: int) -> dict[str, Any]:
    """State of each replica of a file, by the name of its RSE."""
    query = (
        select(rses.c.name, replicas.c.state)
        .join(rses, rses.c.id == replicas.c.rse_id)
        .where(replicas.c.file_id == file_id)
    )
    return {row.name: row.state for row in connection.execute(query)}
