"""What rules hold: listed, never changed from here."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select

from arriero.registry.errors import InvalidInput, TooLarge
from arriero.registry.services.context import Context
from arriero.registry.services.lookups import require_did, require_dids
from arriero.registry.services.rses import require_rse
from arriero.registry.services.rules import parse_rule_id, require_rule
from arriero.registry.states import DidType
from arriero.registry.store import locks as store
from arriero.registry.store.contents import collections_below
from arriero.registry.store.streaming import streamed


def list_rule_locks(context: Context, rule_id: str) -> Iterator[dict[str, Any]]:
    """List the locks of a rule: one for each of its files at each RSE.

    Raises
    ------
    NotFound
        There is no such rule.
    """
    uuid = parse_rule_id(rule_id)
    with context.database.snapshot() as connection:
        row = require_rule(connection, uuid)
        with streamed(connection, store.locks_of(row["id"])) as rows:
            for lock in rows:
                yield _file_lock(lock)


def list_file_locks(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """List the locks that rules have on a file.

    Raises
    ------
    NotFound
        There is no such DID.
    InvalidInput
        It is no file.
    """
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        if row["type"] is not DidType.FILE:
            raise InvalidInput(
                f"{scope}:{name[:200]} is a {row['type'].lower()}: its locks are those of did_type=dataset",
                rucio_class="UnsupportedOperation",
            )
        with streamed(connection, store.locks_on(row["id"])) as rows:
            for lock in rows:
                yield _file_lock(lock)


def list_dataset_locks(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """List where rules have placed a dataset, or the datasets below a container.

    Raises
    ------
    NotFound
        There is no such DID.
    """
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        yield from _dataset_locks(connection, store.dataset_locks_of(collections_below([row["id"]])))


def list_locks_of_dids(context: Context, targets: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """List where rules have placed datasets and the datasets below containers, each once.

    Parameters
    ----------
    targets
        Pairs of scope and name.

    Raises
    ------
    NotFound
        One is not there.
    TooLarge
        More than one call may ask for.
    """
    most = context.settings.max_bulk_items
    if len(targets) > most:
        raise TooLarge(f"one call asks for the locks of at most {most} DIDs")
    with context.database.snapshot() as connection:
        ids = [row["id"] for row in require_dids(connection, targets).values()]
        yield from _dataset_locks(connection, store.dataset_locks_of(collections_below(ids)))


def list_dataset_locks_at(context: Context, rse: str) -> Iterator[dict[str, Any]]:
    """List the datasets that rules have placed at an RSE.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    with context.database.snapshot() as connection:
        row = require_rse(connection, rse)
        yield from _dataset_locks(connection, store.dataset_locks_at(row["id"]))


def _file_lock(lock: RowMapping) -> dict[str, Any]:
    return {
        "scope": lock["scope"],
        "name": lock["name"],
        "rse_id": str(lock["rse_id"]),
        "rse": lock["rse"],
        "state": lock["state"],
        "rule_id": lock["uuid"].hex,
        "account": lock["account"],
        "bytes": lock["bytes"],
        "code": lock["code"],
        "reason": lock["reason"],
        "created_at": lock["created_at"],
    }


def _dataset_locks(connection: Connection, query: Select[Any]) -> Iterator[dict[str, Any]]:
    with streamed(connection, query) as rows:
        for lock in rows:
            yield {
                "scope": lock["scope"],
                "name": lock["name"],
                "rse_id": str(lock["rse_id"]),
                "rse": lock["rse"],
                "rule_id": lock["uuid"].hex,
                "account": lock["account"],
                "state": lock["state"],
                "length": lock["length"],
                "bytes": int(lock["bytes"]),
                "accessed_at": lock["accessed_at"],
                "created_at": lock["created_at"],
                "updated_at": lock["updated_at"],
            }
