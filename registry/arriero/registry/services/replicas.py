"""Replicas: registering files where they lie, and what clients say of their states.

A file is registered with the size and the checksums that the client gives; once the catalogue has them, nothing may
say otherwise. What a client declares is believed as a source and proves nothing: ``verified_at`` stays empty
(DESIGN 4.7). The number of statements does not depend on the number of files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from arriero.registry.errors import Conflict, InvalidInput, NotFound, Unsupported
from arriero.registry.ports import Bell
from arriero.registry.services import audit, bad_replicas
from arriero.registry.services.authorisation import Action, Denied, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_scopes
from arriero.registry.services.new_replicas import NewReplica, follows_from_name, rows_of
from arriero.registry.services.rses import require_rse
from arriero.registry.states import BadReplicaState, DidType, ReplicaState
from arriero.registry.store import dids as did_store
from arriero.registry.store import losses
from arriero.registry.store import replicas as store
from arriero.registry.store.arrivals import record_arrivals
from arriero.registry.store.bad_replicas import recover_staged_files
from arriero.registry.store.evaluations import look_at_files
from arriero.registry.store.replica_paths import path_taken
from arriero.registry.store.rses import Rse, load_rses, protocols_of
from arriero.registry.store.staging import known_files, stage, staged_files
from arriero.registry.store.subscription_items import note_files_between, note_staged_files


@dataclass(frozen=True, slots=True)
class StateChange:
    """What a client says about a replica that is registered."""

    scope: str
    name: str
    state: ReplicaState
    reason: str | None = None


def add_replicas(context: Context, actor: Actor, rse: str, files: Sequence[NewReplica]) -> None:
    """Register files at an RSE; files that the catalogue does not know are added. All of them, or none.

    Registering the same again changes nothing.

    Raises
    ------
    NotFound
        The RSE or a scope is not there.
    Conflict
        A file has another size or checksum in the catalogue, or its replica there is BAD, being deleted, or has
        another path.
    InvalidInput
        A name, size, checksum or PFN cannot be meant.
    """
    noted = context.database.run(lambda connection: register_within(connection, context, actor, rse, files))
    context.doorbell.ring(Bell.EVALUATIONS)
    if noted:
        context.doorbell.ring(Bell.SUBSCRIPTIONS)


def register_within(
    connection: Connection, context: Context, actor: Actor, rse_name: str, files: Sequence[NewReplica]
) -> bool:
    """Do what `add_replicas` does within a transaction that has begun; ring the bells after the commit.

    Returns
    -------
    bool
        Whether subscriptions have to look at the files.
    """
    if len(files) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} files in one call")
    require_rse(connection, rse_name, hold=True)
    rse = load_rses(connection, [rse_name])[rse_name]
    scopes = require_scopes(connection, (file.scope for file in files))
    denied = _authorize(actor, rse_name, files, scopes)
    protocols = [] if all(file.pfn is None for file in files) else protocols_of(connection, [rse.id])[rse.id]
    rows = rows_of(rse, protocols, files, scopes)
    new = None if denied else store.add_new_files(connection, actor.account_id, rse.id, rows)
    if new is not None:
        # nobody can have a lock on what was not there
        record_arrivals(connection, store.landed_new(rse.id, new))
        added = len(rows)
        noted = note_files_between(connection, new)
    else:
        added = _register_known(connection, actor, rse, rows, denied)
        # metadata may come to files that were known without any
        noted = (added > 0 or any(file.meta for file in files)) and note_staged_files(connection)
    first = f"{files[0].scope}:{files[0].name}" if files else ""
    audit.record(
        connection, actor, Action.REPLICA_ADD, first, rse=rse_name, count=len(files), new_files=added
    )
    return noted


def _register_known(
    connection: Connection,
    actor: Actor,
    rse: Rse,
    rows: Sequence[store.NewFileRow],
    denied: Mapping[str, Denied],
) -> int:
    """Register files of which the catalogue may know some; give how many it did not."""
    store.stage_new_files(connection, rows)
    if denied:
        for name in store.new_file_scopes(connection):
            if name in denied:
                raise denied[name]
    new = store.insert_files(connection, actor.account_id)
    if new < len(rows):
        _refuse_other_files(connection)
        store.learn_checksums(connection)
    _refuse_taken_paths(connection, rse)
    store.lock_rules_waiting(connection, rse.id)
    if new < len(rows):
        recover_staged_files(connection, rse.id, proven=True)
    store.insert_replicas(connection, rse.id)
    fault = store.replica_fault(connection, rse.id) if new < len(rows) else None
    if fault is not None:
        where = f" at {fault['path'][:200]}" if fault["path"] is not None else ""
        raise Conflict(
            f"the replica of {fault['scope']}:{fault['name'][:200]} at {rse.name} is {fault['state']}{where}: "
            "it cannot be declared anew until that is settled",
            rucio_class="FileReplicaAlreadyExists",
        )
    store.insert_metadata(connection)
    record_arrivals(connection, store.landed(rse.id))
    look_at_files(connection, store.locks_waiting(rse.id))
    return new


def _authorize(
    actor: Actor, rse: str, files: Sequence[NewReplica], scopes: Mapping[str, did_store.Scope]
) -> dict[str, Denied]:
    first = {file.scope: file.name for file in reversed(files)}
    denied: dict[str, Denied] = {}
    for scope in scopes.values():
        target = Target(f"{scope.name}:{first[scope.name]}", owner=scope.owner, rse=rse)
        authorize(actor, Action.REPLICA_ADD, target)
        try:
            authorize(actor, Action.DID_ADD, Target(target.name, owner=scope.owner))
        except Denied as error:
            denied[scope.name] = error
    return denied


def _refuse_other_files(connection: Connection) -> None:
    fault = store.file_fault(connection)
    if fault is None:
        return
    shown = f"{fault['scope']}:{fault['name'][:200]}"
    if fault["type"] is not DidType.FILE:
        raise Conflict(
            f"{shown} is a {fault['type'].lower()}: give the file another name",
            rucio_class="DataIdentifierAlreadyExists",
        )
    for what in ("bytes", "adler32", "md5"):
        said, known = fault[f"said_{what}"], fault[what]
        if said is not None and known is not None and said != known:
            raise Conflict(
                f"{shown}: {what} is {known} in the catalogue, and {said} was sent; a changed file needs a new name",
                rucio_class="FileConsistencyMismatch",
                code="file_consistency_mismatch",
            )


def _refuse_taken_paths(connection: Connection, rse: Rse) -> None:
    if follows_from_name(rse):
        return
    taken = path_taken(connection, rse.id)
    if taken is not None:
        raise Conflict(
            f"{taken['path'][:200]} at {rse.name} is the replica of another file (scope {taken['scope']})",
            rucio_class="FileReplicaAlreadyExists",
        )


def update_states(context: Context, actor: Actor, rse: str, changes: Sequence[StateChange]) -> None:
    """Change the states of replicas, all of them or none.

    A client that announced them says that they are there, or are not to come; somebody says that one is bad, is good
    again, or is not to be had until further notice.

    Raises
    ------
    NotFound
        A replica is not there.
    Conflict
        It is in a state that cannot be changed like this.
    Unsupported
        States that only Arriero itself sets.
    """
    if len(changes) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} replicas in one call")
    for change in changes:
        if change.state in (ReplicaState.COPYING, ReplicaState.BEING_DELETED):
            raise Unsupported(
                f"only Arriero itself has replicas {change.state}: a rule asks for a copy or its end"
            )
    bad = [change for change in changes if change.state is ReplicaState.BAD]
    others = [change for change in changes if change.state is not ReplicaState.BAD]

    def work(connection: Connection) -> None:
        row = require_rse(connection, rse)
        scopes = require_scopes(connection, (change.scope for change in changes))
        for scope in scopes.values():
            authorize(actor, Action.REPLICA_UPDATE, Target(f"{scope.name}@{rse}", owner=scope.owner, rse=rse))
        if bad:
            _declare_bad(connection, actor, rse, bad)
        if others:
            _change_states(connection, row["id"], rse, others, scopes)
        first = f"{changes[0].scope}:{changes[0].name}" if changes else ""
        audit.record(connection, actor, Action.REPLICA_UPDATE, first, rse=rse, count=len(changes))

    bad_replicas.retried(context, work)
    context.doorbell.ring(Bell.EVALUATIONS)


def _declare_bad(connection: Connection, actor: Actor, rse: str, changes: Sequence[StateChange]) -> None:
    """Declare replicas bad as one incident, for all reasons that are given."""
    reasons = dict.fromkeys(change.reason for change in changes if change.reason)
    reason = "; ".join(reasons)[: bad_replicas.MAX_REASON_CHARACTERS] or None
    said = bad_replicas.Declaration(BadReplicaState.BAD, reason)
    named = [bad_replicas.Named(change.scope, change.name, rse) for change in changes]
    for one, fault in bad_replicas.declare_within(connection, actor, named, said):
        if fault == bad_replicas.ALREADY:
            continue
        shown = f"{one.scope}:{one.name[:200]} at {rse}"
        if fault == bad_replicas.NO_REPLICA:
            raise _no_replica(shown)
        raise Conflict(
            f"the replica of {shown} {fault} and cannot be declared BAD", rucio_class="UnsupportedOperation"
        )


def _no_replica(shown: str) -> NotFound:
    return NotFound(f"there is no replica of {shown}", rucio_class="ReplicaNotFound")


def _change_states(
    connection: Connection,
    rse_id: int,
    rse: str,
    changes: Sequence[StateChange],
    scopes: Mapping[str, did_store.Scope],
) -> None:
    rows = sorted(
        {
            (scopes[change.scope].id, change.name): (change.state.value, (change.reason or "")[:2000] or None)
            for change in changes
        }.items()
    )
    stage(
        connection,
        staged_files,
        ["scope_id", "name", "state", "reason"],
        ((*key, *values) for key, values in rows),
    )
    store.resolve_files(connection)
    store.lock_rules_waiting(connection, rse_id)
    for fault in store.staged_states(connection, rse_id):
        shown = f"{fault['scope']}:{fault['name'][:200]} at {rse}"
        if fault["state"] is None:
            raise _no_replica(shown)
        raise Conflict(
            f"the replica of {shown} is {fault['state']} and cannot be declared {fault['wanted']}",
            rucio_class="UnsupportedOperation",
        )
    recover_staged_files(connection, rse_id, proven=False)
    store.set_states(connection, rse_id)
    record_arrivals(connection, store.landed(rse_id), anew=True)
    if any(change.state is ReplicaState.UNAVAILABLE for change in changes):
        # it may have been the last hope for a file
        losses.note(connection, known_files())
    look_at_files(connection, store.locks_waiting(rse_id))
