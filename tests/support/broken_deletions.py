"""Every way to break the deletions of a whole catalogue that the doctor has a check for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import insert

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import deletions
from arriero.registry.states import DeletionCause, ReplicaState
from support.whole import HOUR, Whole


def _deletion(w: Whole, name: str = "c", rse: str = "SLAC", **values: Any) -> None:
    """Have a replica be deleted, by nobody at this moment."""
    row = {"file_id": w.did[name], "rse_id": w.rse[rse], "bytes": 1000, "cause": DeletionCause.PURGE}
    w.run(
        w.replica(name, rse).values(state=ReplicaState.BEING_DELETED),
        insert(deletions).values(**row, was=ReplicaState.AVAILABLE, **values),
    )


def forgotten_deletion(w: Whole) -> None:
    w.run(w.replica("c", "SLAC").values(state=ReplicaState.BEING_DELETED))


def deletion_of_what_stays(w: Whole) -> None:
    _deletion(w)
    w.run(w.replica("c", "SLAC").values(state=ReplicaState.AVAILABLE))


def deletion_of_what_is_held(w: Whole) -> None:
    _deletion(w, "a", "IN2P3")


def outlived_deletion(w: Whole) -> None:
    _deletion(w, lease_owner="worker", lease_until=after(-HOUR))


def late_grave(w: Whole) -> None:
    _deletion(w, gone_at=after(-2 * HOUR), not_before=after(-HOUR), code="grave", reason="free")


def held_deletion(w: Whole) -> None:
    _deletion(w, lease_owner="worker")


def deletion_without_reason(w: Whole) -> None:
    _deletion(w, attempt=1)


CASES: list[tuple[str, Callable[[Whole], None], dict[str, str]]] = [
    ("deleted_without_queue", forgotten_deletion, {"did": "raw:c", "rse": "SLAC"}),
    ("deletions_of_nothing", deletion_of_what_stays, {"did": "raw:c", "detail": "replica AVAILABLE"}),
    ("deletions_of_held", deletion_of_what_is_held, {"did": "raw:a", "detail": "lock OK"}),
    ("outlived_deletions", outlived_deletion, {"did": "raw:c", "detail": "deletion of worker"}),
    ("late_graves", late_grave, {"did": "raw:c", "rse": "SLAC"}),
    ("deletions_held_without_lease", held_deletion, {"did": "raw:c", "detail": "held"}),
    ("deletions_held_without_lease", deletion_without_reason, {"did": "raw:c", "detail": "waits"}),
]
