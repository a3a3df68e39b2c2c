"""The statements that decide what becomes of each lock of a chunk; as few as those that resolve it.

Each takes a connection within the chunk's transaction. What they decide is carried out by
`arriero.scheduler.evaluation_effects`.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    String,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
)

from arriero.registry.dialect import bulk_insert, is_found, look_up, one_of
from arriero.registry.schema.tables import dataset_locks, locks, replicas
from arriero.registry.states import DidType, LockState, ReplicaState
from arriero.registry.store.losses import LOST, is_lost
from arriero.scheduler.core.spread import Slot
from arriero.scheduler.evaluation_resolve import locks_of
from arriero.scheduler.evaluation_words import (
    BAD_REPLICA,
    COPY,
    NO_SOURCE,
    OUTCOMES,
    Scope,
    Window,
    is_due,
)
from arriero.scheduler.temporary import (
    eval_files,
    eval_gone,
    eval_placed,
    eval_rses,
    eval_slots,
    eval_window,
)

_THERE = (ReplicaState.AVAILABLE, ReplicaState.TEMPORARY_UNAVAILABLE)
_PLACED = ["file_id", "rse_id", "bytes", "was", "outcome", "is_there", "has_tombstone"]


def note_slots(connection: Connection, slots: Iterable[Slot]) -> None:
    """Have the policy of placing file by file in a table."""
    rows = ((slot.slot, slot.rank, slot.rse_id) for slot in slots)
    bulk_insert(connection, eval_slots, ("slot", "rank", "rse_id"), rows)


def decide_locks(
    connection: Connection,
    scope: Scope,
    window: Window,
    *,
    slots: int,
    stuck_retry_s: float,
    hold: bool = True,
) -> None:
    """Decide what becomes of each lock that is missing, is no more what its replica says, or whose time has come.

    Parameters
    ----------
    slots
        Slots of the policy, when files are placed by themselves.
    stuck_retry_s
        After so many seconds a copy that failed is due again.
    hold
        The rows of their replicas, and of those of locks that are not wanted any more, are held: until the transaction
        ends nobody settles them, deletes them or sees them without its locks. One that comes meanwhile is seen when
        it is inserted.
    """
    wanted = _wanted(connection, scope, window, slots, stuck_retry_s)
    if window.is_fresh and not scope.by_file and not _are_any_there(connection, scope, window):
        connection.execute(
            insert(eval_placed).from_select(_PLACED, _without_replicas(wanted.subquery("wanted")))
        )
        return
    if hold and not window.is_fresh:
        _hold_with_gone(connection, wanted)
    # held one after the other, in the order in which everybody holds them
    in_order = wanted.order_by(wanted.selected_columns.file_id, wanted.selected_columns.rse_id)
    lock = in_order.subquery("wanted")
    one = lock.c
    of_the_lock = and_(replicas.c.file_id == one.file_id, replicas.c.rse_id == one.rse_id)
    found, replica = look_up(connection, lock, replicas, of_the_lock, outer=True, hold=hold)
    outcome = case(
        *((replica.state == state, decided) for state, decided in OUTCOMES.items()),
        (_has_source(one.file_id), COPY),
        (is_lost(one.file_id), LOST),
        (replica.state == ReplicaState.BAD, BAD_REPLICA),
        else_=NO_SOURCE,
    )
    decided = select(
        one.file_id,
        one.rse_id,
        one.bytes,
        one.was,
        outcome,
        replica.file_id.is_not(None),
        replica.tombstone.is_not(None),
    ).select_from(found)
    connection.execute(insert(eval_placed).from_select(_PLACED, decided))


def _are_any_there(connection: Connection, scope: Scope, window: Window) -> bool:
    """Whether any of the files, or one between them, has a replica where the rule's groups go."""
    places = select(dataset_locks.c.rse_id).where(dataset_locks.c.rule_id == scope.rule_id).distinct()
    place = places.subquery("place")
    near = and_(replicas.c.rse_id == place.c.rse_id, replicas.c.file_id.between(window.first, window.last))
    found, _ = look_up(connection, place, replicas, near)
    return connection.scalar(select(exists().select_from(found))) is True


def _without_replicas(lock: FromClause) -> Select[Any]:
    """What becomes of locks where no replica is; one that comes meanwhile is seen when it is inserted."""
    one = lock.c
    outcome = case((_has_source(one.file_id), COPY), (is_lost(one.file_id), LOST), else_=NO_SOURCE)
    return select(one.file_id, one.rse_id, one.bytes, one.was, outcome, false(), false())


def _has_source(file_id: ColumnElement[int]) -> ColumnElement[bool]:
    return is_found(
        replicas.c.file_id == file_id,
        one_of(replicas.c.rse_id, select(eval_rses.c.rse_id).where(eval_rses.c.is_source)),
        replicas.c.state == ReplicaState.AVAILABLE,
        of=replicas,
    )


