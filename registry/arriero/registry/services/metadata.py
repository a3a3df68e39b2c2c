"""Metadata of DIDs: Rucio's columns where Arriero has them, and any other key as JSON."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, FromClause, RowMapping

from arriero.registry.arrival_words import DESCRIBES
from arriero.registry.errors import InvalidInput, NotFound
from arriero.registry.ports import Bell
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_did, require_dids
from arriero.registry.services.names import holds_null_character
from arriero.registry.store import dids as did_store
from arriero.registry.store import metadata as store
from arriero.registry.store.arrival_changes import PARKED
from arriero.registry.store.arrivals import drive_described
from arriero.registry.store.did_sets import named, set_staged_lifetimes, stage_dids
from arriero.registry.store.losses import file_is_lost
from arriero.registry.store.streaming import streamed
from arriero.registry.store.subscription_items import note_dids, note_staged_dids

MAX_META_BYTES = 256 * 1024
"""Of one DID, as JSON."""
MAX_META_KEYS = 1000
"""Keys that one call sets of one DID."""
MAX_META_DEPTH = 32
"""Lists and objects within each other."""
MAX_LIFETIME_S = 10**10
_INTEGERS = 2**63

LIFETIME = "lifetime"
IS_NEW = "is_new"
"""Rucio's word for: have subscriptions look at it again."""
_COLUMNS = frozenset(
    {
        "scope",
        "name",
        "account",
        "did_type",
        "is_open",
        "open",
        "monotonic",
        "hidden",
        "obsolete",
        "complete",
        "suppressed",
        "availability",
        "is_new",
        "bytes",
        "length",
        "md5",
        "adler32",
        "created_at",
        "updated_at",
        "accessed_at",
        "closed_at",
        "expired_at",
        "deleted_at",
        "access_cnt",
        "purge_replicas",
        "is_archive",
        "constituent",
    }
)
"""What every DID has: it follows from other calls, and is not set as metadata."""

_RUCIO_KEYS = (
    "guid",
    "events",
    "project",
    "datatype",
    "run_number",
    "stream_name",
    "prod_step",
    "version",
    "campaign",
    "task_id",
    "panda_id",
    "lumiblocknr",
    "provenance",
    "phys_group",
    "transient",
    "eol_at",
)
"""What Rucio has columns for and Arriero keeps with the other metadata; shown where Rucio shows it."""

_RUCIO_KEY_SET = frozenset(_RUCIO_KEYS)


def _refuse(message: str) -> InvalidInput:
    return InvalidInput(message, rucio_class="InvalidMetadata")


def encode(meta: Mapping[str, Any]) -> str:
    """Check metadata and write it as JSON.

    Raises
    ------
    InvalidInput
        A key is not one or is not to be set, a value is not JSON, or it is too large or too deep.
    """
    if len(meta) > MAX_META_KEYS:
        raise _refuse(f"at most {MAX_META_KEYS} keys of one DID in one call")
    for key in meta:
        if not key or len(key) > 255 or not key.isprintable():
            raise _refuse(f"{key[:80]!a} cannot be a key of the metadata")
        if key == IS_NEW:
            raise _refuse(f"{IS_NEW} is said of a DID that is there: subscriptions look at it again")
        if key in _COLUMNS:
            raise _refuse(f"{key} is not metadata that can be set")
        if key == LIFETIME:
            raise _refuse("a lifetime is set by its own field, or alone as metadata of a DID that is there")
    _check_depth(meta.values())
    if any(isinstance(value, int) and not -_INTEGERS <= value < _INTEGERS for value in meta.values()):
        raise _refuse("a whole number in metadata has at most 64 bits, one of them its sign")
    try:
        encoded = orjson.dumps(dict(meta))
    except (TypeError, orjson.JSONEncodeError) as error:
        raise _refuse("metadata must be JSON, with whole numbers of at most 64 bits") from error
    if len(encoded) > MAX_META_BYTES:
        raise _refuse(f"metadata of one DID is at most {MAX_META_BYTES} bytes")
    if holds_null_character(encoded):
        raise _refuse("metadata cannot hold null characters")
    return encoded.decode()


def _check_depth(values: Iterable[Any]) -> None:
    level: list[Any] = [value for value in values if isinstance(value, (dict, list, tuple))]
    for _ in range(MAX_META_DEPTH):
        if not level:
            return
        inner = itertools.chain.from_iterable(one.values() if isinstance(one, dict) else one for one in level)
        level = [value for value in inner if isinstance(value, (dict, list, tuple))]
    raise _refuse(f"metadata is at most {MAX_META_DEPTH} levels deep")


