"""Accounts, and the scopes that they own."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import scope_missing
from arriero.registry.services.names import check_account_name, check_scope_name, word_of
from arriero.registry.services.rse_attributes import attribute_text
from arriero.registry.states import AccountType, Role
from arriero.registry.store import accounts as store
from arriero.registry.store.streaming import streamed

MAX_EMAIL_CHARACTERS = 255
STATUSES = ("ACTIVE", "SUSPENDED", "DELETED")


def account_missing(name: str) -> NotFound:
    """Error for an account that is not there."""
    return NotFound(f"there is no account {name[:80]!r}", rucio_class="AccountNotFound")


def require_account(connection: Connection, name: str, *, lock: bool = False) -> int:
    """Give the id of an account.

    Parameters
    ----------
    lock
        Hold it until the transaction ends, also against rules that are being added for it.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    found = store.account_id(connection, name, lock=lock)
    if found is None:
        raise account_missing(name)
    return found


def add_account(
    context: Context, actor: Actor, name: str, *, kind: str, email: str | None, role: str | None = None
) -> None:
    """Add an account.

    Parameters
    ----------
    kind
        ``USER``, ``GROUP`` or ``SERVICE``.
    role
        A word of `Role`; by default a user or group is a data manager and a service a reader.

    Raises
    ------
    Conflict
        There is one of that name.
    InvalidInput
        Name, kind or role cannot be meant.
    """
    authorize(actor, Action.ACCOUNT_ADD, Target(name))
    check_account_name(name)
    check_email(email)
    given = word_of(AccountType, kind, "an account's type")
    default = Role.READER if given is AccountType.SERVICE else Role.DATA_MANAGER
    chosen = default if role is None else word_of(Role, role, "a role")

    def work(connection: Connection) -> None:
        if store.account_row(connection, name) is not None:
            raise Conflict(f"there is an account {name!r} already, or there was: no name is given twice")
        store.add_account(connection, name, given, chosen, email)
        audit.record(connection, actor, Action.ACCOUNT_ADD, name, role=chosen)

    _once(context, work, f"there is an account {name!r} already")


def _once(context: Context, work: Any, already: str) -> None:
    try:
        context.database.run(work)
    except IntegrityError as error:
        raise Conflict(already) from error


def get_account(context: Context, name: str) -> dict[str, Any]:
    """Describe an account in Rucio's shape, with its role."""
    with context.database.snapshot() as connection:
        row = store.account_row(connection, name)
    if row is None:
        raise account_missing(name)
    return _wire_account(row)


