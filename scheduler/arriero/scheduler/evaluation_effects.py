"""The statements that carry out what an evaluation decided: locks, their copies, and what is no longer wanted.

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
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    true,
    tuple_,
    update,
)

from arriero.registry.dialect import among, delete_each, insert_into, look_up, one_of
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import locks, replicas, requests
from arriero.registry.states import LockState, ReplicaState, RequestState
from arriero.registry.store.losses import LOST
from arriero.registry.store.rules import NO_RULE, NO_RULE_REASON
from arriero.scheduler import evaluation_copies as copies
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
    Window,
)
from arriero.scheduler.temporary import eval_gone, eval_placed

_GONE = select(eval_gone.c.file_id, eval_gone.c.rse_id)

LOCK_REASONS: Mapping[str, str] = {
    NO_SOURCE: "no RSE that may be read from holds an AVAILABLE replica; the copy begins when one appears",
    BEING_DELETED: "the replica there is being deleted; the copy begins when it has gone",
    BAD_REPLICA: "the replica there is bad; it is replaced when an AVAILABLE one can be read from",
    LOST: "no good copy of the file is known; register one, or accept the loss (arriero did accept-loss)",
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
    awaited: int
    """Copies that were under way already."""
    settled: int
    """Locks whose replica has come by itself."""
    changed: int
    """Locks that were there already."""
    there: int
    """Locks whose replica is there, in whatever state."""
    buried: int
    """Those of them that have a tombstone."""


def drop_gone(connection: Connection, scope: Scope) -> Counter[LockState]:
    """Remove the locks that nothing asks for any more.

    Returns
    -------
    Counter
        How many left each state.
    """
    on = and_(
        locks.c.rule_id == scope.rule_id,
        locks.c.file_id == eval_gone.c.file_id,
        locks.c.rse_id == eval_gone.c.rse_id,
    )
    found, lock = look_up(connection, eval_gone, locks, on)
    rows = connection.execute(
        select(lock.state, func.count().label("count")).select_from(found).group_by(lock.state)
    )
    dropped = Counter({row.state: int(row[1]) for row in rows})
    delete_each(connection, eval_gone, locks, on)
    return dropped


def let_go(connection: Connection, *, purge: bool) -> None:
    """Give replicas that no lock holds any more a tombstone, and take back the copies that nobody wants any more.

    A copy that is under way ends by itself; its replica has the tombstone already.
    """
    if not connection.scalar(select(exists().select_from(eval_gone))):
        return
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
        .limit(1)
        .scalar_subquery()
    )
    unstarted = and_(replicas.c.state == ReplicaState.COPYING, waiting.is_not(None))
    connection.execute(
        update(replicas)
        .where(
            among(connection, replicas.c.file_id, select(eval_gone.c.file_id)),
            one_of(tuple_(replicas.c.file_id, replicas.c.rse_id), _GONE),
            ~held.exists(),
        )
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
            among(connection, requests.c.file_id, select(eval_gone.c.file_id)),
            one_of(tuple_(requests.c.file_id, requests.c.destination_id), _GONE),
            requests.c.state != RequestState.SUBMITTED,
            ~wanted.exists(),
        )
    )


def carry_out(
    connection: Connection, scope: Scope, window: Window, *, activity: str, priority: int
) -> Placed:
    """Write replicas, requests and locks as decided.

    Parameters
    ----------
    activity, priority
        Of the rule, for its requests.
    """
    placed = _counts(connection)
    if placed.copies and (
        placed.there or not copies.copy_what_is_new(connection, scope, window, activity, priority)
    ):
        if copies.have_replicas(connection) < placed.copies:
            copies.see_what_came(connection)
            placed = _counts(connection)
        copies.have_requests(connection, scope, activity=activity, priority=priority)
    if placed.buried:
        copies.exhume(connection)
    _known_requests(connection, scope, placed, priority=priority)
    _locks(connection, scope, placed)
    return placed


def _known_requests(connection: Connection, scope: Scope, placed: Placed, *, priority: int) -> None:
    """Share the requests that are there with this rule, and end those whose file a client has brought."""
    if placed.awaited:
        copies.share_requests(connection, scope, priority=priority)
    if placed.settled:
        copies.end_requests(connection)


def _counts(connection: Connection) -> Placed:
    kind = (
        eval_placed.c.was,
        eval_placed.c.outcome,
        eval_placed.c.is_there,
        eval_placed.c.has_tombstone,
    )
    rows = connection.execute(select(*kind, func.count().label("files")).group_by(*kind))
    deltas: Counter[LockState] = Counter()
    sums: Counter[str] = Counter()
    for row in rows:
        files = int(row.files)
        deltas[LOCK_STATES[row.outcome]] += files
        sums["copies"] += files * (row.outcome == COPY)
        sums["there"] += files * row.is_there
        sums["buried"] += files * row.has_tombstone
        sums["awaited"] += files * (row.outcome == WAIT)
        sums["newly_waiting"] += files * (row.outcome in WAITING_CODES and row.was != LockState.STUCK)
        if row.was:
            deltas[LockState(row.was)] -= files
            sums["changed"] += files
            sums["settled"] += files * (row.outcome == OK)
    return Placed(
        deltas,
        copies=sums["copies"],
        newly_waiting=sums["newly_waiting"],
        awaited=sums["awaited"],
        settled=sums["settled"],
        changed=sums["changed"],
        there=sums["there"],
        buried=sums["buried"],
    )


_LOCK = ["rule_id", "file_id", "rse_id", "bytes", "state", "code", "reason", "created_at"]


def _locks(connection: Connection, scope: Scope, placed: Placed) -> None:
    """Insert the locks that are missing, which nobody else can insert meanwhile, and change those that are there."""
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
    )
    missing = rows.where(eval_placed.c.was == "")
    connection.execute(insert(locks).from_select(_LOCK, missing, include_defaults=False))
    if not placed.changed:
        return
    statement = insert_into(connection, locks).from_select(_LOCK, rows.where(eval_placed.c.was != ""))
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