def get_metadata(context: Context, scope: str, name: str, *, plugin: str = "ALL") -> dict[str, Any]:
    """Metadata of a DID.

    Parameters
    ----------
    plugin
        Rucio's: ``DID_COLUMN`` for what every DID has, ``JSON`` for the rest, ``ALL``.
    """
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        own = store.metadata_of(connection, row["id"])
        lost = file_is_lost(connection, row["id"])
    return _answer(row, own, _plugin(plugin), lost=lost)


def _plugin(plugin: str) -> str:
    wanted = plugin.upper()
    if wanted not in ("ALL", "JSON", "DID_COLUMN"):
        raise InvalidInput(
            f"there is no metadata plugin {plugin[:40]!a}: ALL, DID_COLUMN or JSON",
            rucio_class="UnsupportedMetadataPlugin",
        )
    return wanted


def _answer(row: RowMapping, own: Mapping[str, Any], plugin: str, *, lost: bool) -> dict[str, Any]:
    if plugin == "JSON":
        return {key: value for key, value in own.items() if key not in _RUCIO_KEY_SET}
    columns = {
        "scope": row["scope"],
        "name": row["name"],
        "account": row["account"],
        "did_type": row["type"],
        "is_open": row["is_open"],
        "monotonic": row["monotonic"],
        "obsolete": False,
        "complete": None,
        "hidden": False,
        "suppressed": False,
        "availability": "LOST" if lost else "AVAILABLE",
        "is_new": None,
        "purge_replicas": None,
        "access_cnt": None,
        "bytes": row["bytes"],
        "length": None,
        "md5": row["md5"],
        "adler32": row["adler32"],
        "expired_at": row["expired_at"],
        "closed_at": row["closed_at"],
        "accessed_at": row["accessed_at"],
        "deleted_at": None,
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        **{key: own.get(key) for key in _RUCIO_KEYS},
    }
    return columns if plugin == "DID_COLUMN" else {**own, **columns}


def get_metadata_bulk(
    context: Context, dids: Sequence[tuple[str, str]], *, plugin: str = "ALL", inherit: bool = False
) -> Iterator[dict[str, Any]]:
    """Metadata of many DIDs, in their order; those that are not there are left out.

    Parameters
    ----------
    plugin
        As of `get_metadata`.
    inherit
        With the keys of what holds them, at any depth, that they have not themselves; the nearest has the last word.
    """
    wanted = _plugin(plugin)
    check_number(context, dids)
    with context.database.snapshot() as connection:
        scopes = did_store.scopes_by_name(connection, {scope for scope, _ in dids})
        pairs = [(scopes[scope].id, name) for scope, name in dict.fromkeys(dids) if scope in scopes]
        keys = named(connection, pairs)
        above = _inherited(connection, keys, pairs) if inherit else {}
        with streamed(connection, store.described(keys)) as rows:
            for row in rows:
                own = {**above.get((row["scope_id"], row["name"]), {}), **(row["meta"] or {})}
                answer = _answer(row, own, wanted, lost=bool(row["is_lost"]))
                yield {"scope": row["scope"], "name": row["name"], **answer}


def _inherited(
    connection: Connection, keys: FromClause, pairs: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], dict[str, Any]]:
    found: dict[tuple[int, str], dict[str, Any]] = {}
    with streamed(connection, store.inherited(keys)) as rows:
        for row in rows:
            of = found.setdefault(pairs[row["position"]], {})
            for key, value in row["meta"].items():
                of.setdefault(key, value)
    return found


def check_number(context: Context, items: Sequence[Any]) -> None:
    """Refuse more than one call may carry.

    Raises
    ------
    InvalidInput
        There are more than ``max_bulk_items``.
    """
    if len(items) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} DIDs in one call")


