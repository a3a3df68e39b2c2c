"""Brings the configuration of RSEs into the catalogue from one document, whole or not at all.

What is there already is changed to what the document says (``edit``, Rucio's default) or left alone (``append``);
what the document does not name stays, except attributes and protocols with ``hard``. RSEs themselves are only removed
one by one (`arriero.registry.services.rses.delete_rse`). The same document twice changes nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, InvalidInput, NotFound, RegistryError, TooLarge, Unsupported
from arriero.registry.ports import Bell
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.names import check_rse_name
from arriero.registry.services.rse_attributes import FIXED, check_attribute
from arriero.registry.services.rse_distances import check_distance
from arriero.registry.services.rse_export import MIN_FREE_SPACE
from arriero.registry.services.rse_protocols import identity, protocol_values
from arriero.registry.services.rse_settings import RseSettings, merged_details, read_settings
from arriero.registry.services.rse_wakes import wake_stuck
from arriero.registry.services.rses import is_attribute
from arriero.registry.store import rse_import as import_store
from arriero.registry.store import rse_usage as usage_store
from arriero.registry.store import rses as store
from arriero.registry.store.rse_health import forget_pauses
from arriero.registry.unsupported import IMPORT_ACCOUNTS
from arriero.rse.errors import RSEError

_MAX_LIMIT = 2**62

_OF_EXPORTS = frozenset(
    {
        *("id", "rse", "rse_id", "credentials", "sign_url", "domain", "deleted", "deleted_at"),
        *("created_at", "updated_at", "availability", "verify_checksum", "lfn2pfn_algorithm"),
    }
)
"""What Rucio writes beside the settings: passed over, or an attribute."""

_KNOWN = (
    frozenset(RseSettings.model_fields) | _OF_EXPORTS | {"attributes", "protocols", "limits", MIN_FREE_SPACE}
)


class Sync(StrEnum):
    """What becomes of what is there already: Rucio's words."""

    APPEND = "append"
    EDIT = "edit"
    HARD = "hard"


@dataclass(frozen=True, slots=True)
class SyncMethods:
    """One for each kind of thing."""

    rses: Sync = Sync.EDIT
    attributes: Sync = Sync.EDIT
    protocols: Sync = Sync.EDIT


@dataclass(frozen=True, slots=True)
class _Wanted:
    settings: dict[str, Any]
    attributes: dict[str, str]
    protocols: list[dict[str, Any]]
    limits: dict[str, int]


@dataclass(slots=True)
class _Changes:
    """Rows to write, gathered over all RSEs."""

    attributes: list[tuple[int, str, str]] = field(default_factory=list)
    attributes_gone: list[tuple[int, str]] = field(default_factory=list)
    protocols: list[dict[str, Any]] = field(default_factory=list)
    protocols_gone: list[int] = field(default_factory=list)
    limits: list[tuple[int, str, int]] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    fixed: dict[int, str] = field(default_factory=dict)
    """RSEs of which something changes that paths rest on, with the place in the document."""


