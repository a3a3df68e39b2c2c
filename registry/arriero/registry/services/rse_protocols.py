"""How an RSE is reached: its protocols, and where they put a file."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rse_wakes import run_and_wake
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

KEYS = frozenset({"scheme", "hostname", "port", "prefix", "impl", "domains", "extended_attributes"})

_KINDS: tuple[tuple[str, type, str], ...] = (
    ("hostname", str, "a text"),
    ("port", int, "a whole number"),
    ("prefix", str, "a text"),
    ("impl", str, "a text"),
    ("extended_attributes", Mapping, "an object"),
)

MAX_PRIORITY = 1000

Domains = dict[str, dict[str, int]]
"""Priority of each operation in each domain, 1 first; 0 or absent is off."""


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
    values = protocol_values(name, {**options, "scheme": scheme})

    def work(connection: Connection) -> bool:
        row = require_rse(connection, name, lock=True)
        protocols = store.protocols_of(connection, [row["id"]])[row["id"]]
        if identity(values) in map(identity, protocols):
            host = f"{values['hostname']}:{values['port']}"
            raise Conflict(
                f"RSE {name} has a protocol {scheme}://{host} already: update it, or delete it first"
            )
        store.set_protocols(connection, [{"rse_id": row["id"], **values}])
        audit.record(connection, actor, Action.RSE_UPDATE, name, protocol=scheme, host=values["hostname"])
        return True

    run_and_wake(context, work)


def identity(protocol: Mapping[str, Any] | RowMapping) -> tuple[str, str, int]:
    """What tells the protocols of one RSE apart: scheme, host and port."""
    return protocol["scheme"], protocol["hostname"], protocol["port"]


def protocol_values(rse: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check a protocol and give its columns.

    Raises
    ------
    InvalidInput, InvalidName
        It cannot be meant.
    """
    # the client sends its name for the RSE's own protocols along, which says nothing
    unknown = sorted(set(options) - KEYS - {"rse", "rse_id"})
    if unknown:
        raise InvalidInput(
            f"{', '.join(unknown)[:200]}: a protocol has {', '.join(sorted(KEYS))}",
            rucio_class="InvalidObject",
        )
    scheme = options.get("scheme")
    if not isinstance(scheme, str) or not scheme:
        raise InvalidInput("a protocol needs its scheme", rucio_class="InvalidObject")
    values: dict[str, Any] = {
        "scheme": scheme,
        "hostname": options.get("hostname") or "",
        "port": options.get("port") or 0,
        "prefix": options.get("prefix") or "",
        "impl": options.get("impl") or _IMPLEMENTATIONS.get(scheme, _ANY_IMPLEMENTATION),
        "domains": read_domains(options.get("domains")),
        "extended_attributes": options.get("extended_attributes"),
    }
    _check(rse, values)
    return values


def _check(rse: str, values: Mapping[str, Any]) -> None:
    for key, kind, called in _KINDS:
        given = values[key]
        if given is not None and (not isinstance(given, kind) or isinstance(given, bool)):
            raise InvalidInput(f"{key} of a protocol is {called}", rucio_class="InvalidObject")
    if len(values["prefix"]) > 900 or len(values["impl"]) > 255:
        raise InvalidInput("prefix has at most 900 characters, impl at most 255", rucio_class="InvalidObject")
    if not values["impl"].isprintable() or not values["prefix"].isprintable():
        raise InvalidInput("prefix and impl are printable", rucio_class="InvalidObject")
    Endpoint(rse, values["scheme"], values["hostname"], values["port"], values["prefix"])


def read_domains(given: Any) -> Domains:
    """Check the domains of a protocol.

    Raises
    ------
    InvalidInput
        With Rucio's class for each of: no such domain, no such operation, no such priority.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not set(given) <= set(DOMAINS):
        raise InvalidInput(
            f"domains of a protocol are {' and '.join(DOMAINS)}", rucio_class="RSEProtocolDomainNotSupported"
        )
    cleaned: Domains = {}
    for domain, operations in given.items():
        if not isinstance(operations, Mapping):
            raise InvalidInput(f"domains.{domain} gives a priority for each operation")
        cleaned[domain] = {}
        for operation, priority in _both_ways(operations).items():
            if operation not in OPERATIONS:
                raise InvalidInput(
                    f"domains.{domain}.{str(operation)[:40]}: operations are {', '.join(OPERATIONS)}",
                    rucio_class="RSEOperationNotSupported",
                )
            cleaned[domain][operation] = _priority(f"domains.{domain}.{operation}", priority)
    return cleaned


def _both_ways(operations: Mapping[str, Any]) -> dict[str, Any]:
    """Read Rucio's older ``third_party_copy`` as both of what became of it."""
    spread = {key: value for key, value in operations.items() if key != "third_party_copy"}
    if "third_party_copy" in operations:
        both = operations["third_party_copy"]
        spread = {"third_party_copy_read": both, "third_party_copy_write": both, **spread}
    return spread


