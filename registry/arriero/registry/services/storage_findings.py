"""What is wrong at storages, and what is done about it when it has been seen twice.

A replica that is missing is BAD; so is one of another size or checksum, if another copy has been verified. Where none has,
the catalogue itself may be wrong: the replica is said to be suspicious, and nothing else happens. Dark files are only told.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, RowMapping

from arriero.registry.ports import Bell
from arriero.registry.services.authorisation import Action
from arriero.registry.services.bad_replicas import Declaration, Sayer, declare_keys, retried
from arriero.registry.services.context import Context
from arriero.registry.services.rses import require_rse
from arriero.registry.states import BadReplicaState, FindingKind, FindingState
from arriero.registry.store import audit as audit_store
from arriero.registry.store import storage_findings as store
from arriero.registry.store.rses import load_rses
from arriero.registry.store.streaming import streamed
from arriero.rse.errors import RSEError
from arriero.rse.lfn2pfn import path_for

log = structlog.get_logger(__name__)

_PAGE = 1000
"""Findings of one transaction."""

NO_PROVEN_COPY = "no_proven_copy"
CATALOGUE_SUSPECTED = "catalogue_suspected"
"""Why a replica that differs is not BAD: nobody has verified another one; other ones differ in the same way."""

_REASONS = {
    NO_PROVEN_COPY: "no other copy of it has been verified: the replica or the catalogue may be wrong",
    CATALOGUE_SUSPECTED: "another replica differs in the same way: the catalogue is likely to be wrong",
}

_SAID = {
    FindingKind.MISSING: "it is not at the storage",
    FindingKind.WRONG_SIZE: "its size at the storage is not that of the catalogue",
    FindingKind.WRONG_CHECKSUM: "its checksum at the storage is not that of the catalogue",
}


@dataclass(slots=True)
class Acted:
    """What was done about findings."""

    declared: int = 0
    suspected: int = 0


def act(context: Context, rse_id: int, said_by: Sayer, *, request_id: str | None = None) -> Acted:
    """Do what is to be done about the confirmed findings of an RSE.

    Parameters
    ----------
    said_by
        In whose name replicas are declared.
    request_id
        Of the call that has this done, for the audit trail.
    """
    acted = Acted()
    while True:
        page = retried(context, partial(_act_on_page, rse_id=rse_id, said_by=said_by, request_id=request_id))
        if page is None:
            break
        acted.declared += page.declared
        acted.suspected += page.suspected
    if acted.declared or acted.suspected:
        log.warning("replicas declared", rse_id=rse_id, bad=acted.declared, suspicious=acted.suspected)
        context.doorbell.ring(Bell.EVALUATIONS)
    return acted


def _act_on_page(
    connection: Connection, *, rse_id: int, said_by: Sayer, request_id: str | None
) -> Acted | None:
    rows = store.to_act_on(connection, rse_id, limit=_PAGE)
    if not rows:
        return None
    kind, by_reading, doubt = _what(rows[0])
    # one declaration a transaction: the rules of a second one would be held after the replicas of the first
    found = [row for row in rows if _what(row) == (kind, by_reading, doubt)]
    how = "its bytes were read twice" if by_reading else f"audit {found[0]['audit_id']} confirmed it"
    state = BadReplicaState.BAD if doubt is None else BadReplicaState.SUSPICIOUS
    reason = f"{_SAID[kind]}: {how}" if doubt is None else f"{_SAID[kind]}; {_REASONS[doubt]}"
    keys = [(row["file_id"], rse_id) for row in found]
    count, _ = declare_keys(
        connection, keys, Declaration(state, reason), said_by, still=store.outdated_places
    )
    ids = [row["id"] for row in found]
    detail = {"state": state, "count": count, "reason": reason}
    target = store.shown(connection, ids[0])
    audit_store.append(
        connection,
        account=said_by.account,
        action=Action.REPLICA_DECLARE,
        target=target,
        allowed=True,
        detail=detail,
        request_id=request_id,
    )
    if doubt is not None:
        store.say(connection, ids, FindingState.SUSPECTED, code=doubt, reason=_REASONS[doubt])
        return Acted(suspected=count)
    store.say(connection, ids, FindingState.DECLARED, reason=reason)
    # what has changed meanwhile, or cannot be declared: somebody else looks after it
    store.forget(connection, store.not_declared(connection, ids))
    return Acted(declared=count)


def _what(row: RowMapping | Mapping[str, Any]) -> tuple[FindingKind, bool, str | None]:
    """What is wrong, whether its bytes were read, and why it is not to be BAD."""
    doubt = None
    if row["kind"] is not FindingKind.MISSING and not row["is_proven"]:
        doubt = CATALOGUE_SUSPECTED if row["is_shared"] else NO_PROVEN_COPY
    return row["kind"], row["audit_id"] is None, doubt


def list_findings(
    context: Context,
    *,
    rse: str | None = None,
    kind: FindingKind | None = None,
    state: FindingState | None = None,
    audit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Findings that are not settled, the oldest first.

    Yields
    ------
    dict
        ``id``, ``rse``, ``kind``, ``state``, ``scope`` and ``name`` (None of a dark file), ``path``, ``bytes`` and ``adler32``
        as found, ``catalogue_bytes`` and ``catalogue_adler32``, ``times``, ``first_seen_at``, ``last_seen_at``, ``audit``,
        ``code``, ``reason``.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    with context.database.snapshot() as connection:
        rse_id = None if rse is None else require_rse(connection, rse)["id"]
        known = load_rses(connection)
        query = store.findings_query(rse_id=rse_id, kind=kind, state=state, audit_id=audit)
        with streamed(connection, query) as rows:
            for row in rows:
                found = dict(row)
                place = known.get(row["rse"])
                if row["path"] is None and place is not None and place.deterministic:
                    found["path"] = _path(place.algorithm, row["scope"], row["name"])
                yield found


def _path(algorithm: str, scope: str, name: str) -> str | None:
    try:
        return path_for(algorithm, scope, name)
    except RSEError:
        return None


def settle_findings(context: Context) -> int:
    """Act on what was confirmed and not acted on, and forget what has been made again since; for a sweep.

    Returns
    -------
    int
        How many findings were acted on or forgotten.
    """
    with context.database.snapshot() as connection:
        waiting = store.rses_to_act_on(connection)
    acted = [act(context, rse_id, Sayer()) for rse_id in waiting]
    forgotten = context.database.run(store.drop_settled)
    return forgotten + sum(one.declared + one.suspected for one in acted)
