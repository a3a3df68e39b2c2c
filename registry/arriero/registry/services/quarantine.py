"""Files found on a storage that the catalogue does not know: written down, so that somebody decides about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from arriero.registry.errors import InvalidInput
from arriero.registry.schema.base import now
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.pfn_lookup import Place, candidates
from arriero.registry.services.rses import require_rse
from arriero.registry.store import quarantine as store
from arriero.registry.store import replica_sets as sets
from arriero.registry.store import storage_findings as findings
from arriero.registry.store.rses import load_rses
from arriero.rse.errors import RSEError
from arriero.rse.paths import QUARANTINE_FOLDER, safe_path


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


def move_aside(context: Context, actor: Actor, rse: str, finding_ids: Sequence[int]) -> list[dict[str, str]]:
    """Write down that confirmed dark files of an RSE are moved into its quarantine, for whoever moves them.

    Parameters
    ----------
    finding_ids
        Of `arriero.registry.services.storage_findings.list_findings`; those that are no confirmed dark files are passed
        over, and so are files that have become replicas meanwhile.

    Returns
    -------
    list
        Those that are to be moved: ``path`` and ``moved_to``. Say with `moved` what has become of them.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    authorize(actor, Action.REPLICA_QUARANTINE, Target(rse, rse=rse))
    _check_number(context, len(finding_ids))

    def work(connection: Connection) -> list[dict[str, str]]:
        row = require_rse(connection, rse)
        found = store.hold_dark(connection, row["id"], finding_ids)
        known = _known(connection, rse, [one["path"] for one in found])
        dark = [one for one in found if one["path"] not in known]
        moment = connection.execute(select(now())).scalar_one()
        folder = f"{QUARANTINE_FOLDER}/{moment:%Y%m%dT%H%M%S}"
        store.note_aside(connection, row["id"], [one["id"] for one in dark], folder)
        findings.forget(connection, [one["id"] for one in found])
        if found:
            audit.record(connection, actor, Action.REPLICA_QUARANTINE, rse, count=len(dark), folder=folder)
        return [{"path": one["path"], "moved_to": f"{folder}/{one['path']}"} for one in dark]

    return context.database.run(work)


def moved(
    context: Context, actor: Actor, rse: str, *, there: Sequence[str], not_moved: Sequence[str] = ()
) -> list[str]:
    """Tell what has become of files that were to be moved aside.

    Parameters
    ----------
    there
        Paths of those that were moved.
    not_moved
        Paths of those that could not be, or were gone.

    Returns
    -------
    list
        Paths of those of ``there`` that somebody has registered meanwhile: move them back.
    """
    authorize(actor, Action.REPLICA_QUARANTINE, Target(rse, rse=rse))
    _check_number(context, len(there) + len(not_moved))

    def work(connection: Connection) -> list[str]:
        row = require_rse(connection, rse)
        known = sorted(_known(connection, rse, there))
        store.forget_aside(connection, row["id"], [*known, *not_moved])
        if known or not_moved:
            detail = {"registered": len(known), "not_moved": len(not_moved)}
            audit.record(connection, actor, Action.REPLICA_QUARANTINE, rse, **detail)
        return known

    return context.database.run(work)


def _known(connection: Connection, rse: str, paths: Sequence[str]) -> set[str]:
    """Those of some paths of an RSE that are replicas."""
    where = load_rses(connection, [rse])[rse]
    sets.stage_candidates(connection, candidates(connection, [[Place(where, path)] for path in paths]))
    return {paths[replica["place"]] for replica in sets.found_replicas(connection)}


def _check_number(context: Context, number: int) -> None:
    most = context.settings.max_bulk_items
    if number > most:
        raise InvalidInput(f"at most {most} files in one call")
