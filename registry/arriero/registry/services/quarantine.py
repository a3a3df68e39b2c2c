"""Files found on a storage that the catalogue does not know: written down, so that somebody decides about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from arriero.registry.errors import InvalidInput
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.pfn_lookup import Place, candidates
from arriero.registry.services.rses import require_rse
from arriero.registry.store import quarantine as store
from arriero.registry.store import replica_sets as sets
from arriero.registry.store.rses import load_rses
from arriero.rse.errors import RSEError
from arriero.rse.paths import safe_path


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was found."""

    path: str
    """Below the RSE's prefix."""
    scope: str | None = None
    name: str | None = None
    bytes: int | None = None


def quarantine(
    context: Context,
    actor: Actor,
    replicas: Sequence[Found],
    *,
    rse: str | None = None,
    rse_id: str | None = None,
) -> int:
    """Write down files of an RSE, by its name or its id; those that are written down already stay as they are.

    Returns
    -------
    int
        How many were new. A path of a replica that the catalogue knows is passed over.

    Raises
    ------
    NotFound
        There is no such RSE.
    InvalidInput
        A path cannot be one.
    """
    if (rse is None) == (rse_id is None):
        raise InvalidInput("give either rse or rse_id")
    most = context.settings.max_bulk_items
    if len(replicas) > most:
        raise InvalidInput(f"at most {most} replicas in one call")
    paths = {}
    for found in replicas:
        try:
            paths[safe_path(found.path.lstrip("/"))] = found
        except RSEError as error:
            raise InvalidInput(error.message, rucio_class="InvalidPath", code=error.code) from error

    def work(connection: Connection) -> int:
        name = rse
        if name is None:
            name = next((one.name for one in load_rses(connection).values() if str(one.id) == rse_id), rse_id)
        row = require_rse(connection, name or "")
        authorize(actor, Action.REPLICA_QUARANTINE, Target(row["name"], rse=row["name"]))
        where = load_rses(connection, [row["name"]])[row["name"]]
        sets.stage_candidates(connection, candidates(connection, [[Place(where, path)] for path in paths]))
        known = {replica["place"] for replica in sets.found_replicas(connection)}
        rows = [
            (path, found.bytes, found.scope, found.name)
            for place, (path, found) in enumerate(paths.items())
            if place not in known
        ]
        new = store.add(connection, row["id"], rows)
        audit.record(connection, actor, Action.REPLICA_QUARANTINE, row["name"], count=len(paths), new=new)
        return new

    return context.database.run(work)
