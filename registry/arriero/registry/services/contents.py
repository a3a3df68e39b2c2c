"""Attaching and detaching: what it must not break, and whom it has to wake.

The rows of the parents are locked, those of everything above them are held, and those of children that are
collections are locked too, so that no rule that is added at the same time anywhere above can miss the change, and no
change can miss it (reliability: attach during rule creation).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import Busy, Conflict, InvalidInput, NotFound
from arriero.registry.ports import Bell
from arriero.registry.services import audit, replicas
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import did_missing
from arriero.registry.services.new_replicas import NewReplica
from arriero.registry.states import DidType
from arriero.registry.store import attachments as attachment_store
from arriero.registry.store import contents as store
from arriero.registry.store import dids as did_store
from arriero.registry.store.evaluations import look_at_contents
from arriero.registry.store.staging import stage, staged_children
from arriero.registry.unsupported import ARCHIVES
from arriero.rse.checksum import canonical_adler32, canonical_md5


@dataclass(frozen=True, slots=True)
class Child:
    """A DID to attach or detach; what is said of a file's size and checksums has to be true."""

    scope: str
    name: str
    bytes: int | None = None
    adler32: str | None = None
    md5: str | None = None
    meta: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """Children of one parent; with an RSE, their replicas there are registered first."""

    scope: str
    name: str
    children: Sequence[Child]
    rse: str | None = None


def attach(
    context: Context, actor: Actor, attachments: Sequence[Attachment], *, ignore_duplicate: bool = False
) -> None:
    """Attach DIDs to datasets and containers; all of them, or none.

    Parameters
    ----------
    ignore_duplicate
        Pass over what is attached already.

    Raises
    ------
    NotFound
        A parent or child is not there.
    Conflict
        A parent is closed or a file, a child is of the wrong type or is attached already, a circle would come about,
        or what is said of a file is not what the catalogue has.
    """
    context.database.run(
        lambda connection: attach_within(
            connection, context, actor, attachments, ignore_duplicate=ignore_duplicate
        )
    )
    context.doorbell.ring(Bell.EVALUATIONS)
    if any(attachment.rse is not None for attachment in attachments):
        context.doorbell.ring(Bell.SUBSCRIPTIONS)


def attach_within(
    connection: Connection,
    context: Context,
    actor: Actor,
    attachments: Sequence[Attachment],
    *,
    ignore_duplicate: bool,
) -> None:
    """Do what `attach` does within a transaction that has begun; ring the bell after the commit."""
    _check_number(context, attachments)
    with_replicas = [attachment for attachment in attachments if attachment.rse is not None]
    if with_replicas:
        _register(connection, context, actor, with_replicas)
    parents = _stage(connection, actor, Action.DID_ATTACH, attachments)
    parent_ids = [row["id"] for row in parents.values()]
    lock_around(connection, parent_ids, attachment_store.staged_collection_ids(connection))
    for row in _current(connection, parents).values():
        _check_parent(row)
    _refuse_faults(connection)
    if ignore_duplicate:
        attachment_store.pass_over_attached(connection)
    else:
        _refuse_attached(connection)
    attached = attachment_store.attach_staged(connection)
    if attachment_store.staged_collection_ids(connection) and attachment_store.is_circular(
        connection, parent_ids
    ):
        raise Conflict(
            "this would make a collection hold itself: circular attachment",
            rucio_class="UnsupportedOperation",
        )
    if attached:
        look_at_contents(connection, parent_ids, attachment_store.staged_pairs())
    first = f"{attachments[0].scope}:{attachments[0].name}" if attachments else ""
    audit.record(connection, actor, Action.DID_ATTACH, first, parents=len(parents), attached=attached)


def _register(
    connection: Connection, context: Context, actor: Actor, attachments: Sequence[Attachment]
) -> None:
    # collections are locked before files, everywhere
    keys = [(attachment.scope, attachment.name) for attachment in attachments]
    lock_around(connection, [row["id"] for row in did_store.find_dids(connection, keys).values()])
    by_rse: dict[str, list[NewReplica]] = {}
    for attachment in attachments:
        files = by_rse.setdefault(attachment.rse or "", [])
        files += [
            NewReplica(child.scope, child.name, child.bytes, child.adler32, child.md5, meta=child.meta)
            for child in attachment.children
        ]
    for rse, files in sorted(by_rse.items()):
        replicas.register_within(connection, context, actor, rse, files)


def detach(context: Context, actor: Actor, scope: str, name: str, children: Sequence[Child]) -> None:
    """Detach DIDs from a dataset or container; all of them, or none.

    Raises
    ------
    NotFound
        The parent is not there, or does not hold one of them.
    Conflict
        The parent is monotonic.
    """
    attachment = Attachment(scope, name, children)
    _check_number(context, [attachment])

    def work(connection: Connection) -> None:
        parents = _stage(connection, actor, Action.DID_DETACH, [attachment])
        parent_ids = [row["id"] for row in parents.values()]
        lock_around(connection, parent_ids)
        for row in _current(connection, parents).values():
            if row["monotonic"]:
                raise Conflict(
                    f"{scope}:{name} is monotonic: nothing can be detached",
                    rucio_class="UnsupportedOperation",
                )
        absent = attachment_store.staged_presence(connection, attached=False)
        if absent is not None:
            raise NotFound(
                f"{absent['scope']}:{absent['name'][:200]} is not attached to {scope}:{name}",
                rucio_class="DataIdentifierNotFound",
            )
        detached = attachment_store.detach_staged(connection)
        look_at_contents(connection, parent_ids, attachment_store.staged_pairs())
        audit.record(connection, actor, Action.DID_DETACH, f"{scope}:{name}", detached=detached)

    context.database.run(work)
    context.doorbell.ring(Bell.EVALUATIONS)