def _priority(place: str, value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_PRIORITY:
        raise InvalidInput(
            f"{place} is a priority from 1, the first, to {MAX_PRIORITY}; 0 or null is off",
            rucio_class="RSEProtocolPriorityError",
        )
    return value


def update_protocols(
    context: Context,
    actor: Actor,
    name: str,
    scheme: str,
    options: Mapping[str, Any],
    *,
    hostname: str | None,
    port: int | None,
) -> None:
    """Change the protocols of a scheme, of one host and port if given.

    Parameters
    ----------
    options
        ``prefix``, ``impl``, ``extended_attributes``, and ``domains``, of which only the operations that are named
        change.

    Raises
    ------
    NotFound
        There is none like that.
    InvalidInput
        A value cannot be meant, or is not one that changes.
    """
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))
    fixed = sorted({"scheme", "hostname", "port"} & set(options))
    if fixed:
        raise InvalidInput(
            f"{', '.join(fixed)} of a protocol cannot change: delete it and add another",
            rucio_class="InvalidObject",
        )
    domains = read_domains(options.get("domains"))

    def work(connection: Connection) -> bool:
        row = require_rse(connection, name, lock=True)
        protocols = store.protocols_of(connection, [row["id"]])[row["id"]]
        chosen = _chosen(name, protocols, scheme, hostname, port)
        store.set_protocols(
            connection,
            [
                {"rse_id": row["id"], **changed_protocol(name, protocol, options, domains)}
                for protocol in chosen
            ],
        )
        audit.record(connection, actor, Action.RSE_UPDATE, name, protocol=scheme, changed=sorted(options))
        return True

    run_and_wake(context, work)


def changed_protocol(
    rse: str, known: RowMapping, options: Mapping[str, Any], domains: Domains
) -> dict[str, Any]:
    """Columns of a protocol after a change."""
    before = known["domains"] or {}
    merged = {
        domain: {**before.get(domain, {}), **domains.get(domain, {})}
        for domain in DOMAINS
        if domain in before or domain in domains
    }
    kept = {key: known[key] for key in KEYS}
    return protocol_values(rse, {**kept, **options, "domains": merged})


def _chosen(
    rse: str, protocols: Iterable[RowMapping], scheme: str, hostname: str | None, port: int | None
) -> list[RowMapping]:
    chosen = [
        protocol
        for protocol in protocols
        if protocol["scheme"] == scheme
        and hostname in {None, protocol["hostname"]}
        and port in {None, protocol["port"]}
    ]
    if not chosen:
        raise NotFound(
            f"RSE {rse} has no protocol {scheme[:40]}://{(hostname or '*')[:80]}:{'*' if port is None else port}",
            rucio_class="RSEProtocolNotSupported",
        )
    return chosen


def list_protocols(
    context: Context, name: str, *, domain: str = "ALL", operation: str | None = None, only_best: bool = False
) -> list[dict[str, Any]]:
    """Give the protocols of an RSE that are asked for, for an operation the first ones first.

    Parameters
    ----------
    only_best
        Of those for the operation only the one that comes first.

    Raises
    ------
    NotFound
        No protocol at all, or none for that operation.
    """
    described = get_rse(context, name)
    found = offering(name, described["protocols"], domain=domain, operation=operation)
    return found[:1] if only_best else found


def offering(
    rse: str, protocols: Sequence[dict[str, Any]], *, domain: str = "ALL", operation: str | None = None
) -> list[dict[str, Any]]:
    """Choose the protocols that do an operation in a domain, the best first.

    Raises
    ------
    NotFound
        There is none.
    InvalidInput
        No such domain or operation.
    """
    domains = DOMAINS if domain.upper() == "ALL" else (domain.lower(),)
    if not set(domains) <= set(DOMAINS):
        raise InvalidInput(
            f"domain is {', '.join(DOMAINS)} or ALL", rucio_class="RSEProtocolDomainNotSupported"
        )
    if operation is not None and operation not in OPERATIONS:
        raise InvalidInput(
            f"operation is one of {', '.join(OPERATIONS)}", rucio_class="RSEOperationNotSupported"
        )
    if not protocols:
        raise NotFound(f"RSE {rse} has no such protocol", rucio_class="RSEProtocolNotSupported")
    ranked = [
        (min(priorities), number)
        for number, protocol in enumerate(protocols)
        if (
            priorities := [
                priority
                for one in domains
                for name, priority in protocol["domains"][one].items()
                if priority and operation in {None, name}
            ]
        )
    ]
    if operation is None:
        return list(protocols)
    if not ranked:
        raise NotFound(
            f"no protocol of RSE {rse} is there to {operation} in {' or '.join(domains)}",
            rucio_class="RSEOperationNotSupported",
        )
    return [protocols[number] for _, number in sorted(ranked)]


def get_protocols(context: Context, name: str, scheme: str) -> dict[str, Any]:
    """Describe an RSE that has a protocol of some scheme: those of the scheme come first.

    The others follow, as in Rucio: the official client's ``swap_protocols`` looks for both of its schemes here.

    Raises
    ------
    NotFound
        No protocol of that scheme.
    """
    described = get_rse(context, name)
    if all(protocol["scheme"] != scheme for protocol in described["protocols"]):
        raise NotFound(f"RSE {name} has no protocol {scheme[:40]}", rucio_class="RSEProtocolNotSupported")
    protocols = sorted(described["protocols"], key=lambda protocol: protocol["scheme"] != scheme)
    return {**described, "protocols": protocols}


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
        protocols = store.protocols_of(connection, [row["id"]])[row["id"]]
        chosen = _chosen(name, protocols, scheme, hostname, port)
        store.delete_protocols(connection, [protocol["id"] for protocol in chosen])
        audit.record(connection, actor, Action.RSE_UPDATE, name, protocol_removed=scheme)

    context.database.run(work)
