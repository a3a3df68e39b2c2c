"""Attributes of RSEs: what RSE expressions look at, and what settles where files lie."""

from typing import Any

from sqlalchemy import Connection

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rse_wakes import run_and_wake
from arriero.registry.services.rses import require_rse
from arriero.registry.store import rses as store
from arriero.rse.lfn2pfn import path_for

FIXED = frozenset({store.ALGORITHM_ATTRIBUTE})
"""Attributes on which the paths of replicas rest."""

_WORDS = {"true": True, "false": False}


def attribute_text(value: Any) -> str:
    """Write an attribute's value as text: what an expression compares.

    Truth values are `true` and `false`, however they were written.

    Raises
    ------
    InvalidInput
        It is not one value on one line.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise InvalidInput("an attribute's value is a text, a number, true or false")
    text = str(value)
    if len(text) > 1000 or not text.isprintable():
        raise InvalidInput("an attribute's value is one line of at most 1000 characters")
    return text.lower() if text.lower() in _WORDS else text


def attribute_value(text: str) -> str | bool:
    """Read an attribute's value as Rucio gives it: truth values as such, the rest as text."""
    return _WORDS.get(text, text)


def check_attribute(rse: str, key: str, value: Any) -> str:
    """Give the text of an attribute that may be set.

    Raises
    ------
    InvalidInput
        The key or the value cannot be meant.
    Unsupported
        There is no such way from LFN to PFN.
    """
    if not key or len(key) > 255 or not (key.isascii() and all(c.isalnum() or c in "._-" for c in key)):
        raise InvalidInput("an attribute's key has letters, digits, '.', '_' and '-'")
    if key == rse:
        raise InvalidInput(f"every RSE has its own name as an attribute: {key[:80]!r} cannot be set")
    if value is None:
        raise InvalidInput(f"attribute {key} needs a value")
    text = attribute_text(value)
    if key == store.ALGORITHM_ATTRIBUTE:
        path_for(text, "scope", "name")
    return text


def set_attribute(context: Context, actor: Actor, name: str, key: str, value: Any) -> None:
    """Set an attribute of an RSE, whether or not it was there; expressions see it at once.

    Raises
    ------
    InvalidInput
        The key or the value cannot be meant.
    Conflict
        Paths of replicas rest on it.
    """
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))
    text = check_attribute(name, key, value)

    def work(connection: Connection) -> bool:
        row = require_rse(connection, name, lock=True)
        if store.rse_row(connection, key) is not None:
            raise InvalidInput(f"{key!r} is the name of an RSE: expressions could not tell them apart")
        known = store.load_rses(connection, [name])[name].attributes.get(key)
        if key in FIXED and known != text:
            refuse_to_move(connection, row["id"], name, key)
        store.set_attributes(connection, [(row["id"], key, text)])
        audit.record(connection, actor, Action.RSE_UPDATE, name, attribute=key, value=text)
        return known != text

    run_and_wake(context, work)


def refuse_to_move(connection: Connection, rse_id: int, name: str, what: str) -> None:
    """Refuse a change after which replicas would not lie where they are.

    Raises
    ------
    Conflict
        There are replicas.
    """
    if store.has_replicas(connection, rse_id):
        raise Conflict(
            f"{what} of {name} cannot change: replicas lie where it says; add another RSE",
            rucio_class="RSEOperationNotSupported",
        )


def delete_attribute(context: Context, actor: Actor, name: str, key: str) -> None:
    """Remove an attribute of an RSE.

    Raises
    ------
    NotFound
        It is not there.
    Conflict
        Paths of replicas rest on it.
    """
    authorize(actor, Action.RSE_UPDATE, Target(name, rse=name))

    def work(connection: Connection) -> bool:
        row = require_rse(connection, name, lock=True)
        if not store.delete_attribute(connection, row["id"], key):
            raise NotFound(f"RSE {name} has no attribute {key[:80]!r}", rucio_class="RSEAttributeNotFound")
        if key in FIXED:
            refuse_to_move(connection, row["id"], name, key)
        audit.record(connection, actor, Action.RSE_UPDATE, name, attribute_removed=key)
        return True

    run_and_wake(context, work)


def list_attributes(context: Context, name: str) -> dict[str, Any]:
    """Attributes of an RSE; its own name is one, as in Rucio."""
    with context.database.snapshot() as connection:
        require_rse(connection, name)
        attributes = store.load_rses(connection, [name])[name].attributes
    return {name: True, **{key: attribute_value(value) for key, value in attributes.items()}}
