"""The statements that carry out what an evaluation decided: replicas, requests, locks, and what is no longer wanted.

Each takes a connection within the chunk's transaction; the rule's row and the replicas' rows are held.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    String,
    and_,
    case,
    cast,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    true,
    tuple_,
    update,
)

from arriero.registry.dialect import insert_into
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import dataset_locks, locks, replicas, requests
from arriero.registry.states import LockState, ReplicaState, RequestState, RequestType
from arriero.registry.store.rules import NO_RULE, NO_RULE_REASON
from arriero.scheduler.evaluation_words import (
    BAD_REPLICA,
    BEING_DELETED,
    COPY,
    LOCK_STATES,
    NO_SOURCE,
    OK,
    WAIT,
    WAITING_CODES,
    Scope,
)
from arriero.scheduler.temporary import eval_gone, eval_placed, eval_sets

LOCK_REASONS: Mapping[str, str] = {
    NO_SOURCE: "no RSE that may be read from holds an AVAILABLE replica; the copy begins when one appears",
    BEING_DELETED: "the replica there is being deleted; the copy begins when it has gone",
    BAD_REPLICA: "the replica there is bad and still in the way",
}
"""Sentence for each code of a STUCK lock."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What an evaluation did to the locks of its chunk."""

    deltas: Mapping[LockState, int]
    copies: int
    """Copies asked for, those that other rules had asked for already included."""
    newly_waiting: int
    """Locks that have begun to wait for something, such as a source."""


def drop_gone(connection: Connection, scope: Scope) -> Counter[LockState]:
    """Remove the locks that nothing asks for any more.

    Returns
    -------
    Counter
        How many left each state.
    """
    gone = and_(
        locks.c.rule_id == scope.rule_id,
        tuple_(locks.c.file_id, locks.c.rse_id).in_(select(eval_gone.c.file_id, eval_gone.c.rse_id)),
    )
    rows = connection.execute(
        select(locks.c.state, func.count().label("count")).where(gone).group_by(locks.c.state)
    )
    dropped = Counter({row.state: int(row[1]) for row in rows})
    connection.execute(delete(locks).where(gone))
    return dropped


def drop_places(connection: Connection, scope: Scope) -> None:
    """Forget the places of datasets that have been detached."""
    connection.execute(
        delete(dataset_locks).where(
            dataset_locks.c.rule_id == scope.rule_id,
            dataset_locks.c.group_id.not_in(select(eval_sets.c.group_id)),
        )
    )


def let_go(connection: Connection, *, purge: bool) -> None:
    """Give replicas that no lock holds any more a tombstone, and take back the copies that nobody wants any more.

    A copy that is under way ends by itself; its replica has the tombstone already.
    """
    held = (
        select(literal(1))
        .where(locks.c.file_id == replicas.c.file_id, locks.c.rse_id == replicas.c.rse_id)
        .correlate(replicas)
    )
    waiting = (
        select(literal(1))
        .where(
            requests.c.file_id == replicas.c.file_id,
            requests.c.destination_id == replicas.c.rse_id,
            requests.c.state != RequestState.SUBMITTED,
        )
        .correlate(replicas)
    )
    unstarted = and_(replicas.c.state == ReplicaState.COPYING, waiting.exists())
    gone = select(eval_gone.c.file_id, eval_gone.c.rse_id)
    connection.execute(
        update(replicas)
        .where(tuple_(replicas.c.file_id, replicas.c.rse_id).in_(gone), ~held.exists())
        .values(
            tombstone=func.coalesce(replicas.c.tombstone, now()),
            purge=true() if purge else replicas.c.purge,
            state=case((unstarted, ReplicaState.UNAVAILABLE.value), else_=cast(replicas.c.state, String)),
            code=case((unstarted, NO_RULE), else_=replicas.c.code),
            reason=case((unstarted, NO_RULE_REASON), else_=replicas.c.reason),
            updated_at=now(),
        )
    )
    wanted = (
        select(literal(1))
        .where(locks.c.file_id == requests.c.file_id, locks.c.rse_id == requests.c.destination_id)
        .correlate(requests)
    )
    connection.execute(
        delete(requests).where(
            tuple_(requests.c.file_id, requests.c.destination_id).in_(gone),
            requests.c.state != RequestState.SUBMITTED,
            ~wanted.exists(),
        )
    )


