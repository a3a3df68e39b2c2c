"""Sweeps: what makes broker and workers disposable. Each is idempotent and may run anywhere, at any time, doubled.

A sweep takes back what dead workers hold and rings for what is due (DESIGN 4.1, invariant I7).
"""

import structlog
from sqlalchemy import Connection, case, literal, null, select, update

from arriero.registry.ports import Bell
from arriero.registry.schema.base import AT_THIS_MOMENT, after
from arriero.registry.schema.tables import evaluations, requests
from arriero.registry.services.context import Context
from arriero.registry.services.subscriptions import end_subscriptions
from arriero.registry.store.arrival_queue import LEASE_EXPIRED, free_outlived_leases
from arriero.scheduler.claim import ClaimedRequest
from arriero.scheduler.hops import take_up_lost
from arriero.scheduler.lanes import SUBMITTED
from arriero.scheduler.lanes import is_due as requests_are_due
from arriero.scheduler.reports import Report, failure
from arriero.scheduler.settle import settle
from arriero.scheduler.subscription_queue import is_due

log = structlog.get_logger(__name__)

_BATCH = 1000


def sweep_requests(context: Context) -> int:
    """Take back the requests of workers that show no sign of life, and ring for those that are due.

    Returns
    -------
    int
        Requests taken back. Those that have spent their attempts have failed: what kills its worker each time must
        not go round for ever.
    """
    reports = context.database.run(lambda tx: _expired_requests(tx, context))
    taken = settle(context.database, reports, stuck_retry_s=context.settings.stuck_retry_s)
    if reports:
        log.warning("requests taken back", retried=taken.retried, failed=taken.failed, dropped=taken.dropped)
    context.database.run(take_up_lost)
    with context.database.snapshot() as connection:
        due = requests_are_due(connection)
    if due:
        context.doorbell.ring(Bell.REQUESTS)
    return taken.retried + taken.failed + taken.dropped


def _expired_requests(connection: Connection, context: Context) -> list[Report]:
    rows = connection.execute(
        select(requests)
        .where(SUBMITTED, requests.c.lease_until < AT_THIS_MOMENT)
        .order_by(requests.c.id)
        .limit(_BATCH)
    )
    return [
        failure(
            ClaimedRequest(
                id=row.id,
                fence=row.fence,
                owner=row.lease_owner,
                file_id=row.file_id,
                destination_id=row.destination_id,
                bytes=row.bytes,
                attempt=row.attempt,
                failed_source_id=row.source_id,
            ),
            context.settings,
            LEASE_EXPIRED,
            f"the worker {row.lease_owner} showed no sign of life",
            retryable=True,
        )
        for row in rows
    ]


def sweep_evaluations(context: Context) -> int:
    """Take back the evaluations of workers that show no sign of life, and ring for those that are due.

    Returns
    -------
    int
        Evaluations taken back. Each waits longer the more attempts it has had: a rule that kills its worker must not
        keep the others from being looked at.
    """
    settings = context.settings
    attempts = evaluations.c.attempt
    first = literal(settings.transfer_backoff_s)
    waits = [(attempts <= step, first * 2.0**step) for step in range(1, 9)]
    wait_s = case((attempts <= 1, literal(0.0)), *waits, else_=literal(settings.transfer_backoff_max_s))

    def take_back(connection: Connection) -> int:
        return connection.execute(
            update(evaluations)
            .where(evaluations.c.lease_until < AT_THIS_MOMENT)
            .values(
                lease_owner=null(),
                lease_until=null(),
                not_before=after(wait_s),
                code=LEASE_EXPIRED,
                reason="the worker that evaluated it showed no sign of life",
            )
        ).rowcount

    taken = context.database.run(take_back)
    if taken:
        log.warning("evaluations taken back", count=taken)
    with context.database.snapshot() as connection:
        due = connection.scalar(
            select(evaluations.c.rule_id)
            .where(evaluations.c.lease_owner.is_(None), evaluations.c.not_before <= AT_THIS_MOMENT)
            .limit(1)
        )
    if due is not None:
        context.doorbell.ring(Bell.EVALUATIONS)
    return taken


def sweep_subscriptions(context: Context) -> int:
    """End subscriptions whose lifetime is over, and ring for the DIDs that the others have to look at.

    Returns
    -------
    int
        Subscriptions that ended.
    """
    ended = end_subscriptions(context)
    if ended:
        log.info("subscriptions ended", count=ended)
    with context.database.snapshot() as connection:
        due = is_due(connection)
    if due:
        context.doorbell.ring(Bell.SUBSCRIPTIONS)
    return ended


def sweep_arrivals(context: Context) -> int:
    """Take back the arrivals of agents that show no sign of life.

    Returns
    -------
    int
        Arrivals taken back; those that have spent their attempts have failed.
    """
    limit = context.settings.arrival_max_attempts
    taken = context.database.run(lambda tx: free_outlived_leases(tx, limit))
    if taken:
        log.warning("arrivals taken back", count=taken)
    return taken
