"""Files that are placed by themselves and whose copy failed for good go elsewhere when their time comes again.

The policy is the pure core's (`arriero.scheduler.core.elsewhere`); here it is applied to a chunk of an evaluation, by as
many statements for one file as for all of them. The lock stays STUCK and moves: what becomes of it at its new place is
decided with the others of the chunk, and its old place is let go like any that nothing asks for.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    CompoundSelect,
    Connection,
    Integer,
    MetaData,
    Select,
    Table,
    and_,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from arriero.registry.dialect import bulk_insert, is_found, look_up
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import dids, locks, replicas, request_history, rule_history, rules
from arriero.registry.states import LockState, ReplicaState, RequestState, RuleState
from arriero.registry.store.rule_work import RETRY_NOW
from arriero.scheduler import temporary
from arriero.scheduler.core.elsewhere import OF_NO_RSE, SLOTS, detours
from arriero.scheduler.evaluation_resolve import locks_of
from arriero.scheduler.evaluation_words import Scope, is_due
from arriero.scheduler.temporary import eval_gone, eval_rses, eval_window

MOVED = "moved_elsewhere"
"""Code in the history of a rule whose files are tried elsewhere."""

REMEMBERED_S = 86400.0
"""How long an RSE is passed over for a file whose copy there has failed, seconds; after that it has another chance."""

_metadata = MetaData()

eval_detours = Table(
    "eval_detours",
    _metadata,
    Column("failing_id", Integer, primary_key=True, autoincrement=False),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("rank", Integer, primary_key=True, autoincrement=False),
    Column("rse_id", Integer, nullable=False),
    prefixes=["TEMPORARY"],
)
"""The policy: for files of a slot that fail at an RSE, the others, best first."""

eval_moves = Table(
    "eval_moves",
    _metadata,
    Column("file_id", BigInteger, primary_key=True, autoincrement=False),
    Column("from_id", Integer, primary_key=True, autoincrement=False),
    Column("to_id", Integer, nullable=False),
    prefixes=["TEMPORARY"],
)
"""Locks of this chunk that move."""


def move_stuck(
    connection: Connection,
    scope: Scope,
    *,
    weights: Mapping[int, float],
    seed: str,
    stuck_retry_s: float,
) -> int:
    """Move the due STUCK locks of a chunk's files to RSEs where they have not failed, as far as there are any.

    Call it before the wanted locks are found, when files are placed by themselves and the rule has STUCK locks. Nothing is
    counted: a lock that moves stays STUCK until the chunk decides about it.

    Parameters
    ----------
    connection
        In the chunk's transaction, which holds the rule; ``eval_window`` and ``eval_rses`` are filled.
    weights
        Of the RSEs that can be chosen, without those that the account's limits leave no room at.
    seed
        The rule's uuid.
    stuck_retry_s
        After so many seconds a copy that failed is due again.

    Returns
    -------
    int
        Locks that moved. The places that they left are in ``eval_gone``.
    """
    failed = _failed(connection, scope, stuck_retry_s).subquery("failed")
    failing = connection.scalars(select(failed.c.rse_id).distinct())
    policy = detours(weights, list(failing), seed=seed)
    if not policy:
        return 0
    temporary.prepare(connection, eval_detours, eval_moves)
    rows = ((one.failing_id, one.slot, one.rank, one.rse_id) for one in policy)
    bulk_insert(connection, eval_detours, ("failing_id", "slot", "rank", "rse_id"), rows)
    moves = _moves(connection, scope, stuck_retry_s)
    connection.execute(insert(eval_moves).from_select(["file_id", "from_id", "to_id"], moves))
    moved = connection.execute(select(func.count()).select_from(eval_moves)).scalar_one()
    if moved:
        _record(connection, scope, moved)
        left = select(eval_moves.c.file_id, eval_moves.c.from_id)
        connection.execute(insert(eval_gone).from_select(["file_id", "rse_id"], left))
        connection.execute(
            update(locks)
            .where(
                locks.c.rule_id == scope.rule_id,
                locks.c.file_id == eval_moves.c.file_id,
                locks.c.rse_id == eval_moves.c.from_id,
            )
            .values(rse_id=eval_moves.c.to_id, code=RETRY_NOW)
        )
    return moved


def _failed(connection: Connection, scope: Scope, stuck_retry_s: float) -> Select[Any]:
    """Due STUCK locks of the chunk's files that another RSE may help."""
    found, lock = locks_of(connection, scope, eval_window)
    of_the_lock = and_(replicas.c.file_id == lock.file_id, replicas.c.rse_id == lock.rse_id)
    return (
        select(lock.file_id, lock.rse_id)
        .select_from(found.outerjoin(replicas, of_the_lock))
        .where(
            lock.state == LockState.STUCK,
            func.coalesce(lock.code, "").not_in(sorted(OF_NO_RSE)),
            or_(replicas.c.file_id.is_(None), replicas.c.state == ReplicaState.UNAVAILABLE),
            is_due(stuck_retry_s, lock),
        )
    )


