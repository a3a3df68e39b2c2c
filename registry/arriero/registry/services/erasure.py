"""Erasing collections whose lifetime is over, and bringing erased ones back.

Only what the catalogue says goes: rules on the collection end as every rule does, and no replica is deleted here. Files
whose own lifetime is over are left alone: theirs is the deletion of replicas, which knows where the last copy is.
"""

from collections.abc import Sequence
from functools import partial

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, NotFound
from arriero.registry.ports import Bell
from arriero.registry.schema.tables import contents
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.contents import lock_around
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import did_missing, require_scopes
from arriero.registry.services.metadata import check_number
from arriero.registry.services.rule_removal import end_rule
from arriero.registry.states import DidType
from arriero.registry.store import attachments as attachment_store
from arriero.registry.store import audit as audit_store
from arriero.registry.store import contents as tree
from arriero.registry.store import dids as did_store
from arriero.registry.store import erasure as store
from arriero.registry.store.evaluations import look_at_contents

log = structlog.get_logger(__name__)

_EVENTS = {DidType.DATASET: "ERASE", DidType.CONTAINER: "ERASE_CNT"}


def erase_expired_collections(context: Context, *, limit: int = 100) -> int:
    """Erase collections whose lifetime is over, each in a transaction of its own; for a sweep.

    Parameters
    ----------
    limit
        At most so many.

    Returns
    -------
    int
        How many were erased. One that a locked rule holds is left and logged; one that cannot be erased is logged, passed
        over, and tried again by the next sweep.
    """
    with context.database.snapshot() as connection:
        chosen = store.expired_collections(connection, limit=limit)
        held = store.held_collections(connection, limit=10)
    if held:
        log.info("expired collections are held by locked rules", first=held)
    erased = 0
    for did_id in chosen:
        try:
            erased += context.database.run(partial(erase_within, did_id=did_id))
        except Exception:
            # the boundary between collections: one that cannot be erased must not keep the others
            log.exception("collection not erased", did_id=did_id)
    if erased:
        context.doorbell.ring(Bell.EVALUATIONS)
    return erased


def erase_within(connection: Connection, *, did_id: int) -> bool:
    """Erase one collection, if its lifetime is over and nothing keeps it, in a transaction that has begun."""
    parents = store.parents_of(connection, did_id)
    lock_around(connection, [*parents, did_id])
    row = store.still_expired(connection, did_id)
    if row is None or store.parents_of(connection, did_id) != parents:
        # given a new lifetime, a locked rule or another parent meanwhile: the next sweep looks again
        return False
    _end_rules(connection, did_id)
    # before the contents go: rules above look at what it held, and those that have yet to look at it, detached as it is
    look_at_contents(connection, [did_id], tree.pairs_of(did_id))
    if parents:
        attachment_store.detach_where(connection, contents.c.child_id == did_id)
    held = attachment_store.detach_where(connection, contents.c.parent_id == did_id)
    store.erase(connection, did_id)
    shown = f"{row['scope']}:{row['name']}"
    payload = {"scope": row["scope"], "name": row["name"], "account": row["account"]}
    did_store.append_event(connection, _EVENTS[row["type"]], shown, payload)
    detail = {"reason": "expired", "account": row["account"], "held": held, "parents": len(parents)}
    audit_store.append(
        connection, account=None, action=Action.DID_ERASE, target=shown, allowed=True, detail=detail
    )
    return True


def _end_rules(connection: Connection, did_id: int) -> None:
    for rule in store.rules_on(connection, did_id):
        reason = "what it was on has expired"
        end_rule(connection, rule, purge=rule["purge_replicas"], account=None, reason=reason)


def resurrect(context: Context, actor: Actor, dids: Sequence[tuple[str, str]]) -> None:
    """Bring erased datasets and containers back: with their metadata, without their contents and rules.

    Parameters
    ----------
    dids
        Scopes and names; all of them, or none. The one that was erased last comes back.

    Raises
    ------
    NotFound
        One was never erased.
    Conflict
        One is there, or was a file: its bytes do not come back with its name.
    """
    check_number(context, dids)
    wanted = list(dict.fromkeys(dids))

    def work(connection: Connection) -> None:
        scopes = require_scopes(connection, [scope for scope, _ in wanted])
        for scope in scopes.values():
            authorize(actor, Action.DID_RESURRECT, Target(scope.name, owner=scope.owner))
        for scope_name, name in did_store.find_dids(connection, wanted):
            raise _there_already(scope_name, name)
        keys = [(scopes[scope].id, name) for scope, name in wanted]
        deleted = store.newest_deleted(connection, keys)
        ids = []
        for (scope_name, name), key in zip(wanted, keys, strict=True):
            if key not in deleted:
                raise _never_erased(scope_name, name)
            did_id, did_type = deleted[key]
            if did_type is DidType.FILE:
                raise Conflict(
                    f"{scope_name}:{name[:200]} was a file: register its replica again",
                    rucio_class="UnsupportedOperation",
                )
            ids.append(did_id)
        store.resurrect(connection, ids)
        first = f"{wanted[0][0]}:{wanted[0][1]}" if wanted else ""
        audit.record(connection, actor, Action.DID_RESURRECT, first, count=len(wanted))

    try:
        context.database.run(work)
    except IntegrityError as error:
        # added by somebody else between the look and the insert
        raise _there_already(*wanted[0]) from error


def _there_already(scope: str, name: str) -> Conflict:
    return Conflict(f"there is a DID {scope}:{name[:200]} already", rucio_class="DataIdentifierAlreadyExists")


def _never_erased(scope: str, name: str) -> NotFound:
    missing = did_missing(scope, name)
    return NotFound(f"{missing.message}; none of this name was erased", rucio_class=missing.rucio_class)
