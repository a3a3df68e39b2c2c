"""The statements that end deletions: on the replicas that are staged, and on the reports that count.

Each takes a connection within the batch's transaction; rules, replicas and deletions are held.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Delete,
    Float,
    Insert,
    MetaData,
    String,
    Table,
    Text,
    and_,
    case,
    cast,
    delete,
    insert,
    null,
    select,
    tuple_,
    update,
)

from arriero.registry.dialect import bulk_insert, use_temporary_table
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import arrivals, deletion_history, deletions, replicas
from arriero.registry.states import ArrivalState, BadReplicaState, DeletionOutcome, ReplicaState
from arriero.registry.store import bad_replicas, losses, replica_removal
from arriero.registry.store import replica_sets as sets
from arriero.registry.store.arrivals import record_arrivals
from arriero.registry.store.replica_sets import staged_replicas
from arriero.scheduler.deletion_reports import Action, Decided, Outcome

reap_settled = Table(
    "reap_settled",
    MetaData(),
    Column("deletion_id", BigInteger, primary_key=True, autoincrement=False),
    Column("action", String(16), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("code", String(64)),
    Column("reason", Text),
    Column("seconds", Float),
    Column("delay_s", Float, nullable=False),
    Column("may_be_under_way", Boolean, nullable=False),
    prefixes=["TEMPORARY"],
)
"""Reports of one batch that count, and what becomes of each deletion."""

_STAGED = select(staged_replicas.c.file_id, staged_replicas.c.rse_id)
_ENDS = (Action.FINISH.value, Action.REVERT.value)


def note(connection: Connection, decided: Sequence[Decided]) -> None:
    """Have what was decided in a table."""
    rows = [
        (
            one.report.deletion.id,
            one.action.value,
            one.report.outcome.value,
            one.report.code,
            one.report.reason[:1000] if one.report.reason else None,
            one.report.seconds,
            one.report.delay_s,
            one.report.may_be_under_way,
        )
        for one in sorted(decided, key=lambda one: one.report.deletion.id)
    ]
    use_temporary_table(connection, reap_settled)
    bulk_insert(connection, reap_settled, [column.name for column in reap_settled.columns], rows)


def note_finished(connection: Connection, ids: Sequence[int]) -> None:
    """Have deletions in the table whose graves are over."""
    rows = [(one, Action.FINISH.value, Outcome.DONE.value, 0.0, False) for one in ids]
    use_temporary_table(connection, reap_settled)
    columns = ["deletion_id", "action", "outcome", "delay_s", "may_be_under_way"]
    bulk_insert(connection, reap_settled, columns, rows)


def finish(connection: Connection, *, may_be_lost: bool = False) -> None:
    """Take the staged replicas out of the catalogue, with what depends on them, and write their history.

    Parameters
    ----------
    may_be_lost
        Not all of their files have another copy.
    """
    connection.execute(_history())
    replica_removal.drop_waiting_arrivals(connection)
    bad_replicas.close(connection, BadReplicaState.DELETED)
    replica_removal.remove(connection)
    connection.execute(_ended(Action.FINISH))
    if may_be_lost:
        losses.note(connection, sets.their_files())
    # another RSE may feed the same Butler
    record_arrivals(connection, replica_removal.elsewhere())


def revert(connection: Connection) -> None:
    """Have the staged replicas be what they were; what was found right is verified, what was found wrong is not there."""
    report = (
        select(
            deletions.c.file_id,
            deletions.c.rse_id,
            deletions.c.was,
            reap_settled.c.outcome,
            reap_settled.c.reason,
        )
        .join(reap_settled, reap_settled.c.deletion_id == deletions.c.id)
        .where(reap_settled.c.action == Action.REVERT.value)
        .subquery("report")
    )
    kept, spoilt = (report.c.outcome == word for word in (Outcome.KEPT.value, Outcome.SPOILT.value))
    was = cast(report.c.was, String)
    connection.execute(
        update(replicas)
        .where(
            replicas.c.file_id == report.c.file_id,
            replicas.c.rse_id == report.c.rse_id,
            replicas.c.state == ReplicaState.BEING_DELETED,
        )
        .values(
            state=case(
                (and_(spoilt, was == ReplicaState.AVAILABLE.value), ReplicaState.UNAVAILABLE.value),
                (and_(kept, was == ReplicaState.UNAVAILABLE.value), ReplicaState.AVAILABLE.value),
                else_=was,
            ),
            verified_at=case(
                (and_(kept, was != ReplicaState.BAD.value), now()),
                (spoilt, null()),
                else_=replicas.c.verified_at,
            ),
            code=case((spoilt, "source_mismatch"), else_=replicas.c.code),
            reason=case((spoilt, report.c.reason), else_=replicas.c.reason),
            updated_at=now(),
        )
    )
    connection.execute(
        update(arrivals)
        .where(
            tuple_(arrivals.c.file_id, arrivals.c.rse_id).in_(_STAGED),
            arrivals.c.state.in_((ArrivalState.PENDING, ArrivalState.PARKED)),
        )
        .values(not_before=now())
    )
    record_arrivals(connection, bad_replicas.available_ones(), anew=True)
    connection.execute(_history(DeletionOutcome.KEPT))
    connection.execute(_ended(Action.REVERT))


@cache
def _ended(action: Action) -> Delete:
    """Statement that ends the deletions of the batch of which something becomes."""
    ended = select(reap_settled.c.deletion_id).where(reap_settled.c.action == action.value)
    return delete(deletions).where(deletions.c.id.in_(ended))


@cache
def _history(kept: DeletionOutcome | None = None) -> Insert:
    """Statement that writes down how the deletions of the batch ended; of those taken back only what was looked at."""
    one = reap_settled
    if kept is None:
        which = one.c.action == Action.FINISH.value
    else:
        which = and_(
            one.c.action == Action.REVERT.value,
            one.c.outcome.in_((Outcome.KEPT.value, Outcome.SPOILT.value)),
        )
    state: Any = case(
        (one.c.outcome == Outcome.NOT_FOUND.value, DeletionOutcome.NOT_FOUND.value),
        else_=(kept or DeletionOutcome.DONE).value,
    )
    values: dict[str, Any] = {
        "at": now(),
        "deletion_id": deletions.c.id,
        "file_id": deletions.c.file_id,
        "rse_id": deletions.c.rse_id,
        "bytes": deletions.c.bytes,
        "cause": cast(deletions.c.cause, String),
        "state": state,
        "proof_rse_id": deletions.c.proof_rse_id,
        "proof_at": deletions.c.proof_at,
        "attempt": deletions.c.attempt,
        "owner": deletions.c.lease_owner,
        "seconds": one.c.seconds,
        "code": one.c.code,
        "reason": one.c.reason,
        "created_at": deletions.c.created_at,
        "started_at": deletions.c.started_at,
    }
    rows = (
        select(*values.values())
        .select_from(one)
        .join(deletions, deletions.c.id == one.c.deletion_id)
        .where(which)
        .order_by(deletions.c.id)
    )
    return insert(deletion_history).from_select(list(values), rows, include_defaults=False)