def set_metadata(
    context: Context,
    actor: Actor,
    changes: Sequence[tuple[str, str, Mapping[str, Any]]],
    *,
    recursive: bool = False,
) -> None:
    """Set metadata of DIDs; keys that are not named stay. All of them, or none.

    Parameters
    ----------
    changes
        Scope, name and metadata of each. The key ``lifetime`` (seconds, or null for never) sets when it expires; the key
        ``is_new`` (true) has every subscription look at it again, also those that were applied to it before.
    recursive
        Also of everything below them, at any depth; a lifetime is that of the DID itself only.

    Raises
    ------
    NotFound
        A DID is not there.
    InvalidInput
        Not metadata.
    """
    check_number(context, changes)
    again = [(scope, name) for scope, name, meta in changes if _is_new(meta)]
    encoded = [_split(meta) for _, _, meta in changes]

    def work(connection: Connection) -> bool:
        rows = require_dids(connection, [(scope, name) for scope, name, _ in changes])
        scopes = did_store.scopes_by_name(connection, {scope for scope, _, _ in changes})
        for scope in scopes.values():
            first = next(f"{s}:{n}" for s, n, _ in changes if s == scope.name)
            authorize(actor, Action.DID_META_SET, Target(first, owner=scope.owner))
        _stage(connection, [rows[scope, name]["id"] for scope, name, _ in changes], encoded)
        set_staged_lifetimes(connection)
        store.merge_staged_metadata(connection)
        if recursive:
            for scope_name, owner in store.owners_below_staged(connection).items():
                authorize(actor, Action.DID_META_SET, Target(f"{scope_name}:*", owner=owner))
            store.merge_below_staged(connection)
        if store.largest_staged(connection) > 2 * MAX_META_BYTES:
            raise _refuse(
                f"with what is there already, metadata of a DID would exceed {2 * MAX_META_BYTES} bytes"
            )
        target = f"{changes[0][0]}:{changes[0][1]}" if changes else ""
        changed = {key for _, _, meta in changes for key in meta}
        if not changed.isdisjoint(DESCRIBES):
            drive_described(connection, store.staged_files(below=recursive), keep=PARKED)
        keys = sorted(changed)[:50]
        audit.record(
            connection, actor, Action.DID_META_SET, target, count=len(changes), keys=keys, recursive=recursive
        )
        noted = note_staged_dids(connection, below=recursive)
        if again:
            noted |= note_dids(connection, [rows[key]["id"] for key in again], again=True)
        return noted

    if context.database.run(work):
        context.doorbell.ring(Bell.SUBSCRIPTIONS)


Split = tuple[Mapping[str, Any], bool, float | None]


def _is_new(meta: Mapping[str, Any]) -> bool:
    if IS_NEW in meta and meta[IS_NEW] is not True:
        raise _refuse(f"{IS_NEW} can be true only: subscriptions look at the DID again")
    return IS_NEW in meta


def _split(meta: Mapping[str, Any]) -> Split:
    rest = {key: value for key, value in meta.items() if key != IS_NEW}
    has_lifetime = LIFETIME in rest
    lifetime_s = check_lifetime(rest.pop(LIFETIME, None))
    encode(rest)
    return rest, has_lifetime, lifetime_s


def _stage(connection: Connection, ids: Sequence[int], changes: Sequence[Split]) -> None:
    merged: dict[int, Split] = {}
    for did_id, change in zip(ids, changes, strict=True):
        before = merged.get(did_id)
        merged[did_id] = change if before is None else _on_top(before, change)
    rows = [
        (did_id, encode(meta) if meta else None, has_lifetime, lifetime_s)
        for did_id, (meta, has_lifetime, lifetime_s) in sorted(merged.items())
    ]
    stage_dids(connection, ["did_id", "meta", "has_lifetime", "lifetime_s"], rows)


def _on_top(before: Split, change: Split) -> Split:
    lifetime_s = change[2] if change[1] else before[2]
    return {**before[0], **change[0]}, before[1] or change[1], lifetime_s


def check_lifetime(value: Any) -> float | None:
    """Give a lifetime in seconds, None for never.

    Raises
    ------
    InvalidInput
        It is none.
    """
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not -MAX_LIFETIME_S <= value <= MAX_LIFETIME_S
    ):
        raise InvalidInput("lifetime is a number of seconds", rucio_class="InvalidValueForKey")
    return float(value)


def delete_metadata(context: Context, actor: Actor, scope: str, name: str, key: str) -> None:
    """Remove a key from the metadata of a DID.

    Raises
    ------
    NotFound
        It has no such key.
    """

    def work(connection: Connection) -> bool:
        row = require_did(connection, scope, name)
        owner = did_store.scopes_by_name(connection, {scope})[scope].owner
        authorize(actor, Action.DID_META_SET, Target(f"{scope}:{name}", owner=owner))
        if not store.delete_metadata_key(connection, row["id"], key):
            raise NotFound(f"{scope}:{name} has no metadata {key[:80]!r}", rucio_class="KeyNotFound")
        audit.record(connection, actor, Action.DID_META_SET, f"{scope}:{name}", removed=key)
        return note_dids(connection, [row["id"]])

    if context.database.run(work):
        context.doorbell.ring(Bell.SUBSCRIPTIONS)
