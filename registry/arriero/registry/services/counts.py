"""How much there is of everything, counted from the rows themselves (DESIGN 4.3: no counter that drifts)."""

from arriero.registry.models import ArrivalCount, Counts, RseCount
from arriero.registry.services.context import Context
from arriero.registry.store import counts as store


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