def _options(connection: Connection, scope: Scope, stuck_retry_s: float) -> CompoundSelect[Any]:
    """RSEs for each of them, with a rank."""
    failed = _failed(connection, scope, stuck_retry_s).subquery("failed")
    # what is there already, or on its way, needs no copy
    present, there = look_up(connection, failed, replicas, replicas.c.file_id == failed.c.file_id)
    by_presence = (
        select(
            failed.c.file_id,
            failed.c.rse_id.label("from_id"),
            there.rse_id.label("to_id"),
            literal(-1).label("rank"),
        )
        .select_from(present)
        .join(eval_rses, and_(eval_rses.c.rse_id == there.rse_id, eval_rses.c.is_candidate))
        .where(there.state.in_((ReplicaState.AVAILABLE, ReplicaState.COPYING)))
    )
    named, did = look_up(connection, failed, dids, dids.c.id == failed.c.file_id)
    by_policy = (
        select(failed.c.file_id, failed.c.rse_id, eval_detours.c.rse_id, eval_detours.c.rank)
        .select_from(named)
        .join(
            eval_detours,
            and_(
                eval_detours.c.failing_id == failed.c.rse_id,
                eval_detours.c.slot == func.abs(did.spread) % SLOTS,
            ),
        )
    )
    return by_presence.union_all(by_policy)


def _moves(connection: Connection, scope: Scope, stuck_retry_s: float) -> Select[Any]:
    """Each of them with the best RSE for it, no two of one file to the same."""
    option = _options(connection, scope, stuck_retry_s).subquery("option")
    failed_there = is_found(
        request_history.c.file_id == option.c.file_id,
        request_history.c.destination_id == option.c.to_id,
        request_history.c.state == RequestState.FAILED,
        request_history.c.at > after(literal(-REMEMBERED_S)),
        option.c.rank >= 0,
        of=request_history,
    )
    is_held = is_found(
        locks.c.rule_id == scope.rule_id,
        locks.c.file_id == option.c.file_id,
        locks.c.rse_id == option.c.to_id,
        of=locks,
    )
    in_the_way = is_found(
        replicas.c.file_id == option.c.file_id,
        replicas.c.rse_id == option.c.to_id,
        replicas.c.state.in_((ReplicaState.BAD, ReplicaState.BEING_DELETED)),
        of=replicas,
    )
    place = func.row_number().over(
        partition_by=(option.c.file_id, option.c.from_id), order_by=(option.c.rank, option.c.to_id)
    )
    best = (
        select(option.c.file_id, option.c.from_id, option.c.to_id, place.label("place"))
        .where(~failed_there, ~is_held, ~in_the_way)
        .subquery("best")
    )
    turn = func.row_number().over(partition_by=(best.c.file_id, best.c.to_id), order_by=best.c.from_id)
    first = (
        select(best.c.file_id, best.c.from_id, best.c.to_id, turn.label("turn"))
        .where(best.c.place == 1)
        .subquery("first")
    )
    return select(first.c.file_id, first.c.from_id, first.c.to_id).where(first.c.turn == 1)


def _record(connection: Connection, scope: Scope, moved: int) -> None:
    """Say in the rule's history that files are tried elsewhere, with one of the reasons."""
    example = (
        select(func.min(locks.c.reason))
        .select_from(eval_moves)
        .join(
            locks,
            and_(
                locks.c.rule_id == scope.rule_id,
                locks.c.file_id == eval_moves.c.file_id,
                locks.c.rse_id == eval_moves.c.from_id,
            ),
        )
        .scalar_subquery()
    )
    said = literal(f"{moved} copies failed and are tried at other RSEs, such as: ") + func.coalesce(
        example, ""
    )
    row = select(
        rules.c.uuid,
        after(literal(0.0)),
        literal(RuleState.STUCK.value),
        literal(RuleState.STUCK.value),
        literal(MOVED),
        func.substr(said, 1, 1000),
    ).where(rules.c.id == scope.rule_id)
    columns = ["rule_uuid", "at", "from_state", "to_state", "code", "reason"]
    connection.execute(insert(rule_history).from_select(columns, row, include_defaults=False))
