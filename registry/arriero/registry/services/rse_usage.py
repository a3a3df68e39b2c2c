"""How full an RSE is, how full it may become, and which classes of service it offers."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.ports import Bell
from arriero.registry.schema.base import now
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rse_wakes import run_and_wake, wake_for_space
from arriero.registry.services.rses import require_rse
from arriero.registry.store import rse_usage as store
from arriero.registry.store.streaming import streamed

CATALOGUE = "rucio"
"""Source of what the catalogue itself knows: counted when it is asked for, and written by nobody."""


GROWTH = 0.01
"""Part by which the room at an RSE has to grow to wake rules that wait for some; those wait out their time otherwise."""


def list_usage(
    context: Context, name: str, *, source: str | None = None, per_account: bool = False
) -> list[dict[str, Any]]:
    """What is known of the space of an RSE, by source, bytes; first what the catalogue counts.

    Parameters
    ----------
    source
        Only from this one; None for all.
    per_account
        Say of the catalogue's figures which accounts' rules hold how much of it.
    """
    with context.database.snapshot() as connection:
        row = require_rse(connection, name)
        found = []
        if source in {None, CATALOGUE}:
            counted = store.catalogued(connection, row["id"])
            there = {
                "source": CATALOGUE,
                "used": int(counted["used"]),
                "free": None,
                "files": counted["files"],
                "updated_at": counted["updated_at"] or row["created_at"],
            }
            found.append(_wire(row, there))
            if per_account:
                found[0]["account_usages"] = _shares(store.by_account(connection, row["id"]), there["used"])
        if source != CATALOGUE:
            found += [_wire(row, one) for one in store.measured(connection, row["id"], source)]
    return found


def _wire(rse: RowMapping, one: Mapping[str, Any] | RowMapping) -> dict[str, Any]:
    return {
        "rse_id": str(rse["id"]),
        "rse": rse["name"],
        "source": one["source"],
        "used": one["used"],
        "free": one["free"],
        "total": (one["used"] or 0) + (one["free"] or 0),
        "files": one["files"],
        "updated_at": one["updated_at"],
    }


def _shares(accounts: Any, total: int) -> list[dict[str, Any]]:
    return [
        {
            "account": one["account"],
            "used": int(one["used"]),
            "files": one["files"],
            "percentage": round(100 * int(one["used"]) / total, 2) if total else 0.0,
        }
        for one in accounts
    ]


def list_history(context: Context, name: str, *, source: str | None = None) -> Iterator[dict[str, Any]]:
    """Everything that was measured of an RSE, oldest first."""
    with context.database.snapshot() as connection:
        row = require_rse(connection, name)
        with streamed(connection, store.history_query(row["id"], source)) as measured:
            for one in measured:
                yield _wire(row, {**one, "updated_at": one["at"]})


def set_usage(context: Context, actor: Actor, name: str, measured: Mapping[str, Any]) -> None:
    """Write what a source has measured of an RSE: ``source``, and ``used``, ``free``, ``files`` (bytes, count).

    Raises
    ------
    InvalidInput
        The source is the catalogue itself.
    """
    authorize(actor, Action.RSE_USAGE_SET, Target(name, rse=name))
    if measured["source"] == CATALOGUE:
        raise InvalidInput(
            f"source {CATALOGUE!r} is what the catalogue counts itself: give yours another name"
        )

    def work(connection: Connection) -> int | None:
        row = require_rse(connection, name, lock=True)
        before = store.room(connection, row["id"])
        store.set_measured(connection, row["id"], {**measured, "updated_at": now()})
        after = store.room(connection, row["id"])
        audit.record(connection, actor, Action.RSE_USAGE_SET, name, usage=dict(measured))
        return row["id"] if _has_grown(before, after) else None

    grown = context.database.run(work)
    # apart: an evaluation holds its rule and asks for RSEs
    if grown is not None and context.database.run(lambda connection: wake_for_space(connection, grown)):
        context.doorbell.ring(Bell.EVALUATIONS)


def _has_grown(before: int | None, after: int | None) -> bool:
    """Whether rules that wait for room should be looked at: not at each breath of a storage."""
    if before is None:
        return False
    return after is None or after - before > before * GROWTH


def list_limits(context: Context, name: str) -> dict[str, int]:
    """Limits of an RSE, bytes."""
    with context.database.snapshot() as connection:
        rse_id = require_rse(connection, name)["id"]
        return store.limits_of(connection, [rse_id])[rse_id]


def set_limit(context: Context, actor: Actor, name: str, limit: str, value: int) -> None:
    """Set a limit of an RSE, such as ``MinFreeSpace``, bytes."""
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))

    def work(connection: Connection) -> bool:
        rse_id = require_rse(connection, name, lock=True)["id"]
        store.set_limits(connection, [(rse_id, limit, value)])
        audit.record(connection, actor, Action.RSE_UPDATE, name, limit=limit, value=value)
        return True

    run_and_wake(context, work)


def delete_limit(context: Context, actor: Actor, name: str, limit: str) -> None:
    """Remove a limit of an RSE."""
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))

    def work(connection: Connection) -> bool:
        if not store.delete_limit(connection, require_rse(connection, name, lock=True)["id"], limit):
            raise NotFound(f"RSE {name} has no limit {limit[:80]!r}")
        audit.record(connection, actor, Action.RSE_UPDATE, name, limit_removed=limit)
        return True

    run_and_wake(context, work)


def list_policies(context: Context, name: str) -> list[str]:
    """Classes of service that an RSE offers."""
    with context.database.snapshot() as connection:
        return store.policies_of(connection, require_rse(connection, name)["id"])


def add_policy(context: Context, actor: Actor, name: str, policy: str) -> None:
    """Say that an RSE offers a class of service.

    Raises
    ------
    Conflict
        That is known.
    """
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))
    if not policy or len(policy) > 64 or not policy.isprintable():
        raise InvalidInput("the name of a class of service has 1 to 64 printable characters")

    def work(connection: Connection) -> None:
        store.add_policy(connection, require_rse(connection, name, lock=True)["id"], policy)
        audit.record(connection, actor, Action.RSE_UPDATE, name, qos_policy=policy)

    try:
        context.database.run(work)
    except IntegrityError as error:
        raise Conflict(f"RSE {name} offers {policy!r} already") from error


def delete_policy(context: Context, actor: Actor, name: str, policy: str) -> None:
    """Say that an RSE does not offer a class of service any more.

    Raises
    ------
    NotFound
        It did not.
    """
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))

    def work(connection: Connection) -> None:
        if not store.delete_policy(connection, require_rse(connection, name, lock=True)["id"], policy):
            raise NotFound(f"RSE {name} does not offer {policy[:64]!r}")
        audit.record(connection, actor, Action.RSE_UPDATE, name, qos_policy_removed=policy)

    context.database.run(work)
