"""RSEs: adding, describing and removing them, and finding them by expression."""

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
from arriero.registry.services.names import check_rse_name
from arriero.registry.services.rse_pauses import note_pauses
from arriero.registry.services.rse_settings import (
    DETAILS,
    FLAGS,
    RseSettings,
    merged_details,
    read_reason,
    read_settings,
)
from arriero.registry.services.rse_wakes import run_and_wake
from arriero.registry.store import rse_contents
from arriero.registry.store import rses as store
from arriero.rse.expression import parse

OPERATIONS = ("delete", "read", "third_party_copy_read", "third_party_copy_write", "write")
DOMAINS = ("lan", "wan")


def require_rse(connection: Connection, name: str, *, lock: bool = False, hold: bool = False) -> RowMapping:
    """Give an RSE's row.

    Parameters
    ----------
    lock
        Nobody else changes it until the transaction ends.
    hold
        Nobody removes it until then: for whoever puts something there.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    row = store.rse_row(connection, name, lock=lock, hold=hold)
    if row is None:
        raise NotFound(f"there is no RSE {name[:80]!r}: see `arriero rse list`", rucio_class="RSENotFound")
    return row


def add_rse(context: Context, actor: Actor, name: str, options: Mapping[str, Any]) -> None:
    """Add an RSE.

    Parameters
    ----------
    options
        Rucio's settings: `arriero.registry.services.rse_settings.RseSettings`.

    Raises
    ------
    Conflict
        There is one of that name, or was.
    InvalidInput
        The name or a setting cannot be meant.
    """
    authorize(actor, Action.RSE_ADD, Target(name))
    check_rse_name(name)
    values = read_settings(options)
    values["details"] = merged_details(None, values.get("details", {}))

    def work(connection: Connection) -> None:
        known = store.rse_row(connection, name, removed=True)
        if known is not None:
            raise _taken(name, removed=known["deleted_at"] is not None)
        if store.attributes_among(connection, [name]):
            raise is_attribute(name)
        store.add_rse(connection, {"name": name, **values})
        audit.record(connection, actor, Action.RSE_ADD, name)

    try:
        context.database.run(work)
    except IntegrityError as error:
        raise _taken(name, removed=False) from error


def _taken(name: str, *, removed: bool) -> Conflict:
    if removed:
        return Conflict(
            f"RSE {name!r} was removed and histories refer to it: its name is not given to another storage; "
            "import its configuration to bring it back, or choose another name"
        )
    return Conflict(f"there is an RSE {name!r} already")


def is_attribute(name: str) -> Conflict:
    """Error for an RSE that would be called as an attribute is."""
    return Conflict(f"{name!r} is an attribute of RSEs: expressions could not tell them apart")


def update_rse(context: Context, actor: Actor, name: str, options: Mapping[str, Any]) -> None:
    """Change the settings of an RSE.

    Parameters
    ----------
    options
        Rucio's settings, and ``reason``: why, which is kept with what is closed.

    Raises
    ------
    InvalidInput
        A setting that does not exist.
    Conflict
        One that cannot change once there are replicas.
    """
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))
    reason = read_reason(options)
    values = read_settings({key: value for key, value in options.items() if key != "reason"})
    if not values:
        raise InvalidInput(f"nothing to change: give one of {', '.join(sorted(RseSettings.model_fields))}")

    def work(connection: Connection) -> bool:
        row = require_rse(connection, name, lock=True)
        change = dict(values)
        if "details" in change:
            change["details"] = merged_details(row["details"], change["details"])
        if change.get("deterministic", row["deterministic"]) != row["deterministic"] and store.has_replicas(
            connection, row["id"]
        ):
            raise Conflict(
                f"deterministic of {name} cannot change: replicas lie where it says; add another RSE"
            )
        store.update_rse(connection, row["id"], change)
        note_pauses(connection, actor, row, change, reason)
        why = {} if reason is None else {"reason": reason}
        audit.record(connection, actor, Action.RSE_UPDATE, name, **change, **why)
        return any(change.get(flag) and not row[flag] for flag in ("availability_read", "availability_write"))

    if run_and_wake(context, work):
        # what waits in the queue for it has a reason no more
        context.doorbell.ring(Bell.REQUESTS)


def delete_rse(context: Context, actor: Actor, name: str) -> None:
    """Remove an RSE that holds nothing and expects nothing.

    It is gone from every list, expression and choice; its row stays, because histories refer to it.

    Raises
    ------
    Conflict
        Something is there, or on its way: says what, how many, and what to do about it.
    """
    authorize(actor, Action.RSE_DELETE, Target(name, rse=name))

    def work(connection: Connection) -> None:
        row = store.rse_row(connection, name, removing=True)
        if row is None:
            raise NotFound(
                f"there is no RSE {name[:80]!r}: see `arriero rse list`", rucio_class="RSENotFound"
            )
        left = rse_contents.what_is_left(connection, row["id"])
        if left:
            raise Conflict(
                f"RSE {name} is not empty: {', '.join(f'{count} {what}' for what, count in left.items())}; "
                "move or remove the rules on it, delete its replicas, take it out of its butlers, then try again",
                rucio_class="RSEOperationNotSupported",
            )
        store.update_rse(connection, row["id"], {"deleted_at": now()})
        audit.record(connection, actor, Action.RSE_DELETE, name)

    context.database.run(work)


def get_rse(context: Context, name: str) -> dict[str, Any]:
    """Describe an RSE with its protocols, in Rucio's shape."""
    with context.database.snapshot() as connection:
        row = require_rse(connection, name)
        protocols = store.protocols_of(connection, [row["id"]])[row["id"]]
        attributes = store.load_rses(connection, [name])[name].attributes
    return {
        **wire_rse(row),
        "protocols": [wire_protocol(protocol) for protocol in protocols],
        "domain": list(DOMAINS),
        "lfn2pfn_algorithm": attributes.get(store.ALGORITHM_ATTRIBUTE, store.DEFAULT_ALGORITHM),
        "verify_checksum": attributes.get("verify_checksum", "true").lower() != "false",
    }


