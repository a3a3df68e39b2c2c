"""Data identifiers: adding collections, describing them, closing them. Finding them is `did_lists`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, InvalidInput
from arriero.registry.ports import Bell
from arriero.registry.services import audit, contents, metadata, rules
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import did_missing, require_did, require_scopes
from arriero.registry.services.names import check_did_name
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.states import DidType
from arriero.registry.store import contents as tree
from arriero.registry.store import dids as store
from arriero.registry.store import notifications
from arriero.registry.store.did_sets import insert_staged, stage_dids
from arriero.registry.store.losses import file_is_lost
from arriero.registry.store.metadata import merge_staged_metadata
from arriero.registry.store.subscription_items import note_dids, note_staged_dids


@dataclass(frozen=True, slots=True)
class NewCollection:
    """A dataset or container to add, with what Rucio lets come with it."""

    scope: str
    name: str
    type: str
    monotonic: bool = False
    lifetime_s: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    children: Sequence[contents.Child] = ()
    rse: str | None = None
    rules: Sequence[RuleSpec] = ()


def add_collections(context: Context, actor: Actor, new: Sequence[NewCollection]) -> None:
    """Add datasets and containers; all of them, or none.

    Raises
    ------
    Conflict
        One is there already.
    NotFound
        A scope, or a DID that should be attached, is not there.
    InvalidInput
        A name or type cannot be meant.
    """
    if len(new) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} DIDs in one call")

    def work(connection: Connection) -> bool:
        return add_within(connection, context, actor, new)

    try:
        noted = context.database.run(work)
    except IntegrityError as error:
        with context.database.snapshot() as connection:
            found = store.find_dids(connection, [(one.scope, one.name) for one in new])
        raise _already_there(found) from error
    if any(one.rules or one.children for one in new):
        context.doorbell.ring(Bell.EVALUATIONS)
    if noted:
        context.doorbell.ring(Bell.SUBSCRIPTIONS)


def _check_collection_type(did_type: str) -> None:
    if did_type == DidType.FILE:
        raise InvalidInput(
            "files are added with their replicas: POST /replicas", rucio_class="UnsupportedOperation"
        )
    if did_type not in (DidType.DATASET, DidType.CONTAINER):
        raise InvalidInput("type is DATASET or CONTAINER", rucio_class="UnsupportedDIDType")


def _already_there(found: Mapping[tuple[str, str], Any]) -> Conflict:
    scope, name = next(iter(found), ("", ""))
    return Conflict(f"there is a DID {scope}:{name[:200]} already", rucio_class="DataIdentifierAlreadyExists")


def add_within(connection: Connection, context: Context, actor: Actor, new: Sequence[NewCollection]) -> bool:
    """Do what `add_collections` does within a transaction that has begun; ring the bells after the commit.

    Returns
    -------
    bool
        Whether subscriptions have to look at them.
    """
    for one in new:
        check_did_name(one.name)
        _check_collection_type(one.type)
    if len({(one.scope, one.name) for one in new}) != len(new):
        raise Conflict("a DID is named twice in this call", rucio_class="DataIdentifierAlreadyExists")
    scopes = require_scopes(connection, [one.scope for one in new])
    for name, scope in scopes.items():
        authorize(actor, Action.DID_ADD, Target(name, owner=scope.owner))
    found = store.find_dids(connection, [(one.scope, one.name) for one in new])
    if found:
        raise _already_there(found)
    stage_dids(
        connection,
        ["scope_id", "name", "type", "monotonic", "spread", "meta", "lifetime_s"],
        [
            (
                scopes[one.scope].id,
                one.name,
                DidType(one.type).value,
                one.monotonic,
                store.spread_of(one.scope, one.name),
                metadata.encode(one.meta) if one.meta else None,
                one.lifetime_s,
            )
            for one in new
        ],
    )
    insert_staged(connection, actor.account_id)
    merge_staged_metadata(connection)
    noted = note_staged_dids(connection)
    attachments = [
        contents.Attachment(one.scope, one.name, one.children, one.rse) for one in new if one.children
    ]
    if attachments:
        contents.attach_within(connection, context, actor, attachments, ignore_duplicate=True)
    _add_rules(connection, actor, new)
    first = f"{new[0].scope}:{new[0].name}"
    audit.record(connection, actor, Action.DID_ADD, first, count=len(new))
    return noted


def _add_rules(connection: Connection, actor: Actor, new: Sequence[NewCollection]) -> None:
    # the same rule for many of them is asked for once
    wanted: list[tuple[RuleSpec, list[tuple[str, str]]]] = []
    for one in new:
        for spec in one.rules:
            same = next((dids for other, dids in wanted if other == spec), None)
            if same is None:
                wanted.append((spec, [(one.scope, one.name)]))
            else:
                same.append((one.scope, one.name))
    for spec, dids in wanted:
        rules.add_within(connection, actor, spec, dids)


def get_did(context: Context, scope: str, name: str, *, with_totals: bool = False) -> dict[str, Any]:
    """Describe a DID in Rucio's shape.

    Parameters
    ----------
    with_totals
        Count files and bytes of a collection, at any depth; otherwise they are None.
    """
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        if row["type"] is DidType.FILE:
            lost = file_is_lost(connection, row["id"])
            described = {
                "scope": scope,
                "name": name,
                "type": row["type"],
                "account": row["account"],
                "bytes": row["bytes"],
                "length": 1,
                "md5": row["md5"],
                "adler32": row["adler32"],
            }
            # Rucio's word, in its answers about metadata; here only where there is something to say
            return {**described, "availability": "LOST"} if lost else described
        length, size = tree.totals_below(connection, row["id"]) if with_totals else (None, None)
    return {
        "scope": scope,
        "name": name,
        "type": row["type"],
        "account": row["account"],
        "open": row["is_open"],
        "monotonic": row["monotonic"],
        "expired_at": row["expired_at"],
        "length": length,
        "bytes": size,
    }


def set_status(context: Context, actor: Actor, scope: str, name: str, *, is_open: bool) -> None:
    """Open or close a dataset or container; closing writes an event.

    Raises
    ------
    Conflict
        It is so already, or the DID is a file.
    """

    def work(connection: Connection) -> bool:
        owners = store.scopes_by_name(connection, [scope])
        if scope not in owners:
            raise did_missing(scope, name)
        owner = owners[scope].owner
        action = Action.DID_REOPEN if is_open else Action.DID_CLOSE
        authorize(actor, action, Target(f"{scope}:{name}", owner=owner))
        row = require_did(connection, scope, name)
        store.lock_dids(connection, [row["id"]])
        row = require_did(connection, scope, name)
        if row["type"] is DidType.FILE:
            raise Conflict("a file is neither open nor closed", rucio_class="UnsupportedOperation")
        if row["is_open"] is is_open:
            raise Conflict(
                f"{scope}:{name} is {'open' if is_open else 'closed'} already",
                rucio_class="UnsupportedOperation",
            )
        store.set_open(connection, row["id"], is_open=is_open)
        length, size = tree.totals_below(connection, row["id"])
        payload = {"scope": scope, "name": name, "account": row["account"], "length": length, "bytes": size}
        event = "OPEN" if is_open else "CLOSE"
        store.append_event(connection, event, f"{scope}:{name}", payload)
        if not is_open:
            notifications.tell_closed(connection, row["id"], row["type"])
        audit.record(connection, actor, action, f"{scope}:{name}")
        return not is_open and note_dids(connection, [row["id"]])

    if context.database.run(work):
        context.doorbell.ring(Bell.SUBSCRIPTIONS)
