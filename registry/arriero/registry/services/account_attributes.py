"""Attributes of accounts: words that operators hang on them, of no meaning to Arriero itself."""

import re
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.services import audit
from arriero.registry.services.accounts import require_account
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rse_attributes import attribute_text
from arriero.registry.store import account_attributes as store

_KEY = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)
_BOOLEANS = {"true": True, "false": False}


def list_attributes(context: Context, account: str) -> list[dict[str, Any]]:
    """List the attributes of an account, by key; ``true`` and ``false`` as booleans, as Rucio does."""
    with context.database.snapshot() as connection:
        account_id = require_account(connection, account)
        rows = connection.execute(store.attribute_rows(account_id)).all()
    return [{"key": row.key, "value": _BOOLEANS.get(row.value, row.value)} for row in rows]


def add_attribute(context: Context, actor: Actor, account: str, key: str, value: Any) -> None:
    """Add an attribute to an account.

    Raises
    ------
    Conflict
        It has one of that key.
    InvalidInput
        The key or the value cannot be meant.
    """
    authorize(actor, Action.ACCOUNT_UPDATE, Target(account))
    if _KEY.fullmatch(key) is None:
        raise InvalidInput("an attribute's key has 1 to 255 letters, digits, '.', '_' and '-'")
    if value is None or isinstance(value, (dict, list)):
        raise InvalidInput(f"attribute {key} needs a value: a text, a number or a boolean")
    text = attribute_text(value)

    def work(connection: Connection) -> None:
        store.add_attribute(connection, require_account(connection, account), key, text)
        audit.record(connection, actor, Action.ACCOUNT_UPDATE, account, attribute=key, value=text)

    try:
        context.database.run(work)
    except IntegrityError as error:
        raise Conflict(f"account {account} has an attribute {key} already: delete it first") from error


def delete_attribute(context: Context, actor: Actor, account: str, key: str) -> None:
    """Remove an attribute of an account.

    Raises
    ------
    NotFound
        It has none of that key.
    """
    authorize(actor, Action.ACCOUNT_UPDATE, Target(account))

    def work(connection: Connection) -> None:
        if not store.delete_attribute(connection, require_account(connection, account), key):
            raise NotFound(f"account {account} has no attribute {key[:80]!a}", rucio_class="AccountNotFound")
        audit.record(connection, actor, Action.ACCOUNT_UPDATE, account, attribute_removed=key)

    context.database.run(work)