def wire_rse(row: RowMapping) -> dict[str, Any]:
    """Write an RSE in Rucio's shape, without its protocols."""
    details = row["details"] or {}
    availability = [row["availability_read"], row["availability_write"], row["availability_delete"]]
    return {
        "id": str(row["id"]),
        "rse": row["name"],
        "rse_type": row["type"],
        **{flag: row[flag] for flag in FLAGS},
        # Rucio's bit field: 4 read, 2 write, 1 delete
        "availability": sum(weight for weight, on in zip((4, 2, 1), availability, strict=True) if on),
        **{name: details.get(name) for name in DETAILS},
        "credentials": None,
        "sign_url": None,
        "deleted": False,
        "deleted_at": None,
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def wire_protocol(row: RowMapping) -> dict[str, Any]:
    """Write a protocol in Rucio's shape: every domain and operation is there.

    One that is off has no priority: the official client would take 0 for the best.
    """
    domains = row["domains"] or {}
    return {
        "scheme": row["scheme"],
        "hostname": row["hostname"],
        "port": row["port"],
        "prefix": row["prefix"],
        "impl": row["impl"],
        "domains": {
            domain: {operation: domains.get(domain, {}).get(operation) or None for operation in OPERATIONS}
            for domain in DOMAINS
        },
        "extended_attributes": row["extended_attributes"],
    }


def list_rses(context: Context, expression: str | None) -> Iterator[dict[str, Any]]:
    """List RSEs, those of an expression if one is given.

    Raises
    ------
    InvalidExpression
        It cannot be read, or nothing satisfies it.
    """
    with context.database.snapshot() as connection:
        rows = store.rse_rows(connection)
        if expression:
            known = store.load_rses(connection)
            chosen = parse(expression).evaluate(rse.as_info() for rse in known.values())
            rows = [row for row in rows if row["name"] in chosen]
    return iter([wire_rse(row) for row in rows])
