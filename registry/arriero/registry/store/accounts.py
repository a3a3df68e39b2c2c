"""Accounts, identities, tokens and scopes in the database."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, delete, insert, select, update

from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import (
    accounts,
    butlers,
    identities,
    rses,
    scopes,
    token_butlers,
    token_rses,
    tokens,
)
from arriero.registry.states import AccountType, IdentityType, Role, TokenKind


@dataclass(frozen=True, slots=True)
class TokenHolder:
    """What a token's row and its account say."""

    token_id: int
    kind: TokenKind
    account_id: int
    account: str
    role: Role
    expires_at: datetime


def add_account(connection: Connection, name: str, kind: AccountType, role: Role, email: str | None) -> int:
    """Insert an account and give its id."""
    statement = insert(accounts).values(name=name, type=kind, role=role, email=email).returning(accounts.c.id)
    return int(connection.scalars(statement).one())


def account_id(connection: Connection, name: str) -> int | None:
    """Id of an account, None when there is none of that name."""
    return connection.scalar(select(accounts.c.id).where(accounts.c.name == name))


def account_row(connection: Connection, name: str) -> RowMapping | None:
    """All columns of an account, None when there is none of that name."""
    return connection.execute(select(accounts).where(accounts.c.name == name)).mappings().one_or_none()


def account_rows(kind: AccountType | None, identity: str | None) -> Select[Any]:
    """Query for accounts, in the order of their names."""
    query = select(accounts).order_by(accounts.c.name)
    if kind is not None:
        query = query.where(accounts.c.type == kind)
    if identity is not None:
        owners = select(identities.c.account_id).where(identities.c.identity == identity)
        query = query.where(accounts.c.id.in_(owners))
    return query


def update_account(connection: Connection, name: str, values: dict[str, Any]) -> None:
    """Set columns of an account."""
    connection.execute(update(accounts).where(accounts.c.name == name).values(**values))


def set_suspended(connection: Connection, name: str, *, suspended: bool) -> None:
    """Suspend an account, or let it in again."""
    connection.execute(
        update(accounts).where(accounts.c.name == name).values(suspended_at=now() if suspended else None)
    )


def add_identity(
    connection: Connection,
    owner_id: int,
    kind: IdentityType,
    identity: str,
    secret_hash: str | None,
    *,
    is_default: bool,
) -> None:
    """Insert an identity of an account."""
    connection.execute(
        insert(identities).values(
            account_id=owner_id,
            type=kind,
            identity=identity,
            secret_hash=secret_hash,
            is_default=is_default,
        )
    )


def identity_rows(owner_id: int) -> Select[Any]:
    """Query for the identities of an account, without their secrets."""
    return (
        select(identities.c.type, identities.c.identity, identities.c.is_default, accounts.c.email)
        .join(accounts, accounts.c.id == identities.c.account_id)
        .where(identities.c.account_id == owner_id)
        .order_by(identities.c.id)
    )


def secret_of(connection: Connection, identity: str, account: str | None) -> RowMapping | None:
    """Password hash that an identity has to prove, with the account that it then acts as; None when there is none.

    Parameters
    ----------
    account
        The one that is asked for; None for the identity's default.
    """
    query = (
        select(
            accounts.c.id,
            accounts.c.name,
            identities.c.id.label("identity_id"),
            identities.c.secret_hash,
        )
        .join(accounts, accounts.c.id == identities.c.account_id)
        .where(
            identities.c.type == IdentityType.USERPASS,
            identities.c.identity == identity,
            identities.c.secret_hash.is_not(None),
            accounts.c.suspended_at.is_(None),
        )
        .order_by(identities.c.is_default.desc(), identities.c.id)
        .limit(1)
    )
    if account is not None:
        query = query.where(accounts.c.name == account)
    return connection.execute(query).mappings().one_or_none()


def set_secret_hash(connection: Connection, identity_id: int, secret_hash: str) -> None:
    """Replace the hash of a password by a stronger one of the same password."""
    connection.execute(
        update(identities).where(identities.c.id == identity_id).values(secret_hash=secret_hash)
    )


def add_token(
    connection: Connection,
    owner_id: int,
    token_hash: str,
    kind: TokenKind,
    *,
    lifetime_s: float,
    label: str | None = None,
) -> tuple[int, datetime]:
    """Insert a token and give its id and when it expires."""
    statement = (
        insert(tokens)
        .values(
            account_id=owner_id,
            token_hash=token_hash,
            kind=kind,
            label=label,
            expires_at=after(lifetime_s),
        )
        .returning(tokens.c.id, tokens.c.expires_at)
    )
    row = connection.execute(statement).one()
    return row.id, row.expires_at


def token_holder(connection: Connection, token_hash: str) -> TokenHolder | None:
    """Whom a token stands for; None if it is unknown, outlived, revoked, or its account is suspended."""
    query = (
        select(
            tokens.c.id,
            tokens.c.kind,
            tokens.c.account_id,
            accounts.c.name,
            accounts.c.role,
            tokens.c.expires_at,
        )
        .join(accounts, accounts.c.id == tokens.c.account_id)
        .where(
            and_(
                tokens.c.token_hash == token_hash,
                tokens.c.revoked_at.is_(None),
                tokens.c.expires_at > now(),
                accounts.c.suspended_at.is_(None),
            )
        )
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else TokenHolder(*row)


def token_bindings(connection: Connection, token_id: int) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the RSEs and of the Butlers that a token is bound to."""
    rse_names = connection.scalars(
        select(rses.c.name)
        .join(token_rses, token_rses.c.rse_id == rses.c.id)
        .where(token_rses.c.token_id == token_id)
    )
    butler_names = connection.scalars(
        select(butlers.c.name)
        .join(token_butlers, token_butlers.c.butler_id == butlers.c.id)
        .where(token_butlers.c.token_id == token_id)
    )
    return frozenset(rse_names), frozenset(butler_names)


def delete_outlived_sessions(connection: Connection, owner_id: int) -> None:
    """Forget the login sessions of an account that have ended."""
    connection.execute(
        delete(tokens).where(
            tokens.c.account_id == owner_id, tokens.c.kind == TokenKind.SESSION, tokens.c.expires_at < now()
        )
    )


def add_scope(connection: Connection, name: str, owner_id: int) -> None:
    """Insert a scope that belongs to an account."""
    connection.execute(insert(scopes).values(name=name, account_id=owner_id))


def scope_exists(connection: Connection, name: str) -> bool:
    """Whether there is a scope of that name."""
    return connection.scalar(select(scopes.c.id).where(scopes.c.name == name)) is not None


def scope_rows(owner: str | None = None) -> Select[Any]:
    """Query for scopes and their owners, in the order of their names."""
    query = (
        select(scopes.c.name, accounts.c.name.label("account"))
        .join(accounts, accounts.c.id == scopes.c.account_id)
        .order_by(scopes.c.name)
    )
    return query if owner is None else query.where(accounts.c.name == owner)
