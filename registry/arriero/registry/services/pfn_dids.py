"""Which files some PFNs are replicas of."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from arriero.registry.errors import InvalidInput
from arriero.registry.services.context import Context
from arriero.registry.services.pfn_lookup import Prefixes, candidates
from arriero.registry.services.rses import require_rse
from arriero.registry.store import replica_sets as sets


def dids_of_pfns(context: Context, pfns: Sequence[str], *, rse: str | None = None) -> list[dict[str, Any]]:
    """Find the files of PFNs.

    Parameters
    ----------
    rse
        Look at the protocols of this RSE only.

    Returns
    -------
    list
        For each PFN that is a replica, in the order of the call, a dictionary from it to ``scope`` and ``name``.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    most = context.settings.max_bulk_items
    if len(pfns) > most:
        raise InvalidInput(f"at most {most} PFNs in one call")

    def work(connection: Connection) -> list[dict[str, Any]]:
        if rse is not None:
            require_rse(connection, rse)
        prefixes = Prefixes.load(connection, None if rse is None else [rse])
        sets.stage_candidates(connection, candidates(connection, [prefixes.places(pfn) for pfn in pfns]))
        return [
            {pfns[row["place"]]: {"scope": row["scope"], "name": row["name"]}}
            for row in sets.found_replicas(connection)
        ]

    # it writes temporary tables only, which a transaction that reads may not fill everywhere
    return context.database.run(work)
