"""Accounts, their identities, and the scopes that they own."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, InvalidInput, NotFound, Unsupported
from arriero.registry.services import audit
from arriero.registry.services.authentication import hash_password
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.names import check_account_name, check_scope_name, word_of
from arriero.registry.states import AccountType, IdentityType, Role
from arriero.registry.store import accounts as store
from arriero.registry.store.streaming import streamed

MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_CHARACTERS = 1024
MAX_EMAIL_CHARACTERS = 255


def _account_missing(name: str) -> NotFound:
    return NotFound(f"there is no account {name[:80]!r}", rucio_class="AccountNotFound")


def require_account(connection: Connection, name: str) -> int:
    """Give the id of an account.

    Raises
    ------
    NotFound
        There is none of that name.
    """
    found = store.account_id(connection, name)
    if found is None:
        raise _account_missing(name)
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
    _check_email(email)
    given = word_of(AccountType, kind, "an account's type")
    default = Role.READER if given is AccountType.SERVICE else Role.DATA_MANAGER
    chosen = default if role is None else word_of(Role, role, "a role")

    def work(connection: Connection) -> None:
        if store.account_id(connection, name) is not None:
            raise Conflict(f"there is an account {name!r} already")
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
        raise _account_missing(name)
    return _wire_account(row)


def _wire_account(row: RowMapping) -> dict[str, Any]:
    return {
        "account": row["name"],
        "account_type": row["type"],
        "status": "ACTIVE" if row["suspended_at"] is None else "SUSPENDED",
        "role": row["role"],
        "email": row["email"],
        "suspended_at": row["suspended_at"],
        "deleted_at": None,
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def list_accounts(context: Context, *, kind: str | None, identity: str | None) -> Iterator[dict[str, Any]]:
    """List accounts by name.

    Raises
    ------
    InvalidInput
        There is no such type.
    """
    chosen = None if kind is None else word_of(AccountType, kind, "an account's type")
    query = store.account_rows(chosen, identity)
    with context.database.snapshot() as connection, streamed(connection, query) as rows:
        for row in rows:
            yield {"account": row["name"], "type": row["type"], "email": row["email"]}


def update_account(context: Context, actor: Actor, name: str, changes: Mapping[str, Any]) -> None:
    """Change an account: ``status`` (ACTIVE, SUSPENDED), ``email``, ``role``.

    Raises
    ------
    InvalidInput
        Something else, or not such a value.
    """
    authorize(actor, Action.ACCOUNT_UPDATE, Target(name))
    unknown = sorted(set(changes) - {"status", "email", "role"})
    if unknown or not changes:
        raise InvalidInput("of an account status, email and role can change")
    if changes.get("status", "ACTIVE") not in ("ACTIVE", "SUSPENDED"):
        raise InvalidInput("status is ACTIVE or SUSPENDED")

    rest: dict[str, Any] = {}
    if "email" in changes:
        rest["email"] = _check_email(changes["email"])
    if "role" in changes:
        rest["role"] = word_of(Role, str(changes["role"]), "a role")

    def work(connection: Connection) -> None:
        require_account(connection, name)
        if "status" in changes:
            store.set_suspended(connection, name, suspended=changes["status"] == "SUSPENDED")
        if rest:
            store.update_account(connection, name, rest)
        audit.record(connection, actor, Action.ACCOUNT_UPDATE, name, **changes)

    context.database.run(work)


def _check_email(email: object) -> str | None:
    if email is not None and (not isinstance(email, str) or len(email) > MAX_EMAIL_CHARACTERS):
        raise InvalidInput(f"an email is a text of at most {MAX_EMAIL_CHARACTERS} characters, or null")
    return email


def add_identity(
    context: Context,
    actor: Actor,
    name: str,
    *,
    identity: str,
    kind: str,
    password: str | None,
    is_default: bool = False,
) -> None:
    """Let an identity act as an account.

    Parameters
    ----------
    kind
        ``USERPASS``; others come with their ways of logging in.
    password
        Of a user; stored as an argon2id hash only.

    Raises
    ------
    InvalidInput
        The password is too short or too long, or the user name is empty.
    Conflict
        It may already.
    """
    authorize(actor, Action.IDENTITY_ADD, Target(name, owner=name))
    if kind.upper() != IdentityType.USERPASS:
        raise Unsupported(f"identities of type {kind[:20]} cannot log in yet: use USERPASS")
    if not identity or len(identity) > 2048 or not identity.isprintable():
        raise InvalidInput("a user name is one line of at most 2048 characters")
    if password is None or not MIN_PASSWORD_CHARACTERS <= len(password) <= MAX_PASSWORD_CHARACTERS:
        raise InvalidInput(
            f"a password has {MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters"
        )
    secret_hash = hash_password(password)

    def work(connection: Connection) -> None:
        owner_id = require_account(connection, name)
        store.add_identity(
            connection, owner_id, IdentityType.USERPASS, identity, secret_hash, is_default=is_default
        )
        audit.record(connection, actor, Action.IDENTITY_ADD, name, identity=identity, type=kind)

    _once(context, work, f"identity {identity[:80]!r} belongs to account {name} already")


def list_identities(context: Context, actor: Actor, name: str) -> Iterator[dict[str, Any]]:
    """List the identities of an account, without secrets."""
    authorize(actor, Action.IDENTITY_LIST, Target(name, owner=name))
    with context.database.snapshot() as connection:
        owner_id = require_account(connection, name)
        rows = connection.execute(store.identity_rows(owner_id)).mappings().all()
    for row in rows:
        yield {"type": row["type"], "identity": row["identity"], "email": row["email"]}


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