def _wire_account(row: RowMapping) -> dict[str, Any]:
    return {
        "account": row["name"],
        "account_type": row["type"],
        "status": _status(row),
        "role": row["role"],
        "email": row["email"],
        "suspended_at": row["suspended_at"],
        "deleted_at": row["deleted_at"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def _status(row: RowMapping) -> str:
    if row["deleted_at"] is not None:
        return "DELETED"
    return "ACTIVE" if row["suspended_at"] is None else "SUSPENDED"


def list_accounts(context: Context, filters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """List accounts by name; those that can log in, unless another status is asked for, as Rucio does.

    Parameters
    ----------
    filters
        ``account``, ``account_type``, ``email``, ``role``, ``identity``, ``status``; anything else is an attribute.

    Raises
    ------
    InvalidInput
        There is no such type, role or status.
    """
    attributes = dict(filters)
    equal: dict[str, Any] = {}
    if "account_type" in attributes:
        equal["type"] = word_of(AccountType, attributes.pop("account_type"), "an account's type")
    if "role" in attributes:
        equal["role"] = word_of(Role, attributes.pop("role"), "a role")
    if "account" in attributes:
        equal["name"] = attributes.pop("account")
    if "email" in attributes:
        equal["email"] = attributes.pop("email")
    status = attributes.pop("status", "ACTIVE").upper()
    if status not in STATUSES:
        raise InvalidInput(f"status is one of {', '.join(STATUSES)}")
    identity = attributes.pop("identity", None)
    wanted = {key: attribute_text(value) for key, value in attributes.items()}
    query = store.account_rows(equal, status, identity, wanted)
    with context.database.snapshot() as connection, streamed(connection, query) as rows:
        for row in rows:
            yield {"account": row["name"], "type": row["type"], "email": row["email"]}


def update_account(context: Context, actor: Actor, name: str, changes: Mapping[str, Any]) -> None:
    """Change an account: ``status`` (ACTIVE, SUSPENDED), ``email``, ``account_type``, ``role``.

    Raises
    ------
    InvalidInput
        Something else, or not such a value.
    Conflict
        Nobody would be left who can administrate.
    """
    authorize(actor, Action.ACCOUNT_UPDATE, Target(name))
    unknown = sorted(set(changes) - {"status", "email", "account_type", "role"})
    if unknown or not changes:
        raise InvalidInput("of an account status, email, account_type and role can change")
    status = str(changes.get("status", "ACTIVE")).upper()
    if status not in ("ACTIVE", "SUSPENDED"):
        raise InvalidInput("status is ACTIVE or SUSPENDED; an account is deleted with `rucio account remove`")

    rest: dict[str, Any] = {}
    if "email" in changes:
        rest["email"] = check_email(changes["email"])
    if "account_type" in changes:
        rest["type"] = word_of(AccountType, str(changes["account_type"]), "an account's type")
    if "role" in changes:
        rest["role"] = word_of(Role, str(changes["role"]), "a role")

    def work(connection: Connection) -> None:
        if status == "SUSPENDED" or rest.get("role", Role.ADMIN) is not Role.ADMIN:
            _keep_an_administrator(connection, require_account(connection, name))
        require_account(connection, name)
        if "status" in changes:
            store.set_suspended(connection, name, suspended=status == "SUSPENDED")
        if rest:
            store.update_account(connection, name, rest)
        audit.record(connection, actor, Action.ACCOUNT_UPDATE, name, **changes)

    context.database.run(work)


def delete_account(context: Context, actor: Actor, name: str) -> None:
    """Delete an account, as Rucio does: it stays as a name, and nobody logs in as it any more.

    Raises
    ------
    NotFound
        There is none of that name.
    Conflict
        It has rules, or it is the last administrator.
    """
    authorize(actor, Action.ACCOUNT_REMOVE, Target(name))

    def work(connection: Connection) -> None:
        owner_id = require_account(connection, name, lock=True)
        _keep_an_administrator(connection, owner_id)
        if store.has_rules(connection, owner_id):
            raise Conflict(
                f"account {name} has rules: remove them first (`rucio rule list --account {name}`), "
                "or suspend the account (`rucio account update --ban`)",
                rucio_class="UnsupportedOperation",
            )
        store.delete_account(connection, owner_id)
        audit.record(connection, actor, Action.ACCOUNT_REMOVE, name)

    context.database.run(work)


def _keep_an_administrator(connection: Connection, leaving_id: int) -> None:
    if store.lock_active_admins(connection) == {leaving_id}:
        raise Conflict(
            "this is the last administrator that can log in: give another account the role admin first",
            rucio_class="UnsupportedOperation",
        )


def check_email(email: object) -> str | None:
    """Give an email address back if it may be one."""
    if email is not None and (not isinstance(email, str) or len(email) > MAX_EMAIL_CHARACTERS):
        raise InvalidInput(f"an email is a text of at most {MAX_EMAIL_CHARACTERS} characters, or null")
    return email


def add_scope(context: Context, actor: Actor, account: str, scope: str) -> None:
    """Add a scope that belongs to an account.

    Raises
    ------
    Conflict
        There is one of that name.
    NotFound
        There is no such account.
    """
    authorize(actor, Action.SCOPE_ADD, Target(scope))
    check_scope_name(scope)

    def work(connection: Connection) -> None:
        owner_id = require_account(connection, account)
        if store.scope_exists(connection, scope):
            raise Conflict(f"there is a scope {scope!r} already")
        store.add_scope(connection, scope, owner_id)
        audit.record(connection, actor, Action.SCOPE_ADD, scope, owner=account)

    _once(context, work, f"there is a scope {scope!r} already")


def update_scope(context: Context, actor: Actor, account: str, scope: str) -> None:
    """Give a scope to another account.

    Raises
    ------
    NotFound
        There is no such account or scope.
    """
    authorize(actor, Action.SCOPE_UPDATE, Target(scope[:40]))

    def work(connection: Connection) -> None:
        owner_id = require_account(connection, account)
        if not store.set_scope_owner(connection, scope, owner_id):
            raise scope_missing(scope)
        audit.record(connection, actor, Action.SCOPE_UPDATE, scope, owner=account)

    context.database.run(work)


def list_scopes(context: Context, owner: str | None = None) -> list[dict[str, str]]:
    """List scopes with their owners, those of one account if it is given.

    Raises
    ------
    NotFound
        There is no such account, or it owns none (as Rucio answers).
    """
    with context.database.snapshot() as connection:
        if owner is not None:
            require_account(connection, owner)
        rows = connection.execute(store.scope_rows(owner)).all()
    if owner is not None and not rows:
        raise NotFound(f"account {owner} owns no scope", rucio_class="ScopeNotFound")
    return [{"scope": row.name, "account": row.account} for row in rows]
