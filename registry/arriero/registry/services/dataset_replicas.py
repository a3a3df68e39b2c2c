"""How much of datasets lies where: counted when it is asked for, from what they hold and the replicas that there are.

A list over many datasets is read in pages, each in a transaction of its own, and holds no connection between two.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import InvalidInput
from arriero.registry.pages import pages_of
from arriero.registry.services.context import Context
from arriero.registry.services.lookups import require_did
from arriero.registry.services.rses import require_rse
from arriero.registry.states import DidType, ReplicaState
from arriero.registry.store import dataset_replicas as store
from arriero.registry.store import dids as did_store

_DATASETS_A_PAGE = 100


def list_dataset_replicas(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """How much of a collection lies at each RSE.

    Raises
    ------
    NotFound
        The DID is not there.
    InvalidInput
        It is a file.
    """
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        if row["type"] is DidType.FILE:
            raise InvalidInput(
                f"{scope}:{name} is a file: list its replicas instead", rucio_class="UnsupportedOperation"
            )
        answers = _answers(connection, {row["id"]: (scope, name)})
    yield from answers


def list_dataset_replicas_bulk(context: Context, dids: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """How much of many collections lies at each RSE; those that are not there are passed over.

    Raises
    ------
    InvalidInput
        None is named, or more than one call may carry.
    """
    most = context.settings.max_bulk_items
    if not 0 < len(dids) <= most:
        raise InvalidInput(f"name 1 to {most} datasets", rucio_class="InvalidObject")
    with context.database.snapshot() as connection:
        found = did_store.find_dids(connection, dids)
    keys = sorted((row["id"], key) for key, row in found.items() if row["type"] is not DidType.FILE)
    for page in pages_of(keys, _DATASETS_A_PAGE):
        with context.database.snapshot() as connection:
            answers = _answers(connection, dict(page))
        yield from answers


def _answers(connection: Connection, keys: Mapping[int, tuple[str, str]]) -> list[dict[str, Any]]:
    totals = store.totals(connection, list(keys))
    answers = []
    for row in store.held_by_rse(connection, list(keys)):
        scope, name = keys[row["root_id"]]
        length, size = totals[row["root_id"]]
        described = {"scope": scope, "name": name, "rse": row["rse"], "rse_id": row["rse_id"]}
        answers.append(_answer(row, described, length, size))
    return answers


def _answer(row: RowMapping, described: Mapping[str, Any], length: int, size: int) -> dict[str, Any]:
    complete = row["available_length"] == length
    return {
        **described,
        "rse_id": str(described["rse_id"]),
        "bytes": size,
        "length": length,
        "available_bytes": int(row["available_bytes"]),
        "available_length": row["available_length"],
        "state": ReplicaState.AVAILABLE if complete else ReplicaState.UNAVAILABLE,
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "accessed_at": row["accessed_at"],
    }


def list_datasets_at(context: Context, rse: str) -> Iterator[dict[str, Any]]:
    """List the datasets of which anything lies at an RSE, with how much of each.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    with context.database.snapshot() as connection:
        rse_id = require_rse(connection, rse)["id"]
    after_id = 0
    while True:
        with context.database.snapshot() as connection:
            page = store.parents_after(connection, after_id, _DATASETS_A_PAGE)
            rows = store.datasets_at(connection, rse_id, page) if page else []
        for row in rows:
            described = {"scope": row["scope"], "name": row["name"], "rse": rse, "rse_id": rse_id}
            yield _answer(row, described, row["length"], int(row["bytes"]))
        if len(page) < _DATASETS_A_PAGE:
            return
        after_id = page[-1]


def check_did(context: Context, scope: str, name: str) -> None:
    """Refuse a DID that is not there.

    Raises
    ------
    NotFound
        It is not.
    """
    with context.database.snapshot() as connection:
        require_did(connection, scope, name)
