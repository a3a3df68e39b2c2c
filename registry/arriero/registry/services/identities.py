"""Identities: who may act as which account, and how they prove it."""

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, InvalidInput, NotFound, Unsupported
from arriero.registry.services import audit
from arriero.registry.services.accounts import check_email, require_account
from arriero.registry.services.authentication import hash_password
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.x509_subjects import subject_of
from arriero.registry.states import IdentityType
from arriero.registry.store import accounts as account_store
from arriero.registry.store import identities as store

MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_CHARACTERS = 1024
MAX_IDENTITY_CHARACTERS = 2048

_OIDC = re.compile(r"SUB=.{1,255}, ISS=https?://[^\s,]+")


def _user_name(text: str) -> str:
    return text


def _bearer(text: str) -> str:
    if _OIDC.fullmatch(text) is None:
        raise InvalidInput("an OIDC identity is 'SUB=<subject>, ISS=<issuer>', as the tokens name both")
    return text


_FORMS: Mapping[IdentityType, Callable[[str], str]] = MappingProxyType(
    {IdentityType.USERPASS: _user_name, IdentityType.X509: subject_of, IdentityType.OIDC: _bearer}
)


def _parse(identity: str, kind: str) -> tuple[IdentityType, str]:
    """Read an identity as it is stored."""
    try:
        chosen = IdentityType(kind.upper())
    except ValueError as error:
        raise Unsupported(
            f"identities of type {kind[:20]!a} cannot log in: use {', '.join(IdentityType)}"
        ) from error
    if not 0 < len(identity) <= MAX_IDENTITY_CHARACTERS or not identity.isprintable():
        raise InvalidInput(f"an identity is one line of at most {MAX_IDENTITY_CHARACTERS} characters")
    return chosen, _FORMS[chosen](identity)


def add_identity(
    context: Context,
    actor: Actor,
    name: str,
    *,
    identity: str,
    kind: str,
    password: str | None,
    is_default: bool = False,
    email: str | None = None,
) -> None:
    """Let an identity act as an account.

    Parameters
    ----------
    identity
        A user name; a certificate's subject, in either notation; or ``SUB=<subject>, ISS=<issuer>``.
    kind
        ``USERPASS``, ``X509`` or ``OIDC``.
    password
        Of a user; stored as an argon2id hash only. Of no meaning for the others.

    Raises
    ------
    InvalidInput
        The identity is none of its kind, or the password is too short or too long.
    Conflict
        It may already.
    """
    authorize(actor, Action.IDENTITY_ADD, Target(name, owner=name))
    chosen, stored = _parse(identity, kind)
    check_email(email)
    secret_hash = None
    if chosen is IdentityType.USERPASS:
        if password is None or not MIN_PASSWORD_CHARACTERS <= len(password) <= MAX_PASSWORD_CHARACTERS:
            raise InvalidInput(
                f"a password has {MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters"
            )
        secret_hash = hash_password(password)

    def work(connection: Connection) -> None:
        owner_id = require_account(connection, name)
        store.add_identity(
            connection, owner_id, chosen, stored, secret_hash, is_default=is_default, email=email
        )
        audit.record(connection, actor, Action.IDENTITY_ADD, name, identity=stored, type=chosen)

    try:
        context.database.run(work)
    except IntegrityError as error:
        raise Conflict(f"identity {stored[:80]!r} belongs to account {name} already") from error


def delete_identity(context: Context, actor: Actor, name: str, *, identity: str, kind: str) -> None:
    """Let an identity no longer act as an account; sessions of the account end, and are begun again by who still may.

    Raises
    ------
    NotFound
        It could not.
    """
    authorize(actor, Action.IDENTITY_REMOVE, Target(name, owner=name))
    chosen, stored = _parse(identity, kind)

    def work(connection: Connection) -> None:
        owner_id = require_account(connection, name)
        if not store.delete_identity(connection, owner_id, chosen, stored):
            raise NotFound(
                f"account {name} has no {chosen} identity {stored[:80]!r}: see `rucio account identity list`",
                rucio_class="IdentityError",
            )
        account_store.end_sessions(connection, owner_id)
        audit.record(connection, actor, Action.IDENTITY_REMOVE, name, identity=stored, type=chosen)

    context.database.run(work)


def list_identities(context: Context, actor: Actor, name: str) -> Iterator[dict[str, Any]]:
    """List the identities of an account, without secrets."""
    authorize(actor, Action.IDENTITY_LIST, Target(name, owner=name))
    with context.database.snapshot() as connection:
        owner_id = require_account(connection, name)
        rows = connection.execute(store.identity_rows(owner_id)).mappings().all()
    for row in rows:
        yield {"type": row["type"], "identity": row["identity"], "email": row["email"]}


def list_accounts_of(context: Context, actor: Actor, identity: str, kind: str) -> list[str]:
    """List the accounts as which an identity may act, its default first."""
    authorize(actor, Action.IDENTITY_LIST, Target(identity[:500]))
    chosen, stored = _parse(identity, kind)
    with context.database.snapshot() as connection:
        return list(connection.scalars(store.account_names_of(chosen, stored)))
