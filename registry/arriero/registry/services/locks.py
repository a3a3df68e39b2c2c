"""What rules hold: listed, never changed from here."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select

from arriero.registry.services.context import Context
from arriero.registry.services.lookups import require_did
from arriero.registry.services.rses import require_rse
from arriero.registry.services.rules import parse_rule_id, require_rule
from arriero.registry.store import locks as store
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
        query = store.locks_of(row["id"])
        with streamed(connection, query) as rows:
            for lock in rows:
                yield {
                    "scope": lock["scope"],
                    "name": lock["name"],
                    "rse_id": str(lock["rse_id"]),
                    "rse": lock["rse"],
                    "state": lock["state"],
                    "rule_id": uuid.hex,
                    "code": lock["code"],
                    "reason": lock["reason"],
                }


def list_dataset_locks(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """List where rules have placed a dataset or container.

    Raises
    ------
    NotFound
        There is no such DID.
    """
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        yield from _wire(connection, store.dataset_locks_of([row["id"]]))


def list_dataset_locks_at(context: Context, rse: str) -> Iterator[dict[str, Any]]:
    """List what rules have placed at an RSE.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    with context.database.snapshot() as connection:
        require_rse(connection, rse)
        yield from _wire(connection, store.dataset_locks_of(rse=rse))


def _wire(connection: Connection, query: Select[Any]) -> Iterator[dict[str, Any]]:
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
                "length": None,
                "bytes": None,
                "accessed_at": None,
                "created_at": lock["created_at"],
            }