def import_rses(
    context: Context, actor: Actor, document: Mapping[str, Any], methods: SyncMethods | None = None
) -> dict[str, int]:
    """Bring RSEs and distances into the catalogue, in one transaction and a fixed number of statements.

    Parameters
    ----------
    document
        ``rses``: by name, their settings with ``attributes``, ``protocols``, ``limits``; ``distances``: by source and
        destination.

    Returns
    -------
    dict
        How many RSEs and distances the document has, and how many of the RSEs are new.

    Raises
    ------
    InvalidInput
        Names the place in the document.
    Conflict
        A change is asked for that replicas stand against.
    Unsupported
        It has accounts too, or RSEs are to be removed.
    """
    authorize(actor, Action.RSE_IMPORT, Target("rses"))
    methods = methods or SyncMethods()
    if methods.rses is Sync.HARD:
        raise Unsupported("an import removes no RSEs: remove those that are not wanted one by one")
    if document.get("accounts"):
        raise Unsupported(IMPORT_ACCOUNTS)
    if unknown := sorted(set(document) - {"rses", "distances", "accounts"}):
        raise InvalidInput(f"{', '.join(unknown)[:200]}: the document has rses and distances")
    wanted = _read_rses(document.get("rses") or {})
    links = _read_distances(document.get("distances") or {})
    items = len(links) + sum(1 + len(one.attributes) + len(one.protocols) for one in wanted.values())
    limit = 10 * context.settings.max_bulk_items
    if items > limit:
        raise TooLarge(f"at most {limit} RSEs, attributes, protocols and distances at once: import in parts")

    def work(connection: Connection) -> tuple[bool, dict[str, int]]:
        before = import_store.lock_rses(connection)
        new = _write_rses(connection, before, wanted, methods)
        _write_distances(connection, links)
        forget_pauses(connection)
        counted = {"rses": len(wanted), "new_rses": new, "distances": len(links)}
        audit.record(connection, actor, Action.RSE_IMPORT, "rses", **counted)
        return wake_stuck(connection), counted

    try:
        woken, counted = context.database.run(work)
    except IntegrityError:
        # another import has just added what is new here: now it is not new any more
        woken, counted = context.database.run(work)
    if woken:
        context.doorbell.ring(Bell.EVALUATIONS)
    return counted


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Say where in the document something is wrong."""
    try:
        yield
    except RegistryError as error:
        kind = type(error)
        raise kind(
            f"{place}: {error.message}", rucio_class=error.rucio_class, code=error.stable_code
        ) from error
    except RSEError as error:
        raise InvalidInput(f"{place}: {error.message}", code=error.code) from error


def _mapping(place: str, given: Any) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{place}: is an object")
    return given


def _read_rses(given: Any) -> dict[str, _Wanted]:
    return {name: _read_rse(name, one) for name, one in _mapping("rses", given).items()}


def _read_rse(name: str, given: Any) -> _Wanted:
    place = f"rses.{name[:80]}"
    with _at(place):
        check_rse_name(name)
    said = _mapping(place, given)
    if unknown := sorted(set(said) - _KNOWN):
        raise InvalidInput(f"{place}.{unknown[0][:80]}: nothing of that name belongs to an RSE")
    with _at(place):
        settings = read_settings(
            {
                key: value
                for key, value in said.items()
                if key in RseSettings.model_fields and key != "availability"
            }
        )
    attributes = dict(_mapping(f"{place}.attributes", said.get("attributes")))
    attributes.pop(name, None)
    for key in ("lfn2pfn_algorithm", "verify_checksum"):
        if said.get(key) is not None:
            attributes.setdefault(key, said[key])
    texts = {}
    for key, value in attributes.items():
        with _at(f"{place}.attributes.{key[:80]}"):
            if value is not None:
                texts[key] = check_attribute(name, key, value)
    return _Wanted(
        settings, texts, _read_protocols(name, place, said.get("protocols")), _read_limits(place, said)
    )


def _read_protocols(name: str, place: str, given: Any) -> list[dict[str, Any]]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise InvalidInput(f"{place}.protocols: is a list")
    protocols: dict[tuple[str, str, int], dict[str, Any]] = {}
    for number, one in enumerate(given):
        here = f"{place}.protocols[{number}]"
        with _at(here):
            values = protocol_values(name, _mapping(here, one))
        if identity(values) in protocols:
            raise InvalidInput(f"{here}: scheme, host and port are those of another one")
        protocols[identity(values)] = values
    return list(protocols.values())


def _read_limits(place: str, said: Mapping[str, Any]) -> dict[str, int]:
    limits = dict(_mapping(f"{place}.limits", said.get("limits")))
    if said.get(MIN_FREE_SPACE) is not None:
        limits[MIN_FREE_SPACE] = said[MIN_FREE_SPACE]
    for key, value in limits.items():
        if not 1 <= len(key) <= 64 or not key.isprintable():
            raise InvalidInput(f"{place}.limits: the name of a limit has 1 to 64 printable characters")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_LIMIT:
            raise InvalidInput(f"{place}.limits.{key}: is a number of bytes")
    return limits


def _read_distances(given: Any) -> dict[tuple[str, str], int]:
    links = {}
    for source, ends in _mapping("distances", given).items():
        for destination, one in _mapping(f"distances.{source[:80]}", ends).items():
            place = f"distances.{source[:80]}.{destination[:80]}"
            value = one
            if isinstance(one, Mapping):
                value = one.get("ranking") if one.get("distance") is None else one["distance"]
            if not isinstance(value, int) or isinstance(value, bool):
                raise InvalidInput(f"{place}: gives the distance, a whole number")
            with _at(place):
                links[source, destination] = check_distance(value)
    return links


def _write_rses(
    connection: Connection,
    before: Mapping[str, RowMapping],
    wanted: Mapping[str, _Wanted],
    methods: SyncMethods,
) -> int:
    """Write RSEs and what belongs to them; give how many are new."""
    known = {name for name, row in before.items() if row["deleted_at"] is None}
    names = known | wanted.keys()
    for name, one in wanted.items():
        if clash := sorted(set(one.attributes) & names):
            raise InvalidInput(f"rses.{name}.attributes.{clash[0]}: is the name of an RSE")
    for name in store.attributes_among(connection, wanted.keys() - known):
        with _at(f"rses.{name}"):
            raise is_attribute(name)
    added = import_store.add_rses(
        connection,
        [
            {"name": name, **one.settings, "details": merged_details(None, one.settings.get("details", {}))}
            for name, one in sorted(wanted.items(), key=itemgetter(0))
            if name not in before
        ],
    )
    ids = {**added, **{name: before[name]["id"] for name in wanted if name in before}}
    removed = {name for name in wanted if name in before and before[name]["deleted_at"] is not None}
    if methods.rses is Sync.APPEND:
        # as in Rucio: what was removed stays so
        ids = {name: rse_id for name, rse_id in ids.items() if name not in removed}
    changes = _Changes()
    for name in ids:
        if name in before:
            _change_settings(changes, name, before[name], wanted[name].settings, restore=name in removed)
    attributes = import_store.attributes_of(connection, ids.values())
    protocols = store.protocols_of(connection, ids.values())
    for name, rse_id in ids.items():
        _change_attributes(
            changes, (name, rse_id), attributes[rse_id], wanted[name].attributes, methods.attributes
        )
        _change_protocols(changes, rse_id, protocols[rse_id], wanted[name], methods.protocols)
        changes.limits += [(rse_id, key, value) for key, value in wanted[name].limits.items()]
    _refuse_to_move(connection, changes)
    _apply(connection, changes)
    return len(added)


def _change_settings(
    changes: _Changes, name: str, row: RowMapping, settings: Mapping[str, Any], *, restore: bool
) -> None:
    change = {**settings, "deleted_at": None} if restore else dict(settings)
    if "details" in change:
        change["details"] = merged_details(row["details"], change["details"])
    change = {key: value for key, value in change.items() if row[key] != value}
    if "deterministic" in change:
        changes.fixed[row["id"]] = f"rses.{name}.deterministic"
    if change:
        changes.settings.append({"id": row["id"], **change})


def _change_attributes(
    changes: _Changes,
    rse: tuple[str, int],
    known: Mapping[str, str],
    wanted: Mapping[str, str],
    method: Sync,
) -> None:
    name, rse_id = rse
    for key, text in wanted.items():
        if known.get(key) == text or (key in known and method is Sync.APPEND):
            continue
        changes.attributes.append((rse_id, key, text))
        if key in FIXED:
            changes.fixed[rse_id] = f"rses.{name}.attributes.{key}"
    if method is Sync.HARD:
        gone = sorted(set(known) - set(wanted))
        changes.attributes_gone += [(rse_id, key) for key in gone]
        if FIXED & set(gone):
            changes.fixed[rse_id] = f"rses.{name}.attributes"


def _change_protocols(
    changes: _Changes, rse_id: int, known: list[RowMapping], wanted: _Wanted, method: Sync
) -> None:
    there = {identity(protocol): protocol for protocol in known}
    for values in wanted.protocols:
        if identity(values) in there and method is Sync.APPEND:
            continue
        changes.protocols.append({"rse_id": rse_id, **values})
    if method is Sync.HARD and wanted.protocols:
        kept = set(map(identity, wanted.protocols))
        changes.protocols_gone += [protocol["id"] for key, protocol in there.items() if key not in kept]


def _refuse_to_move(connection: Connection, changes: _Changes) -> None:
    held = import_store.with_replicas(connection, changes.fixed)
    if held:
        place = min(changes.fixed[rse_id] for rse_id in held)
        raise Conflict(f"{place}: cannot change, replicas lie where it says; add another RSE")


def _apply(connection: Connection, changes: _Changes) -> None:
    import_store.update_rses(connection, changes.settings)
    import_store.delete_attributes(connection, changes.attributes_gone)
    store.set_attributes(connection, changes.attributes)
    if changes.protocols_gone:
        store.delete_protocols(connection, changes.protocols_gone)
    store.set_protocols(connection, changes.protocols)
    usage_store.set_limits(connection, changes.limits)


def _write_distances(connection: Connection, links: Mapping[tuple[str, str], int]) -> None:
    if not links:
        return
    ids = {row["name"]: row["id"] for row in store.rse_rows(connection)}
    for source, destination in links:
        for name in (source, destination):
            if name not in ids:
                raise NotFound(
                    f"distances.{source[:80]}.{destination[:80]}: there is no RSE {name[:80]!r}",
                    rucio_class="RSENotFound",
                )
    store.set_distances(
        connection, [(ids[source], ids[destination], value) for (source, destination), value in links.items()]
    )
