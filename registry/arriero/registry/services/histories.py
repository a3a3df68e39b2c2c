"""Keeps the histories in shape: partitions for the months ahead, and an end for what is older than it has to be.

Nothing depends on it having run: what has no partition of its month is in the default one.
"""

from datetime import datetime

import structlog
from sqlalchemy import Connection

from arriero.registry.services.context import Context
from arriero.registry.store import histories as store

log = structlog.get_logger(__name__)

MONTHS_AHEAD = 2
"""Months for which partitions are made before they begin."""

_BATCH = 10_000
"""Rows that one transaction deletes where there are no partitions to drop."""


def maintain_histories(context: Context) -> int:
    """Make the partitions of this month and the next, and let go of what is older than ``history_months``.

    Idempotent, and cheap when there is nothing to do: it may run at any time, anywhere, doubled.

    Returns
    -------
    int
        Partitions made and dropped, and batches of rows deleted.
    """
    with context.database.snapshot() as connection:
        month = store.this_month(connection)
    first_kept = store.months_from(month, -context.settings.history_months)[-1]
    done = 0
    if context.database.is_postgresql:
        done += context.database.run(lambda connection: _partitions(connection, context))
    for at in store.HISTORIES:
        while context.database.run(
            lambda connection, at=at: store.delete_before(connection, at, first_kept, _BATCH)  # type: ignore[misc]
        ):
            done += 1
    return done


def _partitions(connection: Connection, context: Context) -> int:
    month = store.this_month(connection)
    first_kept = store.months_from(month, -context.settings.history_months)[-1]
    ahead = store.months_from(month, MONTHS_AHEAD)
    there = store.partitions(connection)

    def lacking() -> list[tuple[store.HistoryTime, datetime]]:
        return [
            (at, one) for at in store.HISTORIES for one in ahead if store.partition_of(at, one) not in there
        ]

    old = [name for at in store.HISTORIES for name in store.old_partitions(there, at, first_kept)]
    if not (lacking() or old) or not store.lock_partitions(connection):
        return 0
    # another process may have done it before the lock was free
    there = store.partitions(connection)
    made = lacking()
    for at, one in made:
        store.add_month(connection, at, one)
    old = [name for name in old if name in there]
    store.drop_partitions(connection, old)
    log.info("histories partitioned", made=len(made), dropped=old)
    return len(made) + len(old)
