"""The statements that carry out the copies that an evaluation decided on: their replicas and their requests.

Each takes a connection within the chunk's transaction; the rule's row is held, and every replica that a copy is written for.
"""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from arriero.registry.dialect import among, insert_into, one_of
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import replicas, requests
from arriero.registry.states import ReplicaState, RequestState, RequestType
from arriero.scheduler.evaluation_words import COPY, NO_SOURCE, OK, OUTCOMES, WAIT, Scope, Window
from arriero.scheduler.temporary import eval_placed


def copy_what_is_new(
    connection: Connection, scope: Scope, window: Window, activity: str, priority: int
) -> bool:
    """Insert replicas and requests where there are none, which costs half; False if there are some, or one has come.

    Call it when no wanted lock has a replica.
    """
    asked = exists().where(requests.c.file_id.between(window.first, window.last))
    if connection.scalar(select(asked)):
        return False
    savepoint = connection.begin_nested()
    try:
        connection.execute(insert(replicas).from_select(_REPLICA, _new_replicas(), include_defaults=False))
        rows = _new_requests(scope, activity=activity, priority=priority)
        connection.execute(insert(requests).from_select(_REQUEST, rows, include_defaults=False))
    except IntegrityError:
        savepoint.rollback()
        return False
    savepoint.commit()
    return True


_REPLICA = ["file_id", "rse_id", "bytes", "state", "created_at", "updated_at"]


def _new_replicas() -> Select[Any]:
    return (
        select(
            eval_placed.c.file_id,
            eval_placed.c.rse_id,
            eval_placed.c.bytes,
            literal(ReplicaState.COPYING.value),
            now(),
            now(),
        )
        .where(eval_placed.c.outcome == COPY)
        .order_by(eval_placed.c.file_id, eval_placed.c.rse_id)
    )


def have_replicas(connection: Connection) -> int:
    """Have a COPYING replica for each copy; give how many were not there, or only UNAVAILABLE or BAD."""
    statement = insert_into(connection, replicas).from_select(_REPLICA, _new_replicas())
    return connection.execute(
        statement.on_conflict_do_update(
            index_elements=["file_id", "rse_id"],
            set_={
                "state": ReplicaState.COPYING.value,
                "code": None,
                "reason": None,
                "verified_at": None,
                "tombstone": None,
                "purge": None,
                "updated_at": now(),
            },
            # what is bad there is replaced when a verified copy lies beside it
            where=replicas.c.state.in_((ReplicaState.UNAVAILABLE, ReplicaState.BAD)),
        ),
        execution_options={"preserve_rowcount": True},
    ).rowcount


def exhume(connection: Connection) -> None:
    """Take the tombstones from the replicas that the rule holds now."""
    _exhume(connection, eval_placed.c.has_tombstone)


def see_what_came(connection: Connection) -> None:
    """Decide again about copies whose replica has come since the others were held; it is held by the insert."""
    there = cast(replicas.c.state, String)
    came = (
        select(case(*((there == state.value, decided) for state, decided in OUTCOMES.items()), else_=COPY))
        .where(replicas.c.file_id == eval_placed.c.file_id, replicas.c.rse_id == eval_placed.c.rse_id)
        .correlate(eval_placed)
        .scalar_subquery()
    )
    known = (
        select(literal(1))
        .where(
            replicas.c.file_id == eval_placed.c.file_id,
            replicas.c.rse_id == eval_placed.c.rse_id,
            replicas.c.state != ReplicaState.COPYING,
        )
        .correlate(eval_placed)
    )
    connection.execute(
        update(eval_placed).where(eval_placed.c.outcome == COPY, known.exists()).values(outcome=came)
    )
    _exhume(connection, eval_placed.c.outcome != NO_SOURCE)


def _exhume(connection: Connection, condition: ColumnElement[bool]) -> None:
    """Take the tombstones from the replicas of some of the wanted locks."""
    pairs = select(eval_placed.c.file_id, eval_placed.c.rse_id).where(condition)
    connection.execute(
        update(replicas)
        .where(
            replicas.c.tombstone.is_not(None),
            among(connection, replicas.c.file_id, pairs.with_only_columns(eval_placed.c.file_id)),
            one_of(tuple_(replicas.c.file_id, replicas.c.rse_id), pairs),
        )
        .values(tombstone=None, purge=None)
    )


_REQUEST = [
    "type",
    "file_id",
    "destination_id",
    "rule_id",
    "bytes",
    "activity",
    "priority",
    "state",
    "attempt",
    "not_before",
    "fence",
    "created_at",
]


def _new_requests(scope: Scope, *, activity: str, priority: int) -> Select[Any]:
    return (
        select(
            literal(RequestType.TRANSFER.value),
            eval_placed.c.file_id,
            eval_placed.c.rse_id,
            literal(scope.rule_id),
            eval_placed.c.bytes,
            literal(activity),
            literal(priority),
            literal(RequestState.QUEUED.value),
            literal(0),
            now(),
            literal(0),
            now(),
        )
        .where(eval_placed.c.outcome == COPY)
        .order_by(eval_placed.c.file_id, eval_placed.c.rse_id)
    )


def have_requests(connection: Connection, scope: Scope, *, activity: str, priority: int) -> None:
    """Have a request for each copy; one that failed begins anew, one that is live is shared."""
    rows = _new_requests(scope, activity=activity, priority=priority)
    statement = insert_into(connection, requests).from_select(_REQUEST, rows)
    asked = statement.excluded
    failed = requests.c.state == RequestState.FAILED
    more = asked.priority > requests.c.priority
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["file_id", "destination_id"],
            # what is shared can only become more urgent
            set_={
                "priority": case((more, asked.priority), else_=requests.c.priority),
                "state": case((failed, RequestState.QUEUED.value), else_=cast(requests.c.state, String)),
                "attempt": case((failed, 0), else_=requests.c.attempt),
                "not_before": case((failed, now()), else_=requests.c.not_before),
                "rule_id": case((failed, asked.rule_id), else_=requests.c.rule_id),
                "code": case((failed, null()), else_=requests.c.code),
                "reason": case((failed, null()), else_=requests.c.reason),
            },
            where=or_(failed, more),
        )
    )


def share_requests(connection: Connection, scope: Scope, *, priority: int) -> None:
    """Have the copies that are under way be as urgent as the rule, and belong to it if they belong to none."""
    awaited = select(eval_placed.c.file_id, eval_placed.c.rse_id).where(eval_placed.c.outcome == WAIT)
    connection.execute(
        update(requests)
        .where(
            among(
                connection,
                requests.c.file_id,
                select(eval_placed.c.file_id).where(eval_placed.c.outcome == WAIT),
            ),
            or_(requests.c.priority < priority, requests.c.rule_id.is_(None)),
            one_of(tuple_(requests.c.file_id, requests.c.destination_id), awaited),
        )
        .values(
            priority=case((requests.c.priority < priority, priority), else_=requests.c.priority),
            rule_id=func.coalesce(requests.c.rule_id, scope.rule_id),
        )
    )


def end_requests(connection: Connection) -> None:
    """Take back the requests for what has come by itself, but those that are under way."""
    is_there = (eval_placed.c.outcome == OK, eval_placed.c.was != "")
    there = select(eval_placed.c.file_id, eval_placed.c.rse_id).where(*is_there)
    connection.execute(
        delete(requests).where(
            among(connection, requests.c.file_id, select(eval_placed.c.file_id).where(*is_there)),
            one_of(tuple_(requests.c.file_id, requests.c.destination_id), there),
            requests.c.state != RequestState.SUBMITTED,
        )
    )
