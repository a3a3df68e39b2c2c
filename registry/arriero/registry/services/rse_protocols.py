"""How an RSE is reached, and how far it is from the others."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rses import DOMAINS, OPERATIONS, get_rse, require_rse
from arriero.registry.store import rses as store
from arriero.rse.types import Endpoint

_IMPLEMENTATIONS = MappingProxyType(
    {
        "https": "rucio.rse.protocols.webdav.Default",
        "file": "rucio.rse.protocols.posix.Default",
        "root": "rucio.rse.protocols.xrootd.Default",
    }
)
"""What the official client is told to use where nothing is said; gfal2 for the schemes that are not here."""

_ANY_IMPLEMENTATION = "rucio.rse.protocols.gfal.Default"


def add_protocol(context: Context, actor: Actor, name: str, scheme: str, options: Mapping[str, Any]) -> None:
    """Add a protocol to an RSE.

    Raises
    ------
    InvalidInput, InvalidName
        Host, port, prefix or domains cannot be meant.
    Conflict
        This RSE has one with that scheme, host and port.
    """
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))
    values = _protocol_values(name, scheme, options)

    def work(connection: Connection) -> None:
        row = require_rse(connection, name, lock=True)
        key = (scheme, values["hostname"], values["port"])
        for protocol in store.protocols_of(connection, [row["id"]])[row["id"]]:
            if (protocol["scheme"], protocol["hostname"], protocol["port"]) == key:
                raise Conflict(f"RSE {name} has a protocol {scheme}://{key[1]}:{key[2]} already")
        store.add_protocol(connection, row["id"], values)
        audit.record(connection, actor, Action.RSE_UPDATE, name, protocol=scheme, host=values["hostname"])

    context.database.run(work)


def _protocol_values(rse: str, scheme: str, options: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "scheme": scheme,
        "hostname": options.get("hostname") or "",
        "port": options.get("port") or 0,
        "prefix": options.get("prefix") or "",
        "impl": options.get("impl") or _IMPLEMENTATIONS.get(scheme, _ANY_IMPLEMENTATION),
        "domains": _domains(options.get("domains") or {}),
        "extended_attributes": options.get("extended_attributes"),
    }
    for key, kind in (("hostname", str), ("port", int), ("prefix", str), ("impl", str)):
        if not isinstance(values[key], kind):
            raise InvalidInput(f"{key} of a protocol is {kind.__name__}")
    if len(values["prefix"]) > 900:
        raise InvalidInput("prefix is longer than 900 characters")
    Endpoint(rse, scheme, values["hostname"], values["port"], values["prefix"])
    return values


def _domains(given: Any) -> dict[str, dict[str, int]]:
    if not isinstance(given, Mapping) or not set(given) <= set(DOMAINS):
        raise InvalidInput("domains of a protocol are lan and wan")
    cleaned: dict[str, dict[str, int]] = {}
    for domain, operations in given.items():
        if not isinstance(operations, Mapping) or not set(operations) <= set(OPERATIONS):
            raise InvalidInput(f"operations of a domain are {', '.join(OPERATIONS)}")
        for operation, priority in operations.items():
            if priority is not None and (not isinstance(priority, int) or not 0 <= priority <= 1000):
                raise InvalidInput(f"{domain}.{operation} is a priority from 1, or 0 for off")
        cleaned[domain] = {operation: priority or 0 for operation, priority in operations.items()}
    return cleaned


def list_protocols(
    context: Context,
    name: str,
    *,
    scheme: str | None = None,
    domain: str = "ALL",
    operation: str | None = None,
) -> dict[str, Any]:
    """Give an RSE with those of its protocols that are asked for.

    Raises
    ------
    NotFound
        No protocol of that scheme.
    """
    described = get_rse(context, name)
    domains = DOMAINS if domain.upper() == "ALL" else (domain.lower(),)
    chosen = [
        protocol
        for protocol in described["protocols"]
        if (scheme is None or protocol["scheme"] == scheme)
        and (operation is None or any(protocol["domains"].get(one, {}).get(operation) for one in domains))
    ]
    if scheme is not None and not chosen:
        raise NotFound(f"RSE {name} has no protocol {scheme[:40]}", rucio_class="RSEProtocolNotSupported")
    return {**described, "protocols": chosen}


def delete_protocols(
    context: Context, actor: Actor, name: str, scheme: str, *, hostname: str | None, port: int | None
) -> None:
    """Remove protocols of an RSE.

    Raises
    ------
    NotFound
        There is none like that.
    """
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))

    def work(connection: Connection) -> None:
        row = require_rse(connection, name, lock=True)
        if not store.delete_protocols(connection, row["id"], scheme, hostname, port):
            raise NotFound(f"RSE {name} has no such protocol", rucio_class="RSEProtocolNotSupported")
        audit.record(connection, actor, Action.RSE_UPDATE, name, protocol_removed=scheme)

    context.database.run(work)


def set_distance(
    context: Context, actor: Actor, source: str, destination: str, value: int, *, bidirectional: bool
) -> None:
    """Set the distance between two RSEs; without one there is no way between them.

    Parameters
    ----------
    value
        From 1, near, upwards.
    """
    authorize(actor, Action.RSE_UPDATE, Target(destination, rse=destination))
    if not 0 <= value <= 1_000_000:
        raise InvalidInput("a distance is a whole number from 1")

    def work(connection: Connection) -> None:
        source_id = require_rse(connection, source)["id"]
        destination_id = require_rse(connection, destination)["id"]
        store.set_distance(connection, source_id, destination_id, value)
        if bidirectional:
            store.set_distance(connection, destination_id, source_id, value)
        audit.record(connection, actor, Action.RSE_UPDATE, destination, distance_from=source, distance=value)

    context.database.run(work)


def get_distance(context: Context, source: str, destination: str) -> list[dict[str, Any]]:
    """Give the distance between two RSEs, in a list that is empty where none is set."""
    with context.database.snapshot() as connection:
        source_row = require_rse(connection, source)
        destination_row = require_rse(connection, destination)
        value = store.distance(connection, source_row["id"], destination_row["id"])
    if value is None:
        return []
    return [
        {
            "src_rse_id": str(source_row["id"]),
            "dest_rse_id": str(destination_row["id"]),
            "src_rse": source,
            "dest_rse": destination,
            "distance": value,
            "ranking": value,
        }
    ]


def delete_distance(
    context: Context, actor: Actor, source: str, destination: str, *, bidirectional: bool
) -> None:
    """Remove the distance between two RSEs."""
    authorize(actor, Action.RSE_UPDATE, Target(destination, rse=destination))

    def work(connection: Connection) -> None:
        source_id = require_rse(connection, source)["id"]
        destination_id = require_rse(connection, destination)["id"]
        store.delete_distance(connection, source_id, destination_id)
        if bidirectional:
            store.delete_distance(connection, destination_id, source_id)
        audit.record(connection, actor, Action.RSE_UPDATE, destination, distance_removed_from=source)

    context.database.run(work)
