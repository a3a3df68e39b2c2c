"""The statements that decide what becomes of each lock of a chunk; as few as those that resolve it.

Each takes a connection within the chunk's transaction. What they decide is carried out by
`arriero.scheduler.evaluation_effects`.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    Connection,
    FromClause,
    Select,
    String,
    and_,
    case,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
)

from arriero.registry.dialect import bulk_insert
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import dataset_locks, locks, replicas
from arriero.registry.states import LockState, ReplicaState
from arriero.scheduler.core.spread import Slot
from arriero.scheduler.evaluation_words import (
    COPY,
    NO_SOURCE,
    OUTCOMES,
    WAITING_CODES,
    Scope,
    Window,
)
from arriero.scheduler.temporary import eval_files, eval_gone, eval_placed, eval_rses, eval_slots


def place_groups(connection: Connection, scope: Scope, chosen: Iterable[tuple[int, int]]) -> None:
    """Note the RSEs of groups: (group, RSE)."""
    rows = [{"rule_id": scope.rule_id, "group_id": group, "rse_id": rse} for group, rse in chosen]
    if rows:
        connection.execute(insert(dataset_locks), rows)


def note_slots(connection: Connection, slots: Iterable[Slot]) -> None:
    """Have the policy of placing file by file in a table."""
    rows = ((slot.slot, slot.rank, slot.rse_id) for slot in slots)
    bulk_insert(connection, eval_slots, ("slot", "rank", "rse_id"), rows)


def lock_replicas(connection: Connection, scope: Scope, window: Window) -> None:
    """Hold the rows of replicas that this chunk may count on, so that nobody settles or deletes them meanwhile."""
    candidates = (
        select(replicas.c.file_id)
        .join(eval_files, eval_files.c.file_id == replicas.c.file_id)
        .join(eval_rses, and_(eval_rses.c.rse_id == replicas.c.rse_id, eval_rses.c.is_candidate))
        .order_by(replicas.c.file_id, replicas.c.rse_id)
        .with_for_update(of=replicas)
    )
    connection.execute(select(func.count()).select_from(candidates.subquery()))
    again = _to_look_at_again(scope, window).subquery("again")
    keys = select(again.c.file_id, again.c.rse_id).union(select(eval_gone.c.file_id, eval_gone.c.rse_id))
    others = (
        select(replicas.c.file_id)
        .where(tuple_(replicas.c.file_id, replicas.c.rse_id).in_(keys))
        .order_by(replicas.c.file_id, replicas.c.rse_id)
        .with_for_update(of=replicas)
    )
    connection.execute(select(func.count()).select_from(others.subquery()))


def decide_locks(connection: Connection, scope: Scope, window: Window, *, slots: int) -> None:
    """Decide what becomes of each lock that is missing, and of each that has to be looked at again.

    Parameters
    ----------
    slots
        Slots of the policy, when files are placed by themselves.
    """
    new = _new_by_file(scope, slots) if scope.by_file else _new_by_group(scope)
    wanted = new.subquery("new")
    again = _to_look_at_again(scope, window).subquery("again")
    base = (
        select(wanted.c.file_id, wanted.c.rse_id, wanted.c.bytes, literal("").label("was"))
        .union_all(select(again.c.file_id, again.c.rse_id, again.c.bytes, again.c.was))
        .cte("base")
    )
    there = case((replicas.c.rse_id == base.c.rse_id, cast(replicas.c.state, String)))
    can_be_read = and_(replicas.c.state == ReplicaState.AVAILABLE, eval_rses.c.is_source)
    known = (
        select(
            base.c.file_id,
            base.c.rse_id,
            base.c.bytes,
            base.c.was,
            func.max(there).label("there"),
            func.max(case((can_be_read, 1), else_=0)).label("sources"),
        )
        .select_from(base)
        .outerjoin(replicas, replicas.c.file_id == base.c.file_id)
        .outerjoin(eval_rses, eval_rses.c.rse_id == replicas.c.rse_id)
        .group_by(base.c.file_id, base.c.rse_id, base.c.bytes, base.c.was)
        .subquery("known")
    )
    outcome = case(
        *((known.c.there == state.value, decided) for state, decided in OUTCOMES.items()),
        (known.c.sources > 0, COPY),
        else_=NO_SOURCE,
    )
    decided = select(known.c.file_id, known.c.rse_id, known.c.bytes, known.c.was, outcome)
    connection.execute(
        insert(eval_placed).from_select(["file_id", "rse_id", "bytes", "was", "outcome"], decided)
    )


def _missing(scope: Scope, placed: FromClause) -> Select[Any]:
    """Those of ``placed`` (file, RSE) that the rule has no lock for."""
    held = locks.alias("held")
    return (
        select(placed.c.file_id, placed.c.rse_id, placed.c.bytes)
        .select_from(placed)
        .outerjoin(
            held,
            and_(
                held.c.rule_id == scope.rule_id,
                held.c.file_id == placed.c.file_id,
                held.c.rse_id == placed.c.rse_id,
            ),
        )
        .where(held.c.file_id.is_(None))
    )


def _new_by_group(scope: Scope) -> Select[Any]:
    placed = (
        select(eval_files.c.file_id, dataset_locks.c.rse_id, eval_files.c.bytes)
        .join(
            dataset_locks,
            and_(dataset_locks.c.rule_id == scope.rule_id, dataset_locks.c.group_id == eval_files.c.group_id),
        )
        .subquery("placed")
    )
    return _missing(scope, placed)


def _new_by_file(scope: Scope, slots: int) -> Select[Any]:
    """Take for each file the RSEs of the rule's own locks, then those that hold it already, then those of its slot."""
    file = eval_files.c
    by_lock = select(file.file_id, file.bytes, locks.c.rse_id, literal(0).label("score")).join(
        locks, and_(locks.c.rule_id == scope.rule_id, locks.c.file_id == file.file_id)
    )
    by_presence = (
        select(file.file_id, file.bytes, replicas.c.rse_id, literal(1).label("score"))
        .join(replicas, replicas.c.file_id == file.file_id)
        .join(eval_rses, and_(eval_rses.c.rse_id == replicas.c.rse_id, eval_rses.c.is_candidate))
        .where(replicas.c.state.in_(scope.there))
    )
    by_slot = select(
        file.file_id, file.bytes, eval_slots.c.rse_id, (eval_slots.c.rank + 2).label("score")
    ).join(eval_slots, eval_slots.c.slot == func.abs(file.spread) % slots)
    option = by_lock.union_all(by_presence, by_slot).subquery("option")
    best = (
        select(
            option.c.file_id,
            option.c.rse_id,
            func.max(option.c.bytes).label("bytes"),
            func.min(option.c.score).label("score"),
        )
        .group_by(option.c.file_id, option.c.rse_id)
        .subquery("best")
    )
    place = func.row_number().over(partition_by=best.c.file_id, order_by=(best.c.score, best.c.rse_id))
    numbered = select(best.c.file_id, best.c.rse_id, best.c.bytes, place.label("place")).subquery("numbered")
    placed = select(numbered.c.file_id, numbered.c.rse_id, numbered.c.bytes).where(
        numbered.c.place <= scope.copies
    )
    return _missing(scope, placed.subquery("placed"))


def _to_look_at_again(scope: Scope, window: Window) -> Select[Any]:
    """Locks whose replica is no more what they say, and STUCK ones whose time has come."""
    there = replicas.c.state
    due = or_(
        locks.c.code.in_(WAITING_CODES),
        replicas.c.file_id.is_(None),
        there != ReplicaState.UNAVAILABLE,
        replicas.c.updated_at <= after(literal(-window.stuck_retry_s)),
    )
    overtaken = or_(replicas.c.file_id.is_(None), there != ReplicaState.COPYING)
    query = (
        select(locks.c.file_id, locks.c.rse_id, locks.c.bytes, cast(locks.c.state, String).label("was"))
        .outerjoin(replicas, and_(replicas.c.file_id == locks.c.file_id, replicas.c.rse_id == locks.c.rse_id))
        .where(
            locks.c.rule_id == scope.rule_id,
            locks.c.file_id > window.after_file_id,
            or_(
                and_(locks.c.state == LockState.STUCK, due),
                and_(locks.c.state == LockState.REPLICATING, overtaken),
            ),
        )
    )
    return query if window.upto is None else query.where(locks.c.file_id <= window.upto)
