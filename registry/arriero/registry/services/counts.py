"""How much there is of everything, counted from the rows themselves (DESIGN 4.3: no counter that drifts)."""

from arriero.registry.models import ArrivalCount, Counts, RseCount
from arriero.registry.services.context import Context
from arriero.registry.services.recent import Recent
from arriero.registry.store import counts as store

KEPT_S = 10.0
"""As often as the dashboard asks for itself again, seconds."""


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


class RecentCounts(Recent[Counts]):
    """Counts for those who do not say who they are.

    Parameters
    ----------
    context
        Of the process.
    kept_s
        How long counts are given out at least, seconds.
    """

    def __init__(self, context: Context, *, kept_s: float = KEPT_S) -> None:
        super().__init__(lambda: count_everything(context), "everything", kept_s=kept_s)