def _wanted(connection: Connection, scope: Scope, window: Window, slots: int, stuck_retry_s: float) -> Any:
    """Locks that are missing, and those to look at again: ``file_id``, ``rse_id``, ``bytes`` and ``was``."""
    placed = _by_file(connection, scope, slots, window) if scope.by_file else _by_group(connection, scope)
    new = placed if window.is_fresh else _missing(scope, placed.subquery("placed"))
    new_one = new.subquery("new_one")
    wanted = select(new_one.c.file_id, new_one.c.rse_id, new_one.c.bytes, literal("").label("was"))
    if window.is_fresh:
        return wanted
    again = _to_look_at_again(connection, scope, stuck_retry_s).subquery("again")
    return wanted.union_all(select(again.c.file_id, again.c.rse_id, again.c.bytes, again.c.was))


def _hold_with_gone(connection: Connection, wanted: Any) -> None:
    """Hold the replicas of locks that are not wanted any more together with the others, for the sake of the order."""
    if not connection.scalar(select(exists().select_from(eval_gone))):
        return
    one = wanted.subquery("wanted").c
    gone = select(eval_gone.c.file_id, eval_gone.c.rse_id)
    keys = select(one.file_id, one.rse_id).union(gone).subquery("keys")
    there = (
        select(replicas.c.file_id)
        .select_from(keys)
        .join(replicas, and_(replicas.c.file_id == keys.c.file_id, replicas.c.rse_id == keys.c.rse_id))
        .order_by(replicas.c.file_id, replicas.c.rse_id)
        .with_for_update(of=replicas)
    )
    connection.execute(select(func.count()).select_from(there.subquery("held")))


def _missing(scope: Scope, placed: FromClause) -> Select[Any]:
    """Those of ``placed`` (file, RSE) that the rule has no lock for."""
    held = exists().where(
        locks.c.rule_id == scope.rule_id,
        locks.c.file_id == placed.c.file_id,
        locks.c.rse_id == placed.c.rse_id,
    )
    return select(placed.c.file_id, placed.c.rse_id, placed.c.bytes).where(~held.correlate(placed))


def _by_group(connection: Connection, scope: Scope) -> Select[Any]:
    if scope.did_type is not DidType.CONTAINER:
        # one group: what it needs is found once, not for each file
        of_the_group = eval_files.c.group_id == dataset_locks.c.group_id
        return (
            select(eval_files.c.file_id, dataset_locks.c.rse_id, eval_files.c.bytes)
            .select_from(dataset_locks.join(eval_files, of_the_group))
            .where(dataset_locks.c.rule_id == scope.rule_id, dataset_locks.c.group_id == scope.did_id)
        )
    on = and_(dataset_locks.c.rule_id == scope.rule_id, dataset_locks.c.group_id == eval_files.c.group_id)
    found, place = look_up(connection, eval_files, dataset_locks, on)
    return select(eval_files.c.file_id, place.rse_id, eval_files.c.bytes).select_from(found)


def _by_file(connection: Connection, scope: Scope, slots: int, window: Window) -> Select[Any]:
    """Take for each file the RSEs of the rule's own locks, then those that hold it already, then those of its slot."""
    file = eval_files.c
    by_presence = (
        select(file.file_id, file.bytes, replicas.c.rse_id, literal(1).label("score"))
        .select_from(eval_files)
        .join(replicas, replicas.c.file_id == file.file_id)
        .join(eval_rses, and_(eval_rses.c.rse_id == replicas.c.rse_id, eval_rses.c.is_candidate))
        .where(replicas.c.state.in_(scope.there))
    )
    by_slot = (
        select(file.file_id, file.bytes, eval_slots.c.rse_id, (eval_slots.c.rank + 2).label("score"))
        .select_from(eval_files)
        .join(eval_slots, eval_slots.c.slot == func.abs(file.spread) % slots)
    )
    options = [by_presence, by_slot]
    if not window.is_fresh:
        found, lock = locks_of(connection, scope, eval_files)
        options.insert(
            0, select(file.file_id, file.bytes, lock.rse_id, literal(0).label("score")).select_from(found)
        )
    option = union_all(*options).subquery("option")
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
    return select(numbered.c.file_id, numbered.c.rse_id, numbered.c.bytes).where(
        numbered.c.place <= scope.copies
    )


def _to_look_at_again(connection: Connection, scope: Scope, stuck_retry_s: float) -> Select[Any]:
    """Locks of the chunk's files whose replica is no more what they say, and STUCK ones whose time has come."""
    found, lock = locks_of(connection, scope, eval_window)
    of_the_lock = and_(replicas.c.file_id == lock.file_id, replicas.c.rse_id == lock.rse_id)
    none, there = replicas.c.file_id.is_(None), replicas.c.state
    return (
        select(lock.file_id, lock.rse_id, lock.bytes, cast(lock.state, String).label("was"))
        .select_from(found.outerjoin(replicas, of_the_lock))
        .where(
            or_(
                and_(lock.state == LockState.STUCK, is_due(stuck_retry_s, lock)),
                and_(lock.state == LockState.REPLICATING, or_(none, there != ReplicaState.COPYING)),
                and_(lock.state == LockState.OK, or_(none, there.not_in(_THERE))),
            )
        )
    )
