"""Shows a sign of life for the deletions that a worker holds, and knows until when each is held.

Whoever is about to ask a storage to delete asks here first: storages have no fences, so nothing may be sent by a worker that
has lost its lease without knowing (docs/adr/0023). Time is counted from before the database was asked.
"""

import threading
import time
from collections.abc import Collection
from typing import Self

import structlog
from sqlalchemy import Connection, literal, select, update
from sqlalchemy.exc import SQLAlchemyError

from arriero.registry.database import Database
from arriero.registry.errors import Busy
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import deletions
from arriero.scheduler.deletion_claim import ClaimedDeletion

log = structlog.get_logger(__name__)

MARGIN = 0.1
"""Part of a lease in which nothing is begun any more."""


class DeletionLeases:
    """Extends the leases of a worker every third of their time, in a thread of its own.

    Parameters
    ----------
    database
        Where they are.
    owner
        The worker's name.
    lease_s
        Length of a lease, seconds.
    """

    def __init__(self, database: Database, owner: str, *, lease_s: float) -> None:
        self._database = database
        self._owner = owner
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._held: dict[tuple[int, int], float] = {}
        self._settling: set[tuple[int, int]] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arriero-deletion-leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def add(self, claimed: Collection[ClaimedDeletion], asked_at: float) -> None:
        """Hold these as well.

        Parameters
        ----------
        asked_at
            `time.monotonic` before they were claimed.
        """
        with self._lock:
            self._held.update(((one.id, one.fence), asked_at) for one in claimed)

    def drop(self, claimed: Collection[ClaimedDeletion]) -> None:
        """Hold these no longer."""
        with self._lock:
            for one in claimed:
                self._held.pop((one.id, one.fence), None)
                self._settling.discard((one.id, one.fence))

    def settling(self, claimed: Collection[ClaimedDeletion]) -> None:
        """These are about to be settled: that a lease is not found any more says nothing about them."""
        with self._lock:
            self._settling.update((one.id, one.fence) for one in claimed)

    def is_held(self, one: ClaimedDeletion) -> bool:
        """Whether a deletion is this worker's for certain, and for long enough to begin."""
        asked_at = self._held.get((one.id, one.fence))
        return asked_at is not None and time.monotonic() < asked_at + self._lease_s * (1 - MARGIN)

    def _run(self) -> None:
        while not self._ended.wait(self._lease_s / 3):
            self.beat()

    def beat(self) -> None:
        """Extend once; those that are not this worker's any more are forgotten."""
        with self._lock:
            held = set(self._held)
        if not held:
            return
        begun = time.monotonic()
        try:
            still = self._database.run(lambda tx: extend_deletions(tx, self._owner, lease_s=self._lease_s))
        except (SQLAlchemyError, Busy) as error:
            log.warning("leases of deletions not extended", cause=type(error).__name__)
            return
        with self._lock:
            self._held.update(dict.fromkeys(still & self._held.keys(), begun))
            lost = (held - still - self._settling) & self._held.keys()
            for key in lost:
                del self._held[key]
        if lost:
            log.warning("leases of deletions lost", count=len(lost))


def extend_deletions(connection: Connection, owner: str, *, lease_s: float) -> frozenset[tuple[int, int]]:
    """Hold all deletions of a worker for another ``lease_s`` seconds; give (id, fence) of those that are its own still."""
    held = (
        select(deletions.c.id)
        .where(deletions.c.lease_owner == owner)
        .order_by(deletions.c.id)
        .with_for_update()
        .cte("held")
    )
    rows = connection.execute(
        update(deletions)
        .where(deletions.c.id == held.c.id)
        .values(lease_until=after(literal(lease_s)))
        .returning(deletions.c.id, deletions.c.fence)
    )
    return frozenset((row.id, row.fence) for row in rows)
