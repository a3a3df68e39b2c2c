"""What is done to the work of a rule by hand: copies taken back, attempts asked for, a rule handed over to another."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    dids,
    evaluations,
    locks,
    replicas,
    request_history,
    requests,
    rses,
    rules,
    scopes,
)
from arriero.registry.states import LockState, ReplicaState, RequestState, RuleState
from arriero.registry.store.attempts import tried_locks
from arriero.registry.store.rules import CANCELLED, end_requests, only_of

RETRY_NOW = "retry_now"
"""Code of a STUCK lock that the next evaluation tries again, however short ago it failed."""

CANCELLED_REASON = "its copy was taken back by hand; it is tried again with the rule"
"""Sentence of a lock whose copy was taken back; its code is `CANCELLED`."""


def _taken_back(rule_id: int) -> ColumnElement[bool]:
    """Whether a request that waits is one that `cancel_waiting` takes back."""
    mine = only_of(rule_id)
    place = tuple_(requests.c.file_id, requests.c.destination_id)
    return and_(
        requests.c.state == RequestState.QUEUED,
        # what was taken back before may have been asked for by another rule since
        place.in_(select(mine.c.file_id, mine.c.rse_id)),
        place.in_(
            select(locks.c.file_id, locks.c.rse_id).where(
                locks.c.rule_id == rule_id,
                locks.c.state == LockState.STUCK,
                locks.c.code == CANCELLED,
            )
        ),
    )


def cancel_waiting(connection: Connection, rule_id: int) -> int:
    """Take back the copies of a rule that have not begun and that no other rule wants; give how many.

    Parameters
    ----------
    rule_id
        Its row and the replicas that it holds are locked.
    """
    mine = only_of(rule_id)
    waiting = select(requests.c.file_id, requests.c.destination_id).where(
        requests.c.state == RequestState.QUEUED,
        tuple_(requests.c.file_id, requests.c.destination_id).in_(select(mine.c.file_id, mine.c.rse_id)),
    )
    # held: a worker that claims one now would copy what is taken back here
    held = waiting.order_by(requests.c.id).with_for_update().subquery()
    connection.execute(select(func.count()).select_from(held)).all()
    count = connection.execute(
        update(locks)
        .where(
            locks.c.rule_id == rule_id,
            locks.c.state == LockState.REPLICATING,
            tuple_(locks.c.file_id, locks.c.rse_id).in_(waiting),
        )
        .values(state=LockState.STUCK, code=CANCELLED, reason=CANCELLED_REASON)
    ).rowcount
    taken = select(requests.c.file_id, requests.c.destination_id).where(_taken_back(rule_id))
    connection.execute(
        update(replicas)
        .where(
            replicas.c.state == ReplicaState.COPYING, tuple_(replicas.c.file_id, replicas.c.rse_id).in_(taken)
        )
        .values(state=ReplicaState.UNAVAILABLE, code=CANCELLED, reason=CANCELLED_REASON, updated_at=now())
    )
    end_requests(connection, _taken_back(rule_id), CANCELLED_REASON)
    connection.execute(
        update(rules)
        .where(rules.c.id == rule_id)
        .values(locks_replicating=rules.c.locks_replicating - count, locks_stuck=rules.c.locks_stuck + count)
    )
    return count


def retry_stuck(connection: Connection, rule_id: int, *, only_cancelled: bool = False) -> None:
    """Have the next evaluation try the STUCK locks of a rule again, whatever their time."""
    which = [locks.c.rule_id == rule_id, locks.c.state == LockState.STUCK]
    if only_cancelled:
        which.append(locks.c.code == CANCELLED)
    connection.execute(update(locks).where(*which).values(code=RETRY_NOW))


def lock_rules(connection: Connection, uuids: Collection[UUID]) -> None:
    """Hold the rows of rules, in the order of their ids."""
    query = select(rules.c.id).where(rules.c.uuid.in_(uuids)).order_by(rules.c.id).with_for_update()
    connection.execute(query).all()


def leads_to(connection: Connection, rule_id: int, wanted: int) -> bool:
    """Whether a rule is, or is handed over to, ``wanted``, over however many others."""
    chain = (
        select(rules.c.id, rules.c.child_rule_id).where(rules.c.id == rule_id).cte("chain", recursive=True)
    )
    chain = chain.union(
        select(rules.c.id, rules.c.child_rule_id).join(chain, rules.c.id == chain.c.child_rule_id)
    )
    return connection.scalar(select(exists().where(chain.c.id == wanted))) is True


def hand_over_heirs(connection: Connection, rule_id: int, heir: int) -> None:
    """Have the rules that wait for one wait for another instead."""
    connection.execute(update(rules).where(rules.c.child_rule_id == rule_id).values(child_rule_id=heir))


def exchanged_locks(connection: Connection, old_id: int, new_id: int) -> Sequence[RowMapping]:
    """What a rule holds, and what another lets go of, when it takes the place of the other; by RSE.

    Returns
    -------
    rows
        ``rse``, and ``..._files`` and ``..._bytes`` of ``kept`` (what the new one holds), ``let_go`` (what only the old
        one of the two holds) and ``unheld`` (what of that no other rule holds).
    """
    both = locks.alias("both")
    goes = and_(
        locks.c.rule_id == old_id,
        ~exists().where(
            both.c.rule_id == new_id, both.c.file_id == locks.c.file_id, both.c.rse_id == locks.c.rse_id
        ),
    )
    alone = only_of(old_id)
    parts = {
        "kept": select(locks.c.rse_id, locks.c.bytes).where(locks.c.rule_id == new_id),
        "let_go": select(locks.c.rse_id, locks.c.bytes).where(goes),
        "unheld": select(alone.c.rse_id, alone.c.bytes),
    }
    rows = union_all(*(query.add_columns(literal(part).label("part")) for part, query in parts.items()))
    found = rows.subquery("found")
    sums = [
        func.coalesce(func.sum(case((found.c.part == part, value), else_=0)), 0).label(f"{part}_{name}")
        for part in parts
        for name, value in (("files", literal(1)), ("bytes", found.c.bytes))
    ]
    query = (
        select(rses.c.name.label("rse"), *(cast(one, BigInteger).label(one.name) for one in sums))
        .join(found, found.c.rse_id == rses.c.id)
        .group_by(rses.c.name)
        .order_by(rses.c.name)
    )
    return connection.execute(query).mappings().all()


_HEIR = rules.alias("heir")


def one_replaced(connection: Connection, *, skip: Collection[int] = ()) -> RowMapping | None:
    """Lock a rule whose child has done everything, and that nobody else is changing; None when there is none."""
    due = exists().where(evaluations.c.rule_id == _HEIR.c.id)
    query = (
        select(rules.c.id, rules.c.uuid, rules.c.state, rules.c.child_rule_id, _HEIR.c.uuid.label("child"))
        .join(_HEIR, _HEIR.c.id == rules.c.child_rule_id)
        # a child with a child of its own is itself on its way out; in a circle none is ever let go
        .where(_HEIR.c.state == RuleState.OK, _HEIR.c.child_rule_id.is_(None), ~due, ~rules.c.locked)
        .order_by(rules.c.id)
        .limit(1)
        .with_for_update(of=rules, skip_locked=True)
    )
    if skip:
        query = query.where(rules.c.id.not_in(skip))
    return connection.execute(query).mappings().one_or_none()


def stuck_locks(rule_id: int, limit: int) -> Select[Any]:
    """Query for the first STUCK locks of a rule, each with its request and the last attempt."""
    first = (
        select(locks.c.file_id)
        .where(locks.c.rule_id == rule_id, locks.c.state == LockState.STUCK)
        .order_by(locks.c.file_id, locks.c.rse_id)
        .limit(limit)
    )
    tried = tried_locks(request_history.c.file_id.in_(first))
    return (
        select(
            locks.c.file_id,
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.id.label("rse_id"),
            rses.c.name.label("rse"),
            locks.c.code,
            locks.c.reason,
            tried.attempts.label("attempts"),
            tried.last_at.label("last_time"),
            tried.last.reason.label("last_reason"),
            tried.source.name.label("last_source"),
        )
        .select_from(tried.joined.join(rses, rses.c.id == locks.c.rse_id))
        .where(locks.c.rule_id == rule_id, locks.c.state == LockState.STUCK)
        .order_by(locks.c.file_id, locks.c.rse_id)
        .limit(limit)
    )


def sources_of(connection: Connection, file_ids: Collection[int]) -> Sequence[Any]:
    """Where copies of files could be taken from: file, name of the RSE, whether it may be read from."""
    return connection.execute(
        select(replicas.c.file_id, rses.c.name, rses.c.availability_read.label("readable"))
        .join(rses, rses.c.id == replicas.c.rse_id)
        .where(
            replicas.c.file_id.in_(file_ids),
            or_(
                replicas.c.state == ReplicaState.AVAILABLE,
                replicas.c.state == ReplicaState.TEMPORARY_UNAVAILABLE,
            ),
        )
        .order_by(replicas.c.file_id, rses.c.name)
    ).all()
