"""What is said against replicas: the declarations, and what they do to replicas, locks and rules, by sets.

The set is the temporary table of `arriero.registry.store.replica_sets`; rules and replicas are held by the caller.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Integer,
    Select,
    and_,
    case,
    cast,
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
from sqlalchemy import String as Text

from arriero.registry.schema.base import UtcDateTime, now
from arriero.registry.schema.tables import bad_replicas, locks, replicas, rule_history, rules
from arriero.registry.states import BadReplicaState, LockState, ReplicaState, RuleState
from arriero.registry.store.replica_sets import staged_replicas
from arriero.registry.store.staging import staged_files

BAD_REPLICA = "bad_replica"
"""Code of replicas that were declared bad, and of the locks and rules that this stops."""

OPEN = (BadReplicaState.BAD, BadReplicaState.TEMPORARY_UNAVAILABLE, BadReplicaState.LOST)
"""Declarations that have not ended."""

_WORKING = (RuleState.OK, RuleState.REPLICATING, RuleState.STUCK)
_STAGED = select(staged_replicas.c.file_id, staged_replicas.c.rse_id)
_LOCK = and_(locks.c.file_id == staged_replicas.c.file_id, locks.c.rse_id == staged_replicas.c.rse_id)


def declare(
    connection: Connection,
    state: BadReplicaState,
    *,
    reason: str | None,
    account_id: int | None,
    expires_at: datetime | None,
) -> None:
    """Write a declaration against each staged replica, all with one instant: they are one incident."""
    instant = select(now()).scalar_subquery()
    rows = select(
        staged_replicas.c.file_id,
        staged_replicas.c.rse_id,
        literal(state.value),
        cast(literal(reason), Text),
        cast(literal(account_id), Integer),
        literal(expires_at, UtcDateTime()) if expires_at else null(),
        instant,
        instant,
    ).order_by(staged_replicas.c.file_id, staged_replicas.c.rse_id)
    columns = ["file_id", "rse_id", "state", "reason", "account_id", "expires_at", "created_at", "updated_at"]
    connection.execute(insert(bad_replicas).from_select(columns, rows, include_defaults=False))


def close(
    connection: Connection, becomes: BadReplicaState, which: Collection[BadReplicaState] = OPEN
) -> None:
    """End the open declarations against the staged replicas, those in some states only if they are given."""
    connection.execute(
        update(bad_replicas)
        .where(
            bad_replicas.c.state.in_(which),
            tuple_(bad_replicas.c.file_id, bad_replicas.c.rse_id).in_(_STAGED),
        )
        .values(state=becomes.value, updated_at=now())
    )


def recover_staged_files(connection: Connection, rse_id: int, *, proven: bool) -> None:
    """End what was said against replicas at an RSE that are declared AVAILABLE now; the BAD ones are, where it says.

    Parameters
    ----------
    proven
        Only where the declaration carries a checksum: saying once more that a file is there settles nothing.
    """
    staged = staged_files.c
    said = [staged.state == ReplicaState.AVAILABLE.value]
    if proven:
        said.append(or_(staged.adler32.is_not(None), staged.md5.is_not(None)))
    good = select(staged.file_id).where(*said)
    # a BAD one may be about to be replaced
    settled = (
        ReplicaState.BAD,
        ReplicaState.TEMPORARY_UNAVAILABLE,
        ReplicaState.UNAVAILABLE,
        ReplicaState.COPYING,
    )
    there = select(replicas.c.file_id).where(
        replicas.c.rse_id == rse_id, replicas.c.state.in_(settled), replicas.c.file_id.in_(good)
    )
    connection.execute(
        update(bad_replicas)
        .where(
            bad_replicas.c.rse_id == rse_id,
            bad_replicas.c.state.in_(OPEN),
            bad_replicas.c.file_id.in_(there),
        )
        .values(state=BadReplicaState.RECOVERED.value, updated_at=now())
    )
    connection.execute(
        update(replicas)
        .where(
            replicas.c.rse_id == rse_id,
            replicas.c.state == ReplicaState.BAD,
            replicas.c.file_id == staged.file_id,
            *said,
        )
        .values(
            state=ReplicaState.AVAILABLE.value,
            path=func.coalesce(staged.path, replicas.c.path),
            code=null(),
            reason=null(),
            updated_at=now(),
        )
    )


def set_state(
    connection: Connection, state: ReplicaState, *, code: str | None = None, reason: str | None = None
) -> None:
    """Give the staged replicas a state; what is bad is not proven any more."""
    values: dict[str, Any] = {"state": state.value, "code": code, "reason": reason, "updated_at": now()}
    if state is ReplicaState.BAD:
        values["verified_at"] = null()
    connection.execute(
        update(replicas).where(tuple_(replicas.c.file_id, replicas.c.rse_id).in_(_STAGED)).values(**values)
    )


def stop_locks(connection: Connection, reason: str, *, account: str | None) -> None:
    """Have the locks on the staged replicas STUCK, with the counts, states and history of their rules.

    Parameters
    ----------
    reason
        Why.
    account
        Who said so; None: Arriero itself.
    """
    per_rule = (
        select(
            locks.c.rule_id,
            func.count().filter(locks.c.state == LockState.OK).label("ok"),
            func.count().filter(locks.c.state == LockState.REPLICATING).label("replicating"),
        )
        .join(staged_replicas, _LOCK)
        .group_by(locks.c.rule_id)
        .subquery()
    )
    concerned = select(per_rule.c.rule_id)
    history = select(
        rules.c.uuid,
        now(),
        cast(literal(account), Text),
        cast(rules.c.state, Text),
        literal(RuleState.STUCK.value),
        literal(BAD_REPLICA),
        literal(reason),
    ).where(rules.c.id.in_(concerned), rules.c.state.in_((RuleState.OK, RuleState.REPLICATING)))
    columns = ["rule_uuid", "at", "account", "from_state", "to_state", "code", "reason"]
    connection.execute(insert(rule_history).from_select(columns, history, include_defaults=False))
    working = rules.c.state.in_(_WORKING)
    since = case((rules.c.state == RuleState.STUCK, rules.c.stuck_at), else_=now())
    connection.execute(
        update(rules)
        .where(rules.c.id == per_rule.c.rule_id)
        .values(
            locks_ok=rules.c.locks_ok - per_rule.c.ok,
            locks_replicating=rules.c.locks_replicating - per_rule.c.replicating,
            locks_stuck=rules.c.locks_stuck + per_rule.c.ok + per_rule.c.replicating,
            state=case((working, RuleState.STUCK.value), else_=cast(rules.c.state, Text)),
            code=case((working, BAD_REPLICA), else_=rules.c.code),
            reason=case((working, reason), else_=rules.c.reason),
            stuck_at=case((working, since), else_=rules.c.stuck_at),
            stuck_since=case((working, func.coalesce(rules.c.stuck_since, now())), else_=rules.c.stuck_since),
            updated_at=now(),
        )
    )
    connection.execute(
        update(locks)
        .where(tuple_(locks.c.file_id, locks.c.rse_id).in_(_STAGED))
        .values(state=LockState.STUCK.value, code=BAD_REPLICA, reason=reason)
    )


def outlived(limit: int) -> Select[Any]:
    """Query for replicas that were to be unavailable until now: columns ``file_id`` and ``rse_id``."""
    longer = bad_replicas.alias("longer")
    still = exists().where(
        longer.c.file_id == bad_replicas.c.file_id,
        longer.c.rse_id == bad_replicas.c.rse_id,
        longer.c.state == BadReplicaState.TEMPORARY_UNAVAILABLE,
        or_(longer.c.expires_at.is_(None), longer.c.expires_at > now()),
    )
    return (
        select(bad_replicas.c.file_id, bad_replicas.c.rse_id)
        .where(
            bad_replicas.c.state == BadReplicaState.TEMPORARY_UNAVAILABLE,
            bad_replicas.c.expires_at <= now(),
            ~still,
        )
        .distinct()
        .order_by(bad_replicas.c.file_id, bad_replicas.c.rse_id)
        .limit(limit)
    )


def end_outlived(connection: Connection) -> None:
    """Have those of the staged replicas that are TEMPORARY_UNAVAILABLE be AVAILABLE again."""
    connection.execute(
        update(replicas)
        .where(
            replicas.c.state == ReplicaState.TEMPORARY_UNAVAILABLE,
            tuple_(replicas.c.file_id, replicas.c.rse_id).in_(_STAGED),
        )
        .values(state=ReplicaState.AVAILABLE.value, code=null(), reason=null(), updated_at=now())
    )


def stuck_locks() -> Select[tuple[int, int]]:
    """Query for the locks that are STUCK on one of the staged files, wherever: the rule and the file."""
    return select(locks.c.rule_id, locks.c.file_id).where(
        locks.c.state == LockState.STUCK, locks.c.file_id.in_(select(staged_replicas.c.file_id))
    )


def waiting_rules() -> Select[Any]:
    """Query for the rules that have a lock that is STUCK on one of the staged files, wherever."""
    stuck = stuck_locks().subquery("stuck")
    return (
        select(rules.c.id)
        .where(rules.c.id.in_(select(stuck.c.rule_id)))
        .order_by(rules.c.id)
        .with_for_update(read=True, key_share=True, of=rules)
    )


def available_ones() -> Select[tuple[int, int]]:
    """Query for those of the staged replicas that are AVAILABLE: columns ``file_id`` and ``rse_id``."""
    return select(replicas.c.file_id.label("file_id"), replicas.c.rse_id.label("rse_id")).where(
        replicas.c.state == ReplicaState.AVAILABLE,
        tuple_(replicas.c.file_id, replicas.c.rse_id).in_(_STAGED),
    )
