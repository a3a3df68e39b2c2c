"""Taking replicas away by hand: out of the catalogue at once, or marked so that deletion takes them.

Nothing that a rule or a Butler holds goes, and no last good copy. Taking a replica out of the catalogue does not touch
its bytes, as with Rucio: they become dark data, or are removed by whoever asked.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from arriero.registry.errors import Conflict, InvalidInput, NotFound, RegistryError
from arriero.registry.ports import Bell
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.bad_replicas import Named
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_scopes
from arriero.registry.services.rses import require_rse
from arriero.registry.states import BadReplicaState
from arriero.registry.store import bad_replicas, events, losses
from arriero.registry.store import replica_removal as store
from arriero.registry.store import replica_sets as sets
from arriero.registry.store.arrivals import record_arrivals
from arriero.registry.store.rses import load_rses


def delete_replicas(context: Context, actor: Actor, rse: str, files: Sequence[tuple[str, str]]) -> None:
    """Take the replicas of files at an RSE out of the catalogue, all of them or none.

    Parameters
    ----------
    files
        Pairs of scope and name.

    Raises
    ------
    NotFound
        The RSE, a scope or a replica is not there.
    Conflict
        A rule or a Butler holds one, or it is the last good copy.
    """
    named = [Named(scope, name, rse) for scope, name in files]

    def work(connection: Connection) -> None:
        require_rse(connection, rse)
        _stage(context, connection, actor, named)
        sets.hold_files(connection)
        sets.hold_replicas(connection)
        store.drop_waiting_arrivals(connection)
        fault = store.first_fault(connection)
        if fault is not None:
            raise _refusal(f"{fault['scope']}:{fault['name'][:200]} at {rse}", fault["fault"])
        going = sets.found_replicas(connection)
        bad_replicas.close(connection, BadReplicaState.DELETED)
        count = store.remove(connection)
        # an announced one may have been the last hope for a file
        losses.note(connection, sets.their_files())
        record_arrivals(connection, store.elsewhere())
        keyed = [
            (
                f"{rse}:{row['scope']}:{row['name']}",
                {"scope": row["scope"], "name": row["name"], "rse": rse, "bytes": row["bytes"]},
            )
            for row in going
        ]
        events.append(connection, "replica-removed", keyed)
        first = f"{files[0][0]}:{files[0][1]}" if files else ""
        audit.record(connection, actor, Action.REPLICA_DELETE, first, rse=rse, count=count)

    context.database.run(work)


def set_tombstones(context: Context, actor: Actor, replicas: Sequence[Named]) -> None:
    """Have deletion take replicas at once, if its own guards let it; all of them or none.

    Raises
    ------
    NotFound
        An RSE, a scope or a replica is not there.
    Conflict
        A rule holds one.
    """

    def work(connection: Connection) -> None:
        _stage(context, connection, actor, replicas)
        sets.hold_replicas(connection)
        held = store.first_locked(connection)
        if held is not None:
            raise _refusal(f"{held['scope']}:{held['name'][:200]}", store.LOCKED)
        store.bury(connection)
        first = f"{replicas[0].scope}:{replicas[0].name}@{replicas[0].rse}" if replicas else ""
        audit.record(connection, actor, Action.REPLICA_DELETE, first, tombstone=True, count=len(replicas))

    context.database.run(work)
    context.doorbell.ring(Bell.DELETIONS)


def _stage(context: Context, connection: Connection, actor: Actor, replicas: Sequence[Named]) -> None:
    """Find replicas, and stage them, each once."""
    most = context.settings.max_bulk_items
    if len(replicas) > most:
        raise InvalidInput(f"at most {most} replicas in one call")
    scopes = require_scopes(connection, (one.scope for one in replicas))
    rses = load_rses(connection, {one.rse or "" for one in replicas})
    for one in replicas:
        if one.rse not in rses:
            require_rse(connection, one.rse or "")
    for scope, rse in dict.fromkeys((one.scope, one.rse) for one in replicas):
        target = Target(f"{scope}@{rse}", owner=scopes[scope].owner, rse=rse)
        authorize(actor, Action.REPLICA_DELETE, target)
    rows = [
        (place, rses[one.rse or ""].id, scopes[one.scope].id, one.name, None)
        for place, one in enumerate(replicas)
    ]
    sets.stage_candidates(connection, rows)
    found = sets.found_replicas(connection)
    known = {row["place"] for row in found}
    for place, one in enumerate(replicas):
        if place not in known:
            raise NotFound(
                f"there is no replica of {one.scope}:{one.name[:200]} at {one.rse}",
                rucio_class="ReplicaNotFound",
            )
    once = {(row["file_id"], row["rse_id"]): row["place"] for row in reversed(found)}
    sets.keep_only(connection, ((place, *key) for key, place in once.items()))


def _refusal(shown: str, fault: str) -> RegistryError:
    if fault == store.LOCKED:
        return Conflict(
            f"the replica of {shown} is held by a rule: remove the rule first (arriero trace shows which)",
            rucio_class="ReplicaIsLocked",
            code="replica_locked",
        )
    if fault == store.HELD_BY_BUTLER:
        return Conflict(
            f"a Butler refers to the replica of {shown}: release it first (arriero arrival release)",
            rucio_class="ReplicaIsLocked",
            code="replica_in_butler",
        )
    if fault == store.COPYING:
        return Conflict(
            f"the replica of {shown} is being copied or deleted: wait until that has ended",
            rucio_class="ReplicaIsLocked",
            code="replica_busy",
        )
    return Conflict(
        f"the replica of {shown} is the last good one that is known: make and verify another copy first (a rule for "
        "another RSE), or erase the file itself",
        rucio_class="UnsupportedOperation",
        code="last_replica",
    )