def carry_out(connection: Connection, scope: Scope, *, activity: str, priority: int) -> Placed:
    """Write replicas, requests and locks as decided.

    Parameters
    ----------
    activity, priority
        Of the rule, for its requests.
    """
    _replicas(connection)
    _requests(connection, scope, activity=activity, priority=priority)
    _known_requests(connection, scope, priority=priority)
    placed = _counts(connection)
    _locks(connection, scope)
    return placed


def _replicas(connection: Connection) -> None:
    copies = (
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
    statement = insert_into(connection, replicas).from_select(
        ["file_id", "rse_id", "bytes", "state", "created_at", "updated_at"], copies
    )
    connection.execute(
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
            where=replicas.c.state == ReplicaState.UNAVAILABLE,
        )
    )
    placed = select(eval_placed.c.file_id, eval_placed.c.rse_id)
    connection.execute(
        update(replicas)
        .where(replicas.c.tombstone.is_not(None), tuple_(replicas.c.file_id, replicas.c.rse_id).in_(placed))
        .values(tombstone=None, purge=None)
    )


def _requests(connection: Connection, scope: Scope, *, activity: str, priority: int) -> None:
    copies = (
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
    columns = ["type", "file_id", "destination_id", "rule_id", "bytes", "activity", "priority"]
    columns += ["state", "attempt", "not_before", "fence", "created_at"]
    statement = insert_into(connection, requests).from_select(columns, copies)
    asked = statement.excluded
    failed = requests.c.state == RequestState.FAILED
    more = asked.priority > requests.c.priority
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["file_id", "destination_id"],
            # one that failed begins anew; one that is live is shared, and only becomes more urgent
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


def _known_requests(connection: Connection, scope: Scope, *, priority: int) -> None:
    """Share the requests that are there with this rule, and end those whose file a client has brought."""
    awaited = select(eval_placed.c.file_id, eval_placed.c.rse_id).where(eval_placed.c.outcome == WAIT)
    connection.execute(
        update(requests)
        .where(
            or_(requests.c.priority < priority, requests.c.rule_id.is_(None)),
            tuple_(requests.c.file_id, requests.c.destination_id).in_(awaited),
        )
        .values(
            priority=case((requests.c.priority < priority, priority), else_=requests.c.priority),
            rule_id=func.coalesce(requests.c.rule_id, scope.rule_id),
        )
    )
    there = select(eval_placed.c.file_id, eval_placed.c.rse_id).where(
        eval_placed.c.outcome == OK, eval_placed.c.was != ""
    )
    connection.execute(
        delete(requests).where(
            tuple_(requests.c.file_id, requests.c.destination_id).in_(there),
            requests.c.state != RequestState.SUBMITTED,
        )
    )


def _counts(connection: Connection) -> Placed:
    rows = connection.execute(
        select(eval_placed.c.was, eval_placed.c.outcome, func.count().label("count")).group_by(
            eval_placed.c.was, eval_placed.c.outcome
        )
    )
    deltas: Counter[LockState] = Counter()
    copies = newly_waiting = 0
    for row in rows:
        copies += row[2] if row.outcome == COPY else 0
        newly_waiting += row[2] if row.outcome in WAITING_CODES and row.was != LockState.STUCK else 0
        deltas[LOCK_STATES[row.outcome]] += row[2]
        if row.was:
            deltas[LockState(row.was)] -= row[2]
    return Placed(deltas, copies, newly_waiting)


def _locks(connection: Connection, scope: Scope) -> None:
    outcome = eval_placed.c.outcome
    state = case(
        (outcome == OK, LockState.OK.value),
        (outcome.in_((WAIT, COPY)), LockState.REPLICATING.value),
        else_=LockState.STUCK.value,
    )
    code = case((outcome.in_(tuple(LOCK_REASONS)), outcome), else_=null())
    reason = case(*((outcome == known, sentence) for known, sentence in LOCK_REASONS.items()), else_=null())
    rows = select(
        literal(scope.rule_id),
        eval_placed.c.file_id,
        eval_placed.c.rse_id,
        eval_placed.c.bytes,
        state,
        code,
        reason,
        now(),
    ).where(true())
    statement = insert_into(connection, locks).from_select(
        ["rule_id", "file_id", "rse_id", "bytes", "state", "code", "reason", "created_at"], rows
    )
    decided: Any = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["rule_id", "file_id", "rse_id"],
            set_={"state": decided.state, "code": decided.code, "reason": decided.reason},
            where=or_(
                locks.c.state != decided.state,
                func.coalesce(locks.c.code, "") != func.coalesce(decided.code, ""),
            ),
        )
    )
