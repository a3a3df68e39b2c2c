"""Metadata of DIDs: Rucio's columns where Arriero has them, and any other key as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import InvalidInput, NotFound, Unsupported
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_did, require_dids
from arriero.registry.services.names import holds_null_character
from arriero.registry.store import dids as store
from arriero.registry.store.staging import stage, staged_files

MAX_META_BYTES = 256 * 1024
"""Of one DID, as JSON."""

LIFETIME = "lifetime"
_COLUMNS = frozenset(
    {"scope", "name", "account", "did_type", "is_open", "monotonic", "bytes", "length", "md5", "adler32"}
)


def encode(meta: Mapping[str, Any]) -> str:
    """Check metadata and write it as JSON.

    Raises
    ------
    InvalidInput
        A key is not one, a value is null, or it is too large.
    """
    for key, value in meta.items():
        if not key or len(key) > 255 or not key.isprintable():
            raise InvalidInput(f"{key[:80]!a} cannot be a key of the metadata", rucio_class="InvalidMetadata")
        if key in _COLUMNS:
            raise InvalidInput(f"{key} is not metadata that can be set", rucio_class="InvalidMetadata")
        if value is None:
            raise InvalidInput(f"{key} has no value: delete it instead", rucio_class="InvalidMetadata")
    try:
        encoded = orjson.dumps(dict(meta))
    except (TypeError, orjson.JSONEncodeError) as error:
        raise InvalidInput("metadata must be JSON", rucio_class="InvalidMetadata") from error
    if len(encoded) > MAX_META_BYTES:
        raise InvalidInput(
            f"metadata of one DID is at most {MAX_META_BYTES} bytes", rucio_class="InvalidMetadata"
        )
    if holds_null_character(encoded):
        raise InvalidInput("metadata cannot hold null characters", rucio_class="InvalidMetadata")
    return encoded.decode()


def merge(connection: Connection, by_did: Mapping[int, Mapping[str, Any]]) -> None:
    """Lay metadata over what DIDs have, in one statement whatever their number."""
    if not by_did:
        return
    rows = ((did_id, encode(meta)) for did_id, meta in by_did.items())
    stage(connection, staged_files, ["file_id", "meta"], rows)
    store.merge_metadata(connection)


def get_metadata(context: Context, scope: str, name: str, *, plugin: str = "ALL") -> dict[str, Any]:
    """Metadata of a DID.

    Parameters
    ----------
    plugin
        Rucio's: ``DID_COLUMN`` for what every DID has, ``JSON`` for the rest, ``ALL``.
    """
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        own = store.metadata_of(connection, [row["id"]]).get(row["id"], {})
    return _answer(row, own, plugin)


def _answer(row: RowMapping, own: Mapping[str, Any], plugin: str) -> dict[str, Any]:
    wanted = plugin.upper()
    if wanted == "JSON":
        return dict(own)
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
        "availability": "AVAILABLE",
        "bytes": row["bytes"],
        "length": None,
        "md5": row["md5"],
        "adler32": row["adler32"],
        "expired_at": row["expired_at"],
        "closed_at": row["closed_at"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "guid": None,
    }
    return columns if wanted == "DID_COLUMN" else {**own, **columns}


def get_metadata_bulk(
    context: Context, dids: Sequence[tuple[str, str]], *, plugin: str = "ALL"
) -> Iterator[dict[str, Any]]:
    """Metadata of many DIDs; those that are not there are left out."""
    for chunk in store.in_chunks(dids, store.KEYS_A_STATEMENT):
        with context.database.snapshot() as connection:
            rows = store.find_dids(connection, chunk)
            own = store.metadata_of(connection, [row["id"] for row in rows.values()])
        for (scope, name), row in rows.items():
            yield {"scope": scope, "name": name, **_answer(row, own.get(row["id"], {}), plugin)}


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
        Scope, name and metadata of each. The key ``lifetime`` (seconds, or null for never) sets when it expires.

    Raises
    ------
    NotFound
        A DID is not there.
    InvalidInput
        Not metadata.
    """
    if recursive:
        raise Unsupported("setting metadata of everything below is not in Arriero yet: set it on each")
    if len(changes) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} DIDs in one call")

    def work(connection: Connection) -> None:
        rows = require_dids(connection, [(scope, name) for scope, name, _ in changes])
        scopes = store.scopes_by_name(connection, {scope for scope, _, _ in changes})
        for scope in scopes.values():
            first = next(f"{s}:{n}" for s, n, _ in changes if s == scope.name)
            authorize(actor, Action.DID_META_SET, Target(first, owner=scope.owner))
        by_did: dict[int, dict[str, Any]] = {}
        for scope_name, name, meta in changes:
            did_id = rows[scope_name, name]["id"]
            rest = dict(meta)
            if LIFETIME in rest:
                store.set_lifetime(connection, did_id, _lifetime(rest.pop(LIFETIME)))
            if rest:
                by_did.setdefault(did_id, {}).update(rest)
        merge(connection, by_did)
        target = f"{changes[0][0]}:{changes[0][1]}" if changes else ""
        keys = sorted({key for _, _, meta in changes for key in meta})[:50]
        audit.record(connection, actor, Action.DID_META_SET, target, count=len(changes), keys=keys)

    context.database.run(work)


def _lifetime(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10**10:
        raise InvalidInput("lifetime is a number of seconds", rucio_class="InvalidMetadata")
    return float(value)


def delete_metadata(context: Context, actor: Actor, scope: str, name: str, key: str) -> None:
    """Remove a key from the metadata of a DID.

    Raises
    ------
    NotFound
        It has no such key.
    """

    def work(connection: Connection) -> None:
        row = require_did(connection, scope, name)
        owner = store.scopes_by_name(connection, {scope})[scope].owner
        authorize(actor, Action.DID_META_SET, Target(f"{scope}:{name}", owner=owner))
        if not store.delete_metadata_key(connection, row["id"], key):
            raise NotFound(f"{scope}:{name} has no metadata {key[:80]!r}", rucio_class="KeyNotFound")
        audit.record(connection, actor, Action.DID_META_SET, f"{scope}:{name}", removed=key)

    context.database.run(work)
