"""The statements of a settlement: what becomes of replicas, locks, history and requests of a batch of reports.

Each takes a connection within the batch's transaction and works on the temporary table ``settled``.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from arriero.registry.dialect import bulk_insert
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import bad_replicas, locks, replicas, request_history, requests
from arriero.registry.states import BadReplicaState, LockState, ReplicaState, RequestState
from arriero.registry.store.arrivals import record_arrivals
from arriero.registry.store.rules import NO_RULE, NO_RULE_REASON
from arriero.scheduler import temporary
from arriero.scheduler.errors import RulesJoined
from arriero.scheduler.reports import Outcome, Report
from arriero.scheduler.temporary import settled
from arriero.scheduler.transfer_events import append_transfer_events

ENDED = (Outcome.DONE.value, Outcome.FAILED.value)
"""Outcomes that change locks."""

_THERE = (ReplicaState.AVAILABLE, ReplicaState.TEMPORARY_UNAVAILABLE)


def note_reports(tx: Connection, reports: Sequence[Report]) -> None:
    """Have the reports in a table."""
    temporary.prepare(tx, settled)
    columns = ("request_id", "fence", "owner", "file_id", "rse_id", "outcome", "code", "reason", "mode")
    rows = [
        (
            report.request_id,
            report.fence,
            report.owner,
            report.file_id,
            report.rse_id,
            report.outcome.value,
            report.code,
            report.reason,
            report.transfer.mode,
            report.transfer.seconds,
            report.delay_s,
        )
        for report in sorted(reports, key=lambda one: one.request_id)
    ]
    bulk_insert(tx, settled, (*columns, "seconds", "delay_s"), rows)


def _holds() -> tuple[ColumnElement[bool], ...]:
    return (
        requests.c.id == settled.c.request_id,
        requests.c.fence == settled.c.fence,
        requests.c.lease_owner == settled.c.owner,
        requests.c.state == RequestState.SUBMITTED,
    )


def discard_zombies(tx: Connection) -> int:
    """Forget the reports of workers that have lost their leases; give how many are left."""
    held = select(literal(1)).select_from(requests).where(*_holds()).correlate(settled)
    tx.execute(delete(settled).where(~held.exists()))
    return tx.execute(select(func.count()).select_from(settled)).scalar_one()


def same_replica() -> ColumnElement[bool]:
    """Condition that a lock is on the replica of a report."""
    return and_(locks.c.file_id == settled.c.file_id, locks.c.rse_id == settled.c.rse_id)


def lock_replicas(tx: Connection) -> None:
    """Hold the rows of the replicas: from here on no lock can come to them."""
    held = (
        select(replicas.c.file_id)
        .join(settled, _of_the_report())
        .order_by(replicas.c.file_id, replicas.c.rse_id)
        .with_for_update(of=replicas)
    )
    tx.execute(select(func.count()).select_from(held.subquery()))


def _of_the_report() -> ColumnElement[bool]:
    return and_(replicas.c.file_id == settled.c.file_id, replicas.c.rse_id == settled.c.rse_id)


def drop_needless(tx: Connection) -> None:
    """Have copies end for good that did not succeed and that nobody misses.

    Either no rule wants them any more, or the file is there already because a client has brought it.
    """
    wanted = select(literal(1)).select_from(locks).where(same_replica()).correlate(settled)
    there = (
        select(literal(1))
        .select_from(replicas)
        .where(_of_the_report(), replicas.c.state.in_(_THERE))
        .correlate(settled)
    )
    tx.execute(
        update(settled)
        .where(settled.c.outcome != Outcome.DONE.value, or_(~wanted.exists(), there.exists()))
        .values(outcome=Outcome.DROPPED.value)
    )


def lock_deltas(tx: Connection) -> dict[int, Counter[LockState]]:
    """Work out how the number of locks in each state changes, by rule."""
    rows = tx.execute(
        select(locks.c.rule_id, settled.c.outcome, locks.c.state, func.count().label("count"))
        .join(settled, same_replica())
        .where(settled.c.outcome.in_(ENDED))
        .group_by(locks.c.rule_id, settled.c.outcome, locks.c.state)
    )
    deltas: dict[int, Counter[LockState]] = defaultdict(Counter)
    for row in rows:
        becomes = LockState.OK if row.outcome == Outcome.DONE else LockState.STUCK
        if row.state is LockState.OK and becomes is LockState.STUCK:
            becomes = LockState.OK
        deltas[row.rule_id][row.state] -= row[3]
        deltas[row.rule_id][becomes] += row[3]
    return deltas


def settle_replicas(tx: Connection) -> None:
    """Make replicas AVAILABLE or UNAVAILABLE. What a client has declared already is verified now.

    What was declared bad there has been replaced by a verified copy.
    """
    outcome = settled.c.outcome
    done = outcome == Outcome.DONE.value
    dropped = outcome == Outcome.DROPPED.value
    proven = (ReplicaState.COPYING, ReplicaState.UNAVAILABLE, ReplicaState.AVAILABLE)
    gives_up = and_(
        outcome.in_((Outcome.FAILED.value, Outcome.DROPPED.value)), replicas.c.state == ReplicaState.COPYING
    )
    tx.execute(
        update(replicas)
        .where(_of_the_report(), or_(and_(done, replicas.c.state.in_(proven)), gives_up))
        .values(
            state=case((done, ReplicaState.AVAILABLE.value), else_=ReplicaState.UNAVAILABLE.value),
            verified_at=case((done, now()), else_=replicas.c.verified_at),
            code=case((done, null()), (dropped, NO_RULE), else_=settled.c.code),
            reason=case((done, null()), (dropped, NO_RULE_REASON), else_=settled.c.reason),
            updated_at=now(),
        )
    )
    tx.execute(
        update(bad_replicas)
        .where(
            bad_replicas.c.file_id == settled.c.file_id,
            bad_replicas.c.rse_id == settled.c.rse_id,
            bad_replicas.c.state == BadReplicaState.BAD,
            done,
        )
        .values(state=BadReplicaState.RECOVERED.value, updated_at=now())
    )


def settle_locks(tx: Connection) -> None:
    """Make locks OK or STUCK."""
    done = settled.c.outcome == Outcome.DONE.value
    tx.execute(
        update(locks)
        .where(
            same_replica(),
            settled.c.outcome.in_(ENDED),
            or_(done, locks.c.state != LockState.OK),
        )
        .values(
            state=case((done, LockState.OK.value), else_=LockState.STUCK.value),
            code=case((done, null()), else_=settled.c.code),
            reason=case((done, null()), else_=settled.c.reason),
        )
    )


def record(tx: Connection, reports: Mapping[int, Report]) -> None:
    """Write arrivals, events and the history of requests."""
    landed = (
        select(replicas.c.file_id.label("file_id"), replicas.c.rse_id.label("rse_id"))
        .join(settled, _of_the_report())
        .where(settled.c.outcome == Outcome.DONE.value, replicas.c.state == ReplicaState.AVAILABLE)
    )
    record_arrivals(tx, landed)
    append_transfer_events(tx, reports)
    columns = ["request_id", "file_id", "source_id", "destination_id", "rule_id", "state", "attempt", "mode"]
    columns += ["bytes", "seconds", "code", "reason", "created_at", "started_at", "at"]
    done = settled.c.outcome == Outcome.DONE.value
    ended = (
        select(
            requests.c.id,
            requests.c.file_id,
            requests.c.source_id,
            requests.c.destination_id,
            requests.c.rule_id,
            case((done, RequestState.DONE.value), else_=RequestState.FAILED.value),
            requests.c.attempt,
            settled.c.mode,
            requests.c.bytes,
            settled.c.seconds,
            settled.c.code,
            settled.c.reason,
            requests.c.created_at,
            requests.c.started_at,
            now(),
        )
        .join(settled, and_(*_holds()))
        .where(settled.c.outcome.in_((*ENDED, Outcome.DROPPED.value)))
        .order_by(requests.c.id)
    )
    tx.execute(insert(request_history).from_select(columns, ended, include_defaults=False))


def settle_requests(tx: Connection) -> Counter[Outcome]:
    """End requests, or give them back to the queue; give how many reports had each outcome.

    Raises
    ------
    RulesJoined
        A lease of this batch has run out meanwhile: who has the request now is believed instead.
    """
    outcome = settled.c.outcome
    again = outcome.in_((Outcome.RETRY.value, Outcome.RELEASED.value))
    over = (Outcome.DONE.value, Outcome.DROPPED.value)
    in_order = (
        select(requests.c.id)
        .join(settled, and_(*_holds()))
        .order_by(requests.c.id)
        .with_for_update(of=requests)
    )
    held = tx.execute(select(func.count()).select_from(in_order.subquery())).scalar_one()
    rows = tx.execute(select(outcome, func.count().label("count")).group_by(outcome))
    counts = Counter({Outcome(row.outcome): int(row[1]) for row in rows})
    if held != sum(counts.values()):
        raise RulesJoined("a lease of this batch ran out while it was settled")
    tx.execute(
        update(requests)
        .where(*_holds(), outcome.not_in(over))
        .values(
            state=case((again, RequestState.QUEUED.value), else_=RequestState.FAILED.value),
            attempt=case(
                (outcome == Outcome.RELEASED.value, requests.c.attempt - 1), else_=requests.c.attempt
            ),
            not_before=case((again, after(settled.c.delay_s)), else_=requests.c.not_before),
            code=settled.c.code,
            reason=settled.c.reason,
            lease_owner=null(),
            lease_until=null(),
        )
    )
    ended = select(settled.c.request_id).where(outcome.in_(over))
    tx.execute(delete(requests).where(requests.c.id.in_(ended)))
    return counts
