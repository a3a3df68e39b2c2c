"""The statements of a settlement: what becomes of replicas, locks, history and requests of a batch of reports.

Each takes a connection within the batch's transaction and works on the temporary table ``settled``.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import (
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
from arriero.registry.schema.tables import (
    bad_replicas,
    locks,
    replicas,
    request_attempts,
    request_history,
    requests,
)
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
    columns = ("request_id", "fence", "owner", "file_id", "rse_id", "outcome", "code", "reason")
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
            report.transfer.mode_reason,
            report.transfer.seconds,
            report.delay_s,
        )
        for report in sorted(reports, key=lambda one: one.request_id)
    ]
    bulk_insert(tx, settled, (*columns, "mode", "mode_reason", "seconds", "delay_s"), rows)


_HOLDS = (
    requests.c.id == settled.c.request_id,
    requests.c.fence == settled.c.fence,
    requests.c.lease_owner == settled.c.owner,
    requests.c.state == RequestState.SUBMITTED,
)

SAME_REPLICA = and_(locks.c.file_id == settled.c.file_id, locks.c.rse_id == settled.c.rse_id)
"""Condition that a lock is on the replica of a report."""

_OF_THE_REPORT = and_(replicas.c.file_id == settled.c.file_id, replicas.c.rse_id == settled.c.rse_id)

_ZOMBIES = delete(settled).where(
    ~select(literal(1)).select_from(requests).where(*_HOLDS).correlate(settled).exists()
)


def discard_zombies(tx: Connection) -> int:
    """Forget the reports of workers that have lost their leases; give how many."""
    return tx.execute(_ZOMBIES).rowcount


_REPLICAS = select(func.count()).select_from(
    select(replicas.c.file_id)
    .join(settled, _OF_THE_REPORT)
    .order_by(replicas.c.file_id, replicas.c.rse_id)
    .with_for_update(of=replicas)
    .subquery()
)


def lock_replicas(tx: Connection) -> None:
    """Hold the rows of the replicas: from here on no lock can come to them."""
    tx.execute(_REPLICAS)


_NEEDLESS = (
    update(settled)
    .where(
        settled.c.outcome != Outcome.DONE.value,
        or_(
            ~select(literal(1)).select_from(locks).where(SAME_REPLICA).correlate(settled).exists(),
            select(literal(1))
            .select_from(replicas)
            .where(_OF_THE_REPORT, replicas.c.state.in_(_THERE))
            .correlate(settled)
            .exists(),
        ),
    )
    .values(outcome=Outcome.DROPPED.value)
)


def drop_needless(tx: Connection) -> None:
    """Have copies end for good that did not succeed and that nobody misses.

    Either no rule wants them any more, or the file is there already because a client has brought it.
    """
    tx.execute(_NEEDLESS)


_CONCERNED = (
    select(locks.c.rule_id, settled.c.outcome, locks.c.state, func.count().label("count"))
    .join(settled, SAME_REPLICA)
    .where(settled.c.outcome.in_(ENDED))
    .group_by(locks.c.rule_id, settled.c.outcome, locks.c.state)
)


def lock_deltas(tx: Connection) -> dict[int, Counter[LockState]]:
    """Work out how the number of locks in each state changes, by rule."""
    deltas: dict[int, Counter[LockState]] = defaultdict(Counter)
    for row in tx.execute(_CONCERNED):
        becomes = LockState.OK if row.outcome == Outcome.DONE else LockState.STUCK
        if row.state is LockState.OK and becomes is LockState.STUCK:
            becomes = LockState.OK
        deltas[row.rule_id][row.state] -= row[3]
        deltas[row.rule_id][becomes] += row[3]
    return deltas


_DONE = settled.c.outcome == Outcome.DONE.value
_DROPPED = settled.c.outcome == Outcome.DROPPED.value
_OVER = settled.c.outcome.in_((Outcome.DONE.value, Outcome.DROPPED.value))

_PROVEN = (ReplicaState.COPYING, ReplicaState.UNAVAILABLE, ReplicaState.AVAILABLE)
_GIVEN_UP = and_(
    settled.c.outcome.in_((Outcome.FAILED.value, Outcome.DROPPED.value)),
    replicas.c.state == ReplicaState.COPYING,
)

_SETTLE_REPLICAS = (
    update(replicas)
    .where(_OF_THE_REPORT, or_(and_(_DONE, replicas.c.state.in_(_PROVEN)), _GIVEN_UP))
    .values(
        state=case((_DONE, ReplicaState.AVAILABLE.value), else_=ReplicaState.UNAVAILABLE.value),
        verified_at=case((_DONE, now()), else_=replicas.c.verified_at),
        code=case((_DONE, null()), (_DROPPED, NO_RULE), else_=settled.c.code),
        reason=case((_DONE, null()), (_DROPPED, NO_RULE_REASON), else_=settled.c.reason),
        updated_at=now(),
    )
)

_RECOVERED = (
    update(bad_replicas)
    .where(
        bad_replicas.c.file_id == settled.c.file_id,
        bad_replicas.c.rse_id == settled.c.rse_id,
        bad_replicas.c.state == BadReplicaState.BAD,
        _DONE,
    )
    .values(state=BadReplicaState.RECOVERED.value, updated_at=now())
)


def settle_replicas(tx: Connection) -> None:
    """Make replicas AVAILABLE or UNAVAILABLE. What a client has declared already is verified now.

    What was declared bad there has been replaced by a verified copy.
    """
    tx.execute(_SETTLE_REPLICAS)
    tx.execute(_RECOVERED)


_SETTLE_LOCKS = (
    update(locks)
    .where(SAME_REPLICA, settled.c.outcome.in_(ENDED), or_(_DONE, locks.c.state != LockState.OK))
    .values(
        state=case((_DONE, LockState.OK.value), else_=LockState.STUCK.value),
        code=case((_DONE, null()), else_=settled.c.code),
        reason=case((_DONE, null()), else_=settled.c.reason),
    )
)


def settle_locks(tx: Connection) -> None:
    """Make locks OK or STUCK."""
    tx.execute(_SETTLE_LOCKS)


_LANDED = (
    select(replicas.c.file_id.label("file_id"), replicas.c.rse_id.label("rse_id"))
    .join(settled, _OF_THE_REPORT)
    .where(_DONE, replicas.c.state == ReplicaState.AVAILABLE)
)

_ENDED_REQUESTS = {
    "request_id": requests.c.id,
    "file_id": requests.c.file_id,
    "source_id": requests.c.source_id,
    "destination_id": requests.c.destination_id,
    "rule_id": requests.c.rule_id,
    "state": case((_DONE, RequestState.DONE.value), else_=RequestState.FAILED.value),
    "attempt": requests.c.attempt,
    "mode": settled.c.mode,
    "mode_reason": settled.c.mode_reason,
    "bytes": requests.c.bytes,
    "seconds": settled.c.seconds,
    "code": settled.c.code,
    "reason": settled.c.reason,
    "created_at": requests.c.created_at,
    "started_at": requests.c.started_at,
    "at": now(),
}

_HISTORY = insert(request_history).from_select(
    list(_ENDED_REQUESTS),
    select(*_ENDED_REQUESTS.values())
    .join(settled, and_(*_HOLDS))
    .where(settled.c.outcome.in_((*ENDED, Outcome.DROPPED.value)))
    .order_by(requests.c.id),
    include_defaults=False,
)


_TRIED = {
    "request_id": requests.c.id,
    **{name: requests.c[name] for name in ("file_id", "source_id", "destination_id", "attempt", "bytes")},
    "code": settled.c.code,
    "reason": settled.c.reason,
    "created_at": requests.c.created_at,
    "started_at": requests.c.started_at,
    "at": now(),
}

_ATTEMPTS = insert(request_attempts).from_select(
    list(_TRIED),
    select(*_TRIED.values())
    .join(settled, and_(*_HOLDS))
    .where(settled.c.outcome == Outcome.RETRY.value)
    .order_by(requests.c.id),
    include_defaults=False,
)


def record(tx: Connection, reports: Mapping[int, Report]) -> None:
    """Write arrivals, events, the history of requests, and the attempts that are followed by another."""
    record_arrivals(tx, _LANDED, anew=True)
    append_transfer_events(tx, reports)
    tx.execute(_HISTORY)
    if any(report.outcome is Outcome.RETRY for report in reports.values()):
        tx.execute(_ATTEMPTS)


_AGAIN = settled.c.outcome.in_((Outcome.RETRY.value, Outcome.RELEASED.value))

_REQUESTS = (
    select(settled.c.outcome)
    .select_from(requests)
    .join(settled, and_(*_HOLDS))
    .order_by(requests.c.id)
    .with_for_update(of=requests)
)

_GIVE_BACK = (
    update(requests)
    .where(*_HOLDS, ~_OVER)
    .values(
        state=case((_AGAIN, RequestState.QUEUED.value), else_=RequestState.FAILED.value),
        attempt=case(
            (settled.c.outcome == Outcome.RELEASED.value, requests.c.attempt - 1), else_=requests.c.attempt
        ),
        not_before=case((_AGAIN, after(settled.c.delay_s)), else_=requests.c.not_before),
        code=settled.c.code,
        reason=settled.c.reason,
        lease_owner=null(),
        lease_until=null(),
    )
)

_END = delete(requests).where(requests.c.id.in_(select(settled.c.request_id).where(_OVER)))


def settle_requests(tx: Connection, held: int) -> Counter[Outcome]:
    """End requests, or give them back to the queue; give how many reports had each outcome.

    Parameters
    ----------
    held
        Reports whose leases held when the batch began.

    Raises
    ------
    RulesJoined
        A lease of this batch has run out meanwhile: who has the request now is believed instead.
    """
    counts = Counter(Outcome(outcome) for outcome in tx.scalars(_REQUESTS))
    if counts.total() != held:
        raise RulesJoined("a lease of this batch ran out while it was settled")
    if counts.total() > counts[Outcome.DONE] + counts[Outcome.DROPPED]:
        tx.execute(_GIVE_BACK)
    tx.execute(_END)
    return counts
