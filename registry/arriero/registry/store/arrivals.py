"""The ledger of arrivals: what has landed at an RSE that feeds a Butler, and how far it has come."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    true,
    tuple_,
    update,
)

from arriero.registry.dialect import insert_into, is_sent, like_pattern
from arriero.registry.models import MOVE
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    arrivals,
    butler_rses,
    butler_selections,
    butlers,
    dids,
    locks,
    replicas,
    rses,
    scopes,
)
from arriero.registry.states import ArrivalState


def is_held() -> ColumnElement[bool]:
    """Condition that the Butler refers to the file of an arrival, or may from one moment to the next.

    What a Butler has moved into its own datastore it does not refer to where it lay.
    """
    transfer = select(butlers.c.transfer).where(butlers.c.id == arrivals.c.butler_id)
    stays = transfer.correlate(arrivals).scalar_subquery() != MOVE
    return or_(
        arrivals.c.state == ArrivalState.LEASED,
        arrivals.c.may_hold,
        and_(arrivals.c.state == ArrivalState.INGESTED, stays),
    )


def let_go_of_moved(connection: Connection, ids: Sequence[int]) -> None:
    """Have deletion take the replicas of arrivals that a Butler has a file of its own of; what a rule holds stays."""
    replica = (replicas.c.file_id, replicas.c.rse_id)
    held = exists().where(locks.c.file_id == replica[0], locks.c.rse_id == replica[1])
    theirs = select(arrivals.c.file_id, arrivals.c.rse_id).where(arrivals.c.id.in_(ids))
    connection.execute(
        update(replicas)
        .where(tuple_(*replica).in_(theirs), ~held)
        .values(tombstone=func.coalesce(replicas.c.tombstone, now()), purge=true(), updated_at=now())
    )


def record_arrivals(connection: Connection, landed: Select[tuple[int, int]], *, anew: bool = False) -> None:
    """Write the arrivals of replicas that are AVAILABLE now, in one statement.

    Parameters
    ----------
    connection
        In the transaction that makes the replicas AVAILABLE.
    landed
        Two columns named ``file_id`` and ``rse_id``. Files that no Butler of that RSE takes, and arrivals that are
        in the ledger already, are passed over.
    anew
        They were not AVAILABLE before: what failed, or waits for its replica, is tried again.
    """
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
        _taken(landed),
    )
    key = ["butler_id", "file_id"]
    if not anew:
        connection.execute(statement.on_conflict_do_nothing(index_elements=key))
        return
    again = {
        "state": ArrivalState.PENDING.value,
        "attempt": 0,
        "not_before": now(),
        "fence": arrivals.c.fence + 1,
        "code": null(),
        "reason": null(),
        "updated_at": now(),
    }
    waits = and_(arrivals.c.state == ArrivalState.PENDING, arrivals.c.code == NOT_AVAILABLE)
    known = and_(
        arrivals.c.rse_id == statement.excluded.rse_id, or_(arrivals.c.state == ArrivalState.FAILED, waits)
    )
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=again, where=known))


def _taken(landed: Select[tuple[int, int]]) -> Select[Any]:
    """Query for the arrivals of replicas; what was registered together, as an exposure is, comes together."""
    replica = landed.subquery()
    return (
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
        .order_by(replica.c.file_id)
    )


NOT_AVAILABLE = "replica_not_available"
"""Code of an arrival whose replica is not there any more, or not yet again."""

DESCRIBED = "described_again"
"""Code of an arrival whose metadata have changed since an agent looked at it."""


def drive_described(connection: Connection, files: Select[tuple[int]], keep: str) -> None:
    """Have files be looked at anew whose metadata have changed: those that failed, wait, or are in an agent's hands.

    Parameters
    ----------
    files
        Their ids.
    keep
        Code of the arrivals that wait because somebody wants it: they go on waiting.
    """
    leased = arrivals.c.state == ArrivalState.LEASED
    connection.execute(
        update(arrivals)
        .where(
            arrivals.c.file_id.in_(files),
            arrivals.c.state.in_((ArrivalState.FAILED, ArrivalState.PARKED, ArrivalState.LEASED)),
            func.coalesce(arrivals.c.code, "") != keep,
        )
        # the fence moves: what an agent makes of it by the old metadata is not believed
        .values(
            state=ArrivalState.PENDING,
            attempt=0,
            not_before=now(),
            fence=arrivals.c.fence + 1,
            may_hold=case((leased, true()), else_=arrivals.c.may_hold),
            lease_owner=null(),
            lease_until=null(),
            waits_for=null(),
            code=DESCRIBED,
            reason="its metadata have changed",
            updated_at=now(),
        )
    )


def butlers_of(connection: Connection, ids: Sequence[int]) -> list[str]:
    """Names of the butlers that these arrivals are for."""
    query = (
        select(butlers.c.name)
        .join(arrivals, arrivals.c.butler_id == butlers.c.id)
        .where(is_sent(connection, arrivals.c.id, ids))
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
    rse_id: int | None,
    code: str | None,
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
    equal = (
        (arrivals.c.state, state),
        (arrivals.c.rse_id, rse_id),
        (arrivals.c.code, code),
        (dids.c.scope_id, scope_id),
    )
    query = query.where(*(column == value for column, value in equal if value is not None))
    if name is not None:
        query = query.where(dids.c.name.like(like_pattern(name), escape="\\"))
    return query
