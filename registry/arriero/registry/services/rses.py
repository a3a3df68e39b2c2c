"""RSEs: adding them, describing them, and finding them by expression."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.names import check_rse_name, word_of
from arriero.registry.states import RseType
from arriero.registry.store import rses as store
from arriero.rse.expression import parse
from arriero.rse.lfn2pfn import path_for

_SETTABLE = {
    "availability_read": bool,
    "availability_write": bool,
    "availability_delete": bool,
    "volatile": bool,
}

OPERATIONS = ("delete", "read", "third_party_copy_read", "third_party_copy_write", "write")
DOMAINS = ("lan", "wan")

_FIXED_ATTRIBUTES = frozenset({store.ALGORITHM_ATTRIBUTE})
"""Attributes on which the paths of replicas rest."""


def require_rse(connection: Connection, name: str, *, lock: bool = False) -> RowMapping:
    """Give an RSE's row.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    row = store.rse_row(connection, name, lock=lock)
    if row is None:
        raise NotFound(f"there is no RSE {name[:80]!r}: see `arriero rse list`", rucio_class="RSENotFound")
    return row


def add_rse(context: Context, actor: Actor, name: str, options: Mapping[str, Any]) -> None:
    """Add an RSE.

    Parameters
    ----------
    options
        Rucio's: ``deterministic``, ``volatile``, ``rse_type``, ``availability_read|write|delete``; others that Rucio
        knows and Arriero does not (region, time zone, ...) become attributes.

    Raises
    ------
    Conflict
        There is one of that name.
    InvalidInput
        The name or an option cannot be meant.
    """
    authorize(actor, Action.RSE_ADD, Target(name))
    check_rse_name(name)
    values, extra = _columns(options)

    def work(connection: Connection) -> None:
        if store.rse_row(connection, name) is not None:
            raise Conflict(f"there is an RSE {name!r} already")
        rse_id = store.add_rse(connection, {"name": name, **values})
        for key, value in extra.items():
            store.set_attribute(connection, rse_id, key, attribute_text(value))
        audit.record(connection, actor, Action.RSE_ADD, name)

    try:
        context.database.run(work)
    except IntegrityError as error:
        raise Conflict(f"there is an RSE {name!r} already") from error


def _columns(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in options.items():
        if value is None:
            continue
        if key in _SETTABLE or key == "deterministic":
            if not isinstance(value, bool):
                raise InvalidInput(f"{key} is true or false")
            values[key] = value
        elif key == "rse_type":
            values["type"] = word_of(RseType, str(value), "rse_type")
        elif key == "staging_area":
            if value:
                raise InvalidInput("staging areas are not supported: add the RSE without")
        else:
            extra[key] = value
    return values, extra


def update_rse(context: Context, actor: Actor, name: str, options: Mapping[str, Any]) -> None:
    """Change the settings of an RSE.

    Raises
    ------
    InvalidInput
        A setting that does not exist or cannot change once there are replicas.
    """
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))
    unknown = sorted(set(options) - set(_SETTABLE) - {"availability"})
    if unknown:
        raise InvalidInput(
            f"{', '.join(unknown)[:200]} cannot be changed; these can: {', '.join(sorted(_SETTABLE))}"
        )
    values, _ = _columns({key: value for key, value in options.items() if key != "availability"})
    if not values:
        raise InvalidInput(f"nothing to change: give one of {', '.join(sorted(_SETTABLE))}")

    def work(connection: Connection) -> None:
        store.update_rse(connection, require_rse(connection, name)["id"], values)
        audit.record(connection, actor, Action.RSE_UPDATE, name, **values)

    context.database.run(work)


def get_rse(context: Context, name: str) -> dict[str, Any]:
    """Describe an RSE with its protocols, in Rucio's shape."""
    with context.database.snapshot() as connection:
        row = require_rse(connection, name)
        protocols = store.protocols_of(connection, [row["id"]])[row["id"]]
        attributes = store.load_rses(connection, [name])[name].attributes
    settings = _wire_rse(row)
    return {
        **settings,
        "protocols": [wire_protocol(protocol) for protocol in protocols],
        "domain": ["lan", "wan"],
        "lfn2pfn_algorithm": attributes.get(store.ALGORITHM_ATTRIBUTE, store.DEFAULT_ALGORITHM),
        "verify_checksum": attributes.get("verify_checksum", "true").lower() != "false",
    }


def _wire_rse(row: RowMapping) -> dict[str, Any]:
    availability = [row["availability_read"], row["availability_write"], row["availability_delete"]]
    return {
        "id": str(row["id"]),
        "rse": row["name"],
        "rse_type": row["type"],
        "deterministic": row["deterministic"],
        "volatile": row["volatile"],
        "staging_area": False,
        # Rucio's bit field: 4 read, 2 write, 1 delete
        "availability": sum(weight for weight, on in zip((4, 2, 1), availability, strict=True) if on),
        "availability_read": row["availability_read"],
        "availability_write": row["availability_write"],
        "availability_delete": row["availability_delete"],
        "credentials": None,
        "qos_class": None,
        "sign_url": None,
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
    return iter([_wire_rse(row) for row in rows])


def attribute_text(value: Any) -> str:
    """Write an attribute's value as text: what an expression compares."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if len(text) > 1000 or not text.isprintable():
        raise InvalidInput("an attribute's value is one line of at most 1000 characters")
    return text


def set_attribute(context: Context, actor: Actor, name: str, key: str, value: Any) -> None:
    """Set an attribute of an RSE.

    Raises
    ------
    InvalidInput
        The key or the value cannot be meant.
    """
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))
    if not key or len(key) > 255 or not all(c.isalnum() or c in "._-" for c in key):
        raise InvalidInput("an attribute's key has letters, digits, '.', '_' and '-'")
    if value is None:
        raise InvalidInput(f"attribute {key} needs a value")
    text = attribute_text(value)
    if key == store.ALGORITHM_ATTRIBUTE:
        path_for(text, "scope", "name")

    def work(connection: Connection) -> None:
        row = require_rse(connection, name, lock=True)
        if key in _FIXED_ATTRIBUTES and store.has_replicas(connection, row["id"]):
            raise Conflict(f"{key} of {name} cannot change: replicas lie where it says; add another RSE")
        store.set_attribute(connection, row["id"], key, text)
        audit.record(connection, actor, Action.RSE_UPDATE, name, attribute=key, value=text)

    context.database.run(work)


def delete_attribute(context: Context, actor: Actor, name: str, key: str) -> None:
    """Remove an attribute of an RSE."""
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))

    def work(connection: Connection) -> None:
        row = require_rse(connection, name, lock=True)
        if key in _FIXED_ATTRIBUTES and store.has_replicas(connection, row["id"]):
            raise Conflict(f"{key} of {name} cannot change: replicas lie where it says; add another RSE")
        if not store.delete_attribute(connection, row["id"], key):
            raise NotFound(f"RSE {name} has no attribute {key[:80]!r}", rucio_class="RSEAttributeNotFound")
        audit.record(connection, actor, Action.RSE_UPDATE, name, attribute_removed=key)

    context.database.run(work)


def list_attributes(context: Context, name: str) -> dict[str, Any]:
    """Attributes of an RSE; its own name is one, as in Rucio."""
    with context.database.snapshot() as connection:
        require_rse(connection, name)
        attributes = store.load_rses(connection, [name])[name].attributes
    shown = {key: {"true": True, "false": False}.get(value, value) for key, value in attributes.items()}
    return {name: True, **shown}
