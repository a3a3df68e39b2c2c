"""Requests and their history in the database: read, never changed from here."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, Table, literal, select

from arriero.registry.schema.tables import (
    accounts,
    dids,
    request_history,
    requests,
    rses,
    rules,
    scopes,
)
from arriero.registry.states import RequestState

_SOURCE = rses.alias("source")
_DESTINATION = rses.alias("destination")


def live_requests() -> Select[Any]:
    """Query for the requests that there are, with the names of what they point at, in the order of their ids."""
    columns = [
        requests.c.id,
        requests.c.id.label("request_id"),
        requests.c.type,
        requests.c.activity,
        requests.c.priority,
        requests.c.not_before,
        literal(None, request_history.c.mode.type).label("mode"),
        literal(None, request_history.c.at.type).label("ended_at"),
    ]
    return _described(requests, columns)


def past_requests() -> Select[Any]:
    """Query for the attempts that have ended, with the columns of `live_requests`, in the order in which they did."""
    columns = [
        request_history.c.id,
        request_history.c.request_id,
        literal("TRANSFER", requests.c.type.type).label("type"),
        rules.c.activity,
        rules.c.priority,
        literal(None, requests.c.not_before.type).label("not_before"),
        request_history.c.mode,
        request_history.c.at.label("ended_at"),
    ]
    return _described(request_history, columns)


def _described(table: Table, columns: list[Any]) -> Select[Any]:
    shared = ["file_id", "state", "attempt", "bytes", "code", "reason", "created_at", "started_at"]
    return (
        select(
            *columns,
            *(table.c[name] for name in shared),
            scopes.c.name.label("scope"),
            dids.c.name.label("name"),
            dids.c.adler32,
            dids.c.md5,
            _SOURCE.c.id.label("source_id"),
            _SOURCE.c.name.label("source"),
            _DESTINATION.c.id.label("destination_id"),
            _DESTINATION.c.name.label("destination"),
            rules.c.uuid.label("rule_uuid"),
            accounts.c.name.label("account"),
        )
        .select_from(table)
        .join(dids, dids.c.id == table.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(_DESTINATION, _DESTINATION.c.id == table.c.destination_id)
        .outerjoin(_SOURCE, _SOURCE.c.id == table.c.source_id)
        .outerjoin(rules, rules.c.id == table.c.rule_id)
        .outerjoin(accounts, accounts.c.id == rules.c.account_id)
        .order_by(table.c.id)
    )


def narrowed(
    query: Select[Any],
    table: Table,
    *,
    states: Collection[RequestState],
    sources: Collection[int] | None,
    destinations: Collection[int] | None,
) -> Select[Any]:
    """Narrow a query of this module to states and RSEs.

    Parameters
    ----------
    table
        ``requests`` or ``request_history``, as the query is of.
    sources, destinations
        Ids of RSEs; None for all.
    """
    query = query.where(table.c.state.in_(states))
    if sources is not None:
        query = query.where(table.c.source_id.in_(sources))
    return query if destinations is None else query.where(table.c.destination_id.in_(destinations))
