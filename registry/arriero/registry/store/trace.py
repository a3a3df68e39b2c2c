"""Everything that the catalogue knows of one file, one query a subject."""

from typing import Any

from sqlalchemy import Connection, RowMapping, Select, case, null, select

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    accounts,
    arrivals,
    contents,
    dids,
    locks,
    replicas,
    request_history,
    requests,
    rses,
    rules,
    scopes,
)
from arriero.registry.states import RequestState
from arriero.registry.store.arrivals import arrival_rows


def did_row(connection: Connection, scope: str, name: str) -> RowMapping | None:
    """The DID with its account and the database's time, None when it does not exist."""
    query = (
        select(
            dids.c.id,
            dids.c.type,
            dids.c.bytes,
            dids.c.adler32,
            dids.c.created_at,
            accounts.c.name.label("account"),
            now().label("now"),
        )
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(accounts, accounts.c.id == dids.c.account_id)
        .where(scopes.c.name == scope, dids.c.name == name)
    )
    return connection.execute(query).mappings().one_or_none()


def rule_rows(did_id: int) -> Select[Any]:
    """Query for the rules on a DID and on whatever holds it, at any depth."""
    above = (
        select(contents.c.parent_id.label("id"))
        .where(contents.c.child_id == did_id)
        .cte("above", recursive=True)
    )
    above = above.union(select(contents.c.parent_id).join(above, contents.c.child_id == above.c.id))
    return (
        select(
            rules.c.uuid,
            scopes.c.name.label("scope"),
            dids.c.name,
            accounts.c.name.label("account"),
            rules.c.rse_expression,
            rules.c.copies,
            rules.c.state,
            rules.c.code,
            rules.c.reason,
            rules.c.created_at,
        )
        .join(dids, dids.c.id == rules.c.did_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(accounts, accounts.c.id == rules.c.account_id)
        .where((rules.c.did_id == did_id) | rules.c.did_id.in_(select(above.c.id)))
        .order_by(rules.c.id)
    )


def lock_rows(file_id: int) -> Select[Any]:
    """Query for the locks of a file."""
    return (
        select(
            rules.c.uuid,
            rses.c.name.label("rse"),
            locks.c.state,
            locks.c.code,
            locks.c.reason,
            locks.c.created_at,
        )
        .join(rules, rules.c.id == locks.c.rule_id)
        .join(rses, rses.c.id == locks.c.rse_id)
        .where(locks.c.file_id == file_id)
        .order_by(locks.c.rule_id, rses.c.name)
    )


def request_rows(file_id: int) -> Select[Any]:
    """Query for the copies of a file that are wanted or under way."""
    source, destination = rses.alias("source"), rses.alias("destination")
    return (
        select(
            requests.c.id,
            destination.c.name.label("destination"),
            requests.c.destination_id,
            source.c.name.label("source"),
            requests.c.activity,
            requests.c.state,
            requests.c.attempt,
            requests.c.code,
            requests.c.reason,
            case((requests.c.state == RequestState.QUEUED, requests.c.not_before), else_=null()).label(
                "not_before"
            ),
            requests.c.created_at,
            requests.c.started_at,
        )
        .join(destination, destination.c.id == requests.c.destination_id)
        .outerjoin(source, source.c.id == requests.c.source_id)
        .where(requests.c.file_id == file_id)
        .order_by(requests.c.id)
    )


def attempt_rows(file_id: int) -> Select[Any]:
    """Query for the copies of a file that have ended, well or not."""
    source, destination = rses.alias("source"), rses.alias("destination")
    return (
        select(
            request_history.c.request_id.label("id"),
            destination.c.name.label("destination"),
            source.c.name.label("source"),
            request_history.c.state,
            request_history.c.attempt,
            request_history.c.mode,
            request_history.c.seconds,
            request_history.c.code,
            request_history.c.reason,
            request_history.c.created_at,
            request_history.c.started_at,
            request_history.c.at.label("ended_at"),
        )
        .join(destination, destination.c.id == request_history.c.destination_id)
        .outerjoin(source, source.c.id == request_history.c.source_id)
        .where(request_history.c.file_id == file_id)
        .order_by(request_history.c.at, request_history.c.id)
    )


def replica_rows(file_id: int) -> Select[Any]:
    """Query for the replicas of a file."""
    return (
        select(
            rses.c.name.label("rse"),
            replicas.c.state,
            replicas.c.bytes,
            replicas.c.verified_at,
            replicas.c.code,
            replicas.c.reason,
            replicas.c.created_at,
            replicas.c.updated_at,
        )
        .join(rses, rses.c.id == replicas.c.rse_id)
        .where(replicas.c.file_id == file_id)
        .order_by(replicas.c.created_at, rses.c.name)
    )


def arrivals_of(file_id: int) -> Select[Any]:
    """Query for the arrivals of a file."""
    return arrival_rows().add_columns(arrivals.c.datasets).where(arrivals.c.file_id == file_id)


def fetch(connection: Connection, query: Select[Any]) -> list[dict[str, Any]]:
    """Rows of a query as dictionaries; a rule's ``uuid`` becomes its id on the wire."""
    rows = [dict(row) for row in connection.execute(query).mappings()]
    for row in rows:
        if "uuid" in row:
            row["rule_id"] = row.pop("uuid").hex
    return rows
