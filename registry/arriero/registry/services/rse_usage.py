"""How full an RSE is, and how full it may become."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from arriero.registry.errors import NotFound
from arriero.registry.schema.base import now
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rses import require_rse
from arriero.registry.store import rses as store


def list_usage(context: Context, name: str) -> list[dict[str, Any]]:
    """What was measured of an RSE, bytes."""
    with context.database.snapshot() as connection:
        row = require_rse(connection, name)
        measured = store.usage_of(connection, row["id"])
    return [
        {
            "rse_id": str(row["id"]),
            "rse": name,
            "source": one["source"],
            "used": one["used"],
            "free": one["free"],
            "total": (one["used"] or 0) + (one["free"] or 0),
            "files": one["files"],
            "updated_at": one["updated_at"],
        }
        for one in measured
    ]


def set_usage(context: Context, actor: Actor, name: str, measured: Mapping[str, Any]) -> None:
    """Write what a source has measured of an RSE: ``source``, and ``used``, ``free``, ``files`` (bytes, count)."""
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))

    def work(connection: Connection) -> None:
        row = require_rse(connection, name)
        store.set_usage(connection, row["id"], {**measured, "updated_at": now()})
        audit.record(connection, actor, Action.RSE_UPDATE, name, usage=dict(measured))

    context.database.run(work)


def list_limits(context: Context, name: str) -> dict[str, int]:
    """Limits of an RSE, bytes."""
    with context.database.snapshot() as connection:
        return store.limits_of(connection, require_rse(connection, name)["id"])


def set_limit(context: Context, actor: Actor, name: str, limit: str, value: int) -> None:
    """Set a limit of an RSE, such as ``MinFreeSpace``, bytes."""
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))

    def work(connection: Connection) -> None:
        store.set_limit(connection, require_rse(connection, name)["id"], limit, value)
        audit.record(connection, actor, Action.RSE_UPDATE, name, limit=limit, value=value)

    context.database.run(work)


def delete_limit(context: Context, actor: Actor, name: str, limit: str) -> None:
    """Remove a limit of an RSE."""
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))

    def work(connection: Connection) -> None:
        if not store.delete_limit(connection, require_rse(connection, name)["id"], limit):
            raise NotFound(f"RSE {name} has no limit {limit[:80]!r}")
        audit.record(connection, actor, Action.RSE_UPDATE, name, limit_removed=limit)

    context.database.run(work)
