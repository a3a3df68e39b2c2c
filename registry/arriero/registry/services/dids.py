"""Data identifiers: adding collections, describing and finding them, closing them."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, InvalidInput, Unsupported
from arriero.registry.ports import Bell
from arriero.registry.services import audit, contents, metadata, rules
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_did, require_dids, require_scopes
from arriero.registry.services.names import check_did_name
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.states import DidType
from arriero.registry.store import contents as tree
from arriero.registry.store import dids as store
from arriero.registry.store.streaming import streamed

_SEARCH_TYPES = {
    "all": tuple(DidType),
    "collection": (DidType.DATASET, DidType.CONTAINER),
    "dataset": (DidType.DATASET,),
    "container": (DidType.CONTAINER,),
    "file": (DidType.FILE,),
}
MAX_FILTER_CHARACTERS = 10_000


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
    for one in new:
        check_did_name(one.name)
        _check_collection_type(one.type)
    if len({(one.scope, one.name) for one in new}) != len(new):
        raise Conflict("a DID is named twice in this call", rucio_class="DataIdentifierAlreadyExists")

    def work(connection: Connection) -> None:
        _insert(connection, context, actor, new)

    try:
        context.database.run(work)
    except IntegrityError as error:
        with context.database.snapshot() as connection:
            found = store.find_dids(connection, [(one.scope, one.name) for one in new])
        raise _already_there(found) from error
    if any(one.rules or one.children for one in new):
        context.doorbell.ring(Bell.EVALUATIONS)


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


def _insert(connection: Connection, context: Context, actor: Actor, new: Sequence[NewCollection]) -> None:
    keys = [(one.scope, one.name) for one in new]
    scopes = require_scopes(connection, [one.scope for one in new])
    for name, scope in scopes.items():
        authorize(actor, Action.DID_ADD, Target(name, owner=scope.owner))
    found = store.find_dids(connection, keys)
    if found:
        raise _already_there(found)
    store.insert_collections(
        connection,
        [
            {
                "scope_id": scopes[one.scope].id,
                "name": one.name,
                "type": DidType(one.type),
                "account_id": actor.account_id,
                "is_open": True,
                "monotonic": one.monotonic,
                "spread": store.spread_of(one.scope, one.name),
            }
            for one in new
        ],
    )
    extras = [one for one in new if one.meta or one.lifetime_s is not None or one.children or one.rules]
    if extras:
        _add_extras(connection, context, actor, extras)
    first = f"{new[0].scope}:{new[0].name}"
    audit.record(connection, actor, Action.DID_ADD, first, count=len(new))


def _add_extras(
    connection: Connection, context: Context, actor: Actor, extras: Sequence[NewCollection]
) -> None:
    rows = store.find_dids(connection, [(one.scope, one.name) for one in extras])
    metadata.merge(connection, {rows[one.scope, one.name]["id"]: one.meta for one in extras if one.meta})
    for one in extras:
        if one.lifetime_s is not None:
            store.set_lifetime(connection, rows[one.scope, one.name]["id"], one.lifetime_s)
    attachments = [
        contents.Attachment(one.scope, one.name, one.children, one.rse) for one in extras if one.children
    ]
    if attachments:
        contents.attach_within(connection, context, actor, attachments, ignore_duplicate=True)
    for one in extras:
        for spec in one.rules:
            rules.add_within(connection, actor, spec, [(one.scope, one.name)])


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
            return {
                "scope": scope,
                "name": name,
                "type": row["type"],
                "account": row["account"],
                "bytes": row["bytes"],
                "length": 1,
                "md5": row["md5"],
                "adler32": row["adler32"],
            }
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


def list_content(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """List what a collection holds directly."""
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        with streamed(connection, tree.children_of(row["id"])) as children:
            for child in children:
                yield dict(child)


def list_files(
    context: Context, dids: Sequence[tuple[str, str]], *, with_parent: bool = False
) -> Iterator[dict[str, Any]]:
    """List the files that DIDs are or hold, at any depth; each once for each DID.

    Parameters
    ----------
    with_parent
        Say below which of ``dids`` each file was found.
    """
    with context.database.snapshot() as connection:
        found = require_dids(connection, dids)
        for scope, name in dids:
            with streamed(connection, tree.files_below([found[scope, name]["id"]])) as files:
                for file in files:
                    yield {
                        **({"parent_scope": scope, "parent_name": name} if with_parent else {}),
                        **_wire_file(file),
                    }


def _wire_file(file: RowMapping) -> dict[str, Any]:
    return {
        "scope": file["scope"],
        "name": file["name"],
        "bytes": file["bytes"],
        "adler32": file["adler32"],
        "md5": file["md5"],
        "guid": None,
        "events": None,
        "lumiblocknr": None,
    }


def list_parents(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """List the collections that hold a DID directly."""
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        with streamed(connection, tree.parents_of(row["id"])) as parents:
            for parent in parents:
                yield dict(parent)


def set_status(context: Context, actor: Actor, scope: str, name: str, *, is_open: bool) -> None:
    """Open or close a dataset or container; closing writes an event.

    Raises
    ------
    Conflict
        It is so already, or the DID is a file.
    """

    def work(connection: Connection) -> None:
        owner = require_scopes(connection, [scope])[scope].owner
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
        audit.record(connection, actor, action, f"{scope}:{name}")

    context.database.run(work)


def search(
    context: Context, scope: str, *, filters: str | None, did_type: str, long: bool, recursive: bool
) -> Iterator[Any]:
    """Find DIDs of a scope.

    Parameters
    ----------
    filters
        Rucio's: a list of mappings, any of which may fit, written as JSON or as a Python literal.
    did_type
        ``all``, ``collection``, ``dataset``, ``container`` or ``file``.
    long
        Give scope, name and type instead of the name only.

    Raises
    ------
    InvalidInput
        The filters cannot be read.
    Unsupported
        Comparisons other than equality, and recursion.
    """
    if recursive:
        raise Unsupported("searching into what is found is not in Arriero yet: list the content instead")
    if did_type not in _SEARCH_TYPES:
        raise InvalidInput(f"type is one of {', '.join(_SEARCH_TYPES)}")
    query = store.search(scope, _filter_groups(filters), _SEARCH_TYPES[did_type])
    with context.database.snapshot() as connection:
        require_scopes(connection, [scope])
        with streamed(connection, query) as rows:
            for row in rows:
                yield _wire_found(row) if long else row["name"]


def _wire_found(row: RowMapping) -> dict[str, Any]:
    return {
        "scope": row["scope"],
        "name": row["name"],
        "did_type": row["type"],
        "bytes": row["bytes"],
        "length": 1 if row["type"] is DidType.FILE else None,
    }


def _filter_groups(filters: str | None) -> list[dict[str, str]]:
    if not filters:
        return []
    if len(filters) > MAX_FILTER_CHARACTERS:
        raise InvalidInput("filters are too long")
    try:
        read = orjson.loads(filters)
    except ValueError:
        try:
            # the official client writes the list as Python does
            read = ast.literal_eval(filters)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
            raise InvalidInput("filters cannot be read", rucio_class="DIDFilterSyntaxError") from error
    groups = [read] if isinstance(read, dict) else read
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise InvalidInput("filters are a list of objects", rucio_class="DIDFilterSyntaxError")
    return [{str(key): _filter_value(str(key), value) for key, value in group.items()} for group in groups]


def _filter_value(key: str, value: Any) -> str:
    name, _, operator = key.partition(".")
    if operator:
        raise Unsupported(f"filter {name[:80]}: only equality and '*' are in Arriero yet")
    if not key or len(key) > 255 or not all(c.isalnum() or c in "_-" for c in key):
        raise InvalidInput(f"{key[:80]!a} cannot be a key of the metadata", rucio_class="KeyNotFound")
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise InvalidInput(f"filter {key}: a text or number is needed", rucio_class="DIDFilterSyntaxError")
    return str(value)
