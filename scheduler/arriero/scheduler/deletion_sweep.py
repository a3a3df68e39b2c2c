"""The sweep of deletions: takes back what dead workers hold, ends what waits for nothing but time, rings for what is due."""

import structlog
from sqlalchemy import Connection, case, literal, null, select, update

from arriero.registry.ports import Bell
from arriero.registry.schema.base import AT_THIS_MOMENT, after
from arriero.registry.schema.tables import deletions
from arriero.registry.services.context import Context
from arriero.registry.store.deletion_terms import due_rses
from arriero.scheduler.deletion_settle import finish_graves

log = structlog.get_logger(__name__)

LEASE_EXPIRED = "lease_expired"


def sweep_deletions(context: Context) -> int:
    """Take back the deletions of workers that show no sign of life, and ring for those that are due.

    A request of theirs may still be on its way: their paths are kept free until it cannot be any more.

    Returns
    -------
    int
        Deletions taken back.
    """
    settings = context.settings
    attempts = deletions.c.attempt
    first = literal(settings.deletion_backoff_s)
    waits = [(attempts <= step, first * 2.0 ** (step - 2)) for step in range(2, 12)]
    wait_s = case((attempts <= 1, literal(0.0)), *waits, else_=literal(settings.deletion_backoff_max_s))

    def take_back(connection: Connection) -> int:
        outlived = (
            select(deletions.c.id)
            .where(deletions.c.lease_until < AT_THIS_MOMENT)
            .order_by(deletions.c.id)
            .with_for_update(skip_locked=True)
        )
        return connection.execute(
            update(deletions)
            .where(deletions.c.id.in_(outlived))
            .values(
                lease_owner=null(),
                lease_until=null(),
                not_before=after(wait_s),
                grave_until=after(literal(settings.deletion_grave_s)),
                code=LEASE_EXPIRED,
                reason="the worker that deleted it showed no sign of life",
            )
        ).rowcount

    taken = context.database.run(take_back)
    if taken:
        log.warning("deletions taken back", count=taken)
    finished = finish_graves(context)
    if finished:
        log.info("deletions ended", count=finished)
    with context.database.snapshot() as connection:
        due = due_rses(connection)
    if due:
        context.doorbell.ring(Bell.DELETIONS)
    return taken
