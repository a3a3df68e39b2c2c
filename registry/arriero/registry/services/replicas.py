"""Replicas: registering files where they lie, and what clients say of their states.

A file is registered with the size and the checksums that the client gives; once the catalogue has them, nothing may
say otherwise. What a client declares is believed as a source and proves nothing: ``verified_at`` stays empty
(DESIGN 4.7). The number of statements does not depend on the number of files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import Conflict, InvalidInput, NotFound, Unsupported
from arriero.registry.ports import Bell
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Denied, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_scopes
from arriero.registry.services.metadata import encode
from arriero.registry.services.names import check_did_name
from arriero.registry.services.pfns import path_from_pfn
from arriero.registry.services.rses import require_rse
from arriero.registry.states import DidType, ReplicaState
from arriero.registry.store import dids as did_store
from arriero.registry.store import replicas as store
from arriero.registry.store.arrivals import record_arrivals
from arriero.registry.store.evaluations import raise_evaluations
from arriero.registry.store.rses import Rse, load_rses, protocols_of
from arriero.registry.store.staging import stage, staged_files
from arriero.rse.checksum import canonical_adler32, canonical_md5
from arriero.rse.lfn2pfn import path_for

MAX_FILE_BYTES = 2**62

_DECLARED = frozenset({ReplicaState.AVAILABLE, ReplicaState.COPYING, ReplicaState.UNAVAILABLE})
_ONE_TO_ONE = frozenset({"hash", "identity"})
"""Algorithms that give no two DIDs one path."""


@dataclass(frozen=True, slots=True)
class NewReplica:
    """A file at an RSE, as a client declares it."""

    scope: str
    name: str
    bytes: int | None
    adler32: str | None = None
    md5: str | None = None
    state: ReplicaState = ReplicaState.AVAILABLE
    pfn: str | None = None
    meta: Mapping[str, Any] | None = None


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
        A file has another size or checksum in the catalogue, or its replica there is BAD or being deleted.
    InvalidInput
        A name, size, checksum or PFN cannot be meant.
    """
    context.database.run(lambda connection: register_within(connection, context, actor, rse, files))
    context.doorbell.ring(Bell.EVALUATIONS)


def register_within(
    connection: Connection, context: Context, actor: Actor, rse_name: str, files: Sequence[NewReplica]
) -> None:
    """Do what `add_replicas` does within a transaction that has begun; ring the bell after the commit."""
    if len(files) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} files in one call")
    require_rse(connection, rse_name)
    rse = load_rses(connection, [rse_name])[rse_name]
    scopes = require_scopes(connection, (file.scope for file in files))
    denied = _authorize(actor, rse_name, files, scopes)
    columns = ["scope_id", "name", "bytes", "adler32", "md5", "spread", "state", "path", "meta"]
    stage(connection, staged_files, columns, _rows(connection, rse, files, scopes))
    if denied:
        for name in store.new_file_scopes(connection):
            if name in denied:
                raise denied[name]
    new = store.insert_files(connection, actor.account_id)
    if new < len(files):
        _refuse_other_files(connection)
        store.learn_checksums(connection)
    _refuse_taken_paths(connection, rse)
    waiting = store.lock_rules_waiting(connection, rse.id)
    store.insert_replicas(connection, rse.id)
    fault = store.replica_fault(connection, rse.id) if new < len(files) else None
    if fault is not None:
        raise Conflict(
            f"the replica of {fault['scope']}:{fault['name'][:200]} at {rse_name} is {fault['state']}: "
            "it cannot be declared anew until that is settled",
            rucio_class="FileReplicaAlreadyExists",
        )
    if any(file.meta for file in files):
        store.insert_metadata(connection)
    record_arrivals(connection, store.landed(rse.id))
    raise_evaluations(connection, waiting)
    first = f"{files[0].scope}:{files[0].name}" if files else ""
    audit.record(connection, actor, Action.REPLICA_ADD, first, rse=rse_name, count=len(files), new_files=new)


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


Row = tuple[int, str, int, str | None, str | None, int, str, str | None, str | None]


def _rows(
    connection: Connection, rse: Rse, files: Sequence[NewReplica], scopes: Mapping[str, did_store.Scope]
) -> list[Row]:
    protocols = [] if all(file.pfn is None for file in files) else protocols_of(connection, [rse.id])[rse.id]
    rows: dict[tuple[int, str], Row] = {}
    for file in files:
        scope_id = scopes[file.scope].id
        row = _row(rse, protocols, file, scope_id)
        if rows.setdefault((scope_id, file.name), row) != row:
            raise InvalidInput(f"{file.scope}:{file.name[:200]} is sent twice, with different values")
    return [rows[key] for key in sorted(rows)]


