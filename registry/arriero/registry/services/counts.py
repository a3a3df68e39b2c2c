"""How much there is of everything, counted from the rows themselves (DESIGN 4.3: no counter that drifts)."""

import threading
import time

from arriero.registry.errors import Busy
from arriero.registry.models import ArrivalCount, Counts, RseCount
from arriero.registry.services.context import Context
from arriero.registry.store import counts as store

KEPT_S = 10.0
"""As often as the dashboard asks for itself again, seconds."""

_REST = 20
"""How many times as long as counting took it rests."""

_WAIT_S = 5.0


def count_everything(context: Context) -> Counts:
    """Count in one snapshot, in a fixed number of statements."""
    with context.database.snapshot() as connection:
        return Counts(
            at=store.clock(connection),
            dids=store.dids_by_type(connection),
            replicas=[RseCount.model_validate(row) for row in store.replicas_by_rse(connection)],
            rules=store.rules_by_state(connection),
            requests=store.requests_by_state(connection),
            arrivals=[ArrivalCount.model_validate(row) for row in store.arrivals_by_butler(connection)],
        )


class RecentCounts:
    """Counts for those who do not say who they are: asking again and again costs the database nothing.

    One caller counts while the others are given what was counted last. What takes long to count is counted the less
    often, so that never more than a twentieth of the time is spent on it.

    Parameters
    ----------
    context
        Of the process.
    kept_s
        How long counts are given out at least, seconds.
    """

    def __init__(self, context: Context, *, kept_s: float = KEPT_S) -> None:
        self._context = context
        self._kept_s = kept_s
        self._counting = threading.Lock()
        self._counts: Counts | None = None
        self._counted_again_at = 0.0

    def get(self) -> Counts:
        """Give counts that are not old, or as new as they can be.

        Raises
        ------
        Busy
            There are none yet, and whoever counts them takes long.
        """
        kept = self._counts
        if kept is not None and time.monotonic() < self._counted_again_at:
            return kept
        # without any to give out there is nothing but to wait for the first
        if not self._counting.acquire(timeout=_WAIT_S if kept is None else 0):
            if kept is None:
                raise Busy("everything is being counted for the first time: try again")
            return kept
        try:
            if self._counts is not None and self._counts is not kept:
                return self._counts
            begun = time.monotonic()
            counts = count_everything(self._context)
            ended = time.monotonic()
            self._counts = counts
            self._counted_again_at = ended + max(self._kept_s, _REST * (ended - begun))
            return counts
        finally:
            self._counting.release()