def _check_number(context: Context, attachments: Sequence[Attachment]) -> None:
    if sum(len(attachment.children) for attachment in attachments) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} DIDs in one call")


Parents = dict[tuple[str, str], RowMapping]


def _stage(
    connection: Connection, actor: Actor, action: Action, attachments: Sequence[Attachment]
) -> Parents:
    keys = [(attachment.scope, attachment.name) for attachment in attachments]
    parents = did_store.find_dids(connection, keys)
    names = {child.scope for attachment in attachments for child in attachment.children}
    scopes = did_store.scopes_by_name(connection, names | {scope for scope, _ in keys})
    for scope, name in keys:
        if scope in scopes:
            authorize(actor, action, Target(f"{scope}:{name}", owner=scopes[scope].owner))
        if (scope, name) not in parents:
            raise did_missing(scope, name)
    rows = []
    for attachment in attachments:
        parent_id = parents[attachment.scope, attachment.name]["id"]
        for child in attachment.children:
            if child.scope not in scopes:
                raise did_missing(child.scope, child.name)
            rows.append((parent_id, scopes[child.scope].id, child.name, child.bytes, *_checksums(child)))
    rows.sort(key=lambda row: (row[0], row[1], row[2]))
    stage(
        connection,
        staged_children,
        ["parent_id", "scope_id", "name", "bytes", "adler32", "md5"],
        rows,
    )
    attachment_store.resolve_children(connection)
    return parents


def _checksums(child: Child) -> tuple[str | None, str | None]:
    try:
        return (
            canonical_adler32(child.adler32) if child.adler32 else None,
            canonical_md5(child.md5) if child.md5 else None,
        )
    except ValueError as error:
        raise InvalidInput(f"{child.scope[:40]}:{child.name[:200]}: {error}") from error


def lock_around(
    connection: Connection, parent_ids: Sequence[int], collections: frozenset[int] = frozenset()
) -> None:
    """Lock collections whose contents change, and hold what stands above them as it is.

    Parameters
    ----------
    parent_ids
        What is changed.
    collections
        Collections that are attached to it.

    Raises
    ------
    Busy
        What stands above keeps changing.
    """
    changed = frozenset(parent_ids) | collections
    for _ in range(4):
        above = store.ancestor_ids(connection, parent_ids) - changed
        did_store.lock_dids(connection, above, shared=True)
        did_store.lock_dids(connection, changed)
        # somebody may have hung the parents elsewhere before the locks were there
        if store.ancestor_ids(connection, parent_ids) - changed <= above:
            return
    raise Busy("what holds this collection keeps changing: try again")


def _current(connection: Connection, parents: Parents) -> Parents:
    """Give the parents as they are now that they are locked: one may have been erased before the lock was there."""
    current = did_store.find_dids(connection, parents)
    for (scope, name), row in parents.items():
        if (scope, name) not in current or current[scope, name]["id"] != row["id"]:
            raise did_missing(scope, name)
    return current


def _check_parent(row: RowMapping) -> None:
    shown = f"{row['scope']}:{row['name']}"
    if row["type"] is DidType.FILE:
        raise Conflict(f"{shown} is a file: {ARCHIVES}", rucio_class="UnsupportedOperation")
    if not row["is_open"]:
        raise Conflict(f"{shown} is closed: nothing can be attached", rucio_class="UnsupportedOperation")


def _refuse_faults(connection: Connection) -> None:
    fault = attachment_store.staged_fault(connection)
    if fault is None:
        return
    shown = f"{fault['scope']}:{fault['name'][:200]}"
    if fault["type"] is None:
        raise did_missing(fault["scope"], fault["name"])
    if fault["type"] is not DidType.FILE or fault["parent_type"] is not DidType.DATASET:
        raise Conflict(
            f"{shown} is a {fault['type'].lower()} and cannot be attached to a {fault['parent_type'].lower()}: "
            "datasets hold files, containers hold datasets and containers",
            rucio_class="UnsupportedOperation",
        )
    for what in ("bytes", "adler32", "md5"):
        said, known = fault[f"said_{what}"], fault[what]
        if said is not None and known is not None and said != known:
            raise Conflict(
                f"{shown}: {what} is {known} in the catalogue, and {said} was sent",
                rucio_class="FileConsistencyMismatch",
                code="file_consistency_mismatch",
            )


def _refuse_attached(connection: Connection) -> None:
    present = attachment_store.staged_presence(connection, attached=True)
    if present is None:
        return
    is_file = present["type"] is DidType.FILE
    raise Conflict(
        f"{present['scope']}:{present['name'][:200]} is attached already",
        rucio_class="FileAlreadyExists" if is_file else "DuplicateContent",
    )