def _row(rse: Rse, protocols: Sequence[RowMapping], file: NewReplica, scope_id: int) -> Row:
    check_did_name(file.name)
    if file.bytes is None or not 0 <= file.bytes <= MAX_FILE_BYTES:
        raise InvalidInput(f"{file.scope}:{file.name[:200]}: bytes is a number from 0")
    if file.state not in _DECLARED:
        raise InvalidInput(f"a new replica is AVAILABLE, COPYING or UNAVAILABLE, not {file.state}")
    try:
        adler32 = canonical_adler32(file.adler32) if file.adler32 else None
        md5 = canonical_md5(file.md5) if file.md5 else None
    except ValueError as error:
        raise InvalidInput(f"{file.scope}:{file.name[:200]}: {error}") from error
    return (
        scope_id,
        file.name,
        file.bytes,
        adler32,
        md5,
        did_store.spread_of(file.scope, file.name),
        file.state.value,
        _path(rse, protocols, file),
        encode(file.meta) if file.meta else None,
    )


def _path(rse: Rse, protocols: Sequence[RowMapping], file: NewReplica) -> str | None:
    """Path to store: None where it follows from the name and can be nobody else's."""
    if rse.deterministic:
        path = path_for(rse.algorithm, file.scope, file.name)
        if file.pfn is not None and path_from_pfn(rse.name, protocols, file.pfn) != path:
            raise InvalidInput(
                f"{file.scope}:{file.name[:200]}: the PFN is not where {rse.name} keeps this file ({path[:200]})",
                rucio_class="InvalidPath",
            )
        return None if rse.algorithm in _ONE_TO_ONE else path
    if file.pfn is None:
        raise InvalidInput(
            f"{rse.name} is not deterministic: give the PFN of {file.scope}:{file.name[:200]}",
            rucio_class="UnsupportedOperation",
        )
    return path_from_pfn(rse.name, protocols, file.pfn)


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
    if rse.deterministic and rse.algorithm in _ONE_TO_ONE:
        return
    taken = store.path_taken(connection, rse.id)
    if taken is not None:
        raise Conflict(
            f"{taken['path'][:200]} at {rse.name} is the replica of another file (scope {taken['scope']})",
            rucio_class="FileReplicaAlreadyExists",
        )


def update_states(context: Context, actor: Actor, rse: str, changes: Sequence[StateChange]) -> None:
    """Change the states of replicas: a client that announced them says that they are there, or are not to come.

    Raises
    ------
    NotFound
        A replica is not there.
    Conflict
        It is in a state that a client cannot change like this.
    Unsupported
        States that only Arriero itself sets.
    """
    if len(changes) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} replicas in one call")
    for change in changes:
        if change.state not in (ReplicaState.AVAILABLE, ReplicaState.UNAVAILABLE):
            raise Unsupported(f"replicas cannot be set {change.state} by hand in Arriero yet")

    def work(connection: Connection) -> None:
        row = require_rse(connection, rse)
        scopes = require_scopes(connection, (change.scope for change in changes))
        rows = [
            (scopes[change.scope].id, change.name, change.state.value, (change.reason or "")[:2000] or None)
            for change in changes
        ]
        for scope in scopes.values():
            authorize(actor, Action.REPLICA_UPDATE, Target(f"{scope.name}@{rse}", owner=scope.owner, rse=rse))
        rows.sort(key=lambda one: one[:2])
        stage(connection, staged_files, ["scope_id", "name", "state", "reason"], rows)
        store.resolve_files(connection)
        waiting = store.lock_rules_waiting(connection, row["id"])
        for fault in store.staged_states(connection, row["id"]):
            shown = f"{fault['scope']}:{fault['name'][:200]} at {rse}"
            if fault["state"] is None:
                raise NotFound(f"there is no replica of {shown}", rucio_class="ReplicaNotFound")
            raise Conflict(
                f"the replica of {shown} is {fault['state']} and cannot be declared {fault['wanted']}",
                rucio_class="UnsupportedOperation",
            )
        store.set_states(connection, row["id"])
        record_arrivals(connection, store.landed(row["id"]))
        raise_evaluations(connection, waiting)
        first = f"{changes[0].scope}:{changes[0].name}" if changes else ""
        audit.record(connection, actor, Action.REPLICA_UPDATE, first, rse=rse, count=len(changes))

    context.database.run(work)
    context.doorbell.ring(Bell.EVALUATIONS)
