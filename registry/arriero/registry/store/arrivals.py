"""The ledger of arrivals: what has landed at an RSE that feeds a Butler, and how far it has come."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, case, literal, select

from arriero.registry.dialect import insert_into, like_pattern
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    arrivals,
    butler_rses,
    butler_selections,
    butlers,
    dids,
    rses,
    scopes,
)
from arriero.registry.states import ArrivalState


def record_arrivals(connection: Connection, landed: Select[tuple[int, int]]) -> None:
    """Write the arrivals of replicas that are AVAILABLE now, in one statement.

    Parameters
    ----------
    connection
        In the transaction that makes the replicas AVAILABLE.
    landed
        Two columns named ``file_id`` and ``rse_id``. Files that no Butler of that RSE takes, and arrivals that are
        in the ledger already, are passed over.
    """
    replica = landed.subquery()
    taken = (
        select(
            butler_rses.c.butler_id,
            replica.c.file_id,
            replica.c.rse_id,
            literal(ArrivalState.PENDING.value),
            literal(0),
            now(),
            literal(0),
            now(),
            now(),
        )
        .select_from(replica)
        .join(butler_rses, butler_rses.c.rse_id == replica.c.rse_id)
        .join(dids, dids.c.id == replica.c.file_id)
        .join(
            butler_selections,
            and_(
                butler_selections.c.butler_id == butler_rses.c.butler_id,
                butler_selections.c.scope_id == dids.c.scope_id,
                dids.c.name.like(butler_selections.c.name_like, escape="\\"),
            ),
        )
        # SQLite reads the ON of ON CONFLICT as a join's unless a WHERE stands before it
        .where(literal(True))
    )
    statement = insert_into(connection, arrivals).from_select(
        [
            "butler_id",
            "file_id",
            "rse_id",
            "state",
            "attempt",
            "not_before",
            "fence",
            "created_at",
            "updated_at",
        ],
        taken,
    )
    connection.execute(statement.on_conflict_do_nothing(index_elements=["butler_id", "file_id"]))


def butlers_of(connection: Connection, ids: Sequence[int]) -> list[str]:
    """Names of the butlers that these arrivals are for."""
    query = (
        select(butlers.c.name)
        .join(arrivals, arrivals.c.butler_id == butlers.c.id)
        .where(arrivals.c.id.in_(ids))
        .distinct()
        .order_by(butlers.c.name)
    )
    return list(connection.scalars(query))


def arrival_rows() -> Select[Any]:
    """Query for the ledger, by id; narrow it with where()."""
    return (
        select(
            arrivals.c.id,
            butlers.c.name.label("butler"),
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.name.label("rse"),
            arrivals.c.state,
            arrivals.c.attempt,
            arrivals.c.dataset_id,
            arrivals.c.code,
            arrivals.c.reason,
            arrivals.c.waits_for,
            case(
                (arrivals.c.state.in_((ArrivalState.PENDING, ArrivalState.PARKED)), arrivals.c.not_before)
            ).label("not_before"),
            arrivals.c.lease_owner,
            arrivals.c.created_at,
            arrivals.c.started_at,
            arrivals.c.ingested_at,
            arrivals.c.updated_at,
        )
        .join(butlers, butlers.c.id == arrivals.c.butler_id)
        .join(dids, dids.c.id == arrivals.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == arrivals.c.rse_id)
        .order_by(arrivals.c.id)
    )


def narrowed_arrivals(
    *,
    butler_id: int | None,
    state: ArrivalState | None,
    scope_id: int | None,
    name: str | None,
    after_id: int,
    limit: int,
) -> Select[Any]:
    """Query for one page of the ledger.

    Parameters
    ----------
    name
        Pattern; ``*`` is any text.
    after_id
        The last id of the page before; 0 for the first.
    """
    query = arrival_rows().where(arrivals.c.id > after_id).limit(limit)
    if butler_id is not None:
        query = query.where(arrivals.c.butler_id == butler_id)
    if state is not None:
        query = query.where(arrivals.c.state == state)
    if scope_id is not None:
        query = query.where(dids.c.scope_id == scope_id)
    if name is not None:
        query = query.where(dids.c.name.like(like_pattern(name), escape="\\"))
    return query
