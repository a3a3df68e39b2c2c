"""Accounts, tokens and scopes in the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, delete, exists, insert, select, update

from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import (
    account_attributes,
    accounts,
    butlers,
    identities,
    rses,
    rules,
    scopes,
    token_butlers,
    token_rses,
    tokens,
)
from arriero.registry.states import AccountType, Role, TokenKind


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


def account_id(connection: Connection, name: str, *, lock: bool = False) -> int | None:
    """Id of an account, None when there is none of that name or it was deleted; if asked held against new rules too."""
    query = select(accounts.c.id).where(accounts.c.name == name, accounts.c.deleted_at.is_(None))
    return connection.scalar(query.with_for_update() if lock else query)


def account_row(connection: Connection, name: str) -> RowMapping | None:
    """All columns of an account, also of a deleted one; None when there never was one of that name."""
    return connection.execute(select(accounts).where(accounts.c.name == name)).mappings().one_or_none()


def account_rows(
    equal: Mapping[str, Any], state: str, identity: str | None, attributes: Mapping[str, str]
) -> Select[Any]:
    """Query for accounts, in the order of their names.

    Parameters
    ----------
    equal
        Columns and their values.
    state
        ``ACTIVE``, ``SUSPENDED`` or ``DELETED``.
    identity
        Only those that it may act as.
    attributes
        Keys and values that an account has to have.
    """
    suspended, deleted = accounts.c.suspended_at, accounts.c.deleted_at
    query = select(accounts).order_by(accounts.c.name)
    query = query.where(deleted.is_not(None) if state == "DELETED" else deleted.is_(None))
    if state != "DELETED":
        query = query.where(suspended.is_not(None) if state == "SUSPENDED" else suspended.is_(None))
    for column, value in equal.items():
        query = query.where(accounts.c[column] == value)
    if identity is not None:
        owners = select(identities.c.account_id).where(identities.c.identity == identity)
        query = query.where(accounts.c.id.in_(owners))
    for key, value in attributes.items():
        bearers = select(account_attributes.c.account_id).where(
            account_attributes.c.key == key, account_attributes.c.value == value
        )
        query = query.where(accounts.c.id.in_(bearers))
    return query


def update_account(connection: Connection, name: str, values: dict[str, Any]) -> None:
    """Set columns of an account."""
    connection.execute(update(accounts).where(accounts.c.name == name).values(**values))


def lock_active_admins(connection: Connection) -> frozenset[int]:
    """Hold the administrators that can log in, so that two calls cannot take away the last two; give their ids."""
    query = (
        select(accounts.c.id)
        .where(
            accounts.c.role == Role.ADMIN, accounts.c.suspended_at.is_(None), accounts.c.deleted_at.is_(None)
        )
        .order_by(accounts.c.id)
        .with_for_update(key_share=True)
    )
    return frozenset(connection.scalars(query))


def has_rules(connection: Connection, account_id: int) -> bool:
    """Whether an account has rules."""
    return connection.scalar(select(exists().where(rules.c.account_id == account_id))) is True


def delete_account(connection: Connection, account_id: int) -> None:
    """Write that an account was deleted, and end its tokens."""
    connection.execute(update(accounts).where(accounts.c.id == account_id).values(deleted_at=now()))
    connection.execute(
        update(tokens)
        .where(tokens.c.account_id == account_id, tokens.c.revoked_at.is_(None))
        .values(revoked_at=now())
    )


def end_sessions(connection: Connection, account_id: int) -> None:
    """End the login sessions of an account."""
    connection.execute(
        delete(tokens).where(tokens.c.account_id == account_id, tokens.c.kind == TokenKind.SESSION)
    )


def set_suspended(connection: Connection, name: str, *, suspended: bool) -> None:
    """Suspend an account, or let it in again."""
    connection.execute(
        update(accounts).where(accounts.c.name == name).values(suspended_at=now() if suspended else None)
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
    """Whom a token stands for; None if it is unknown, outlived, revoked, or its account is suspended or deleted."""
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
                accounts.c.deleted_at.is_(None),
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


def set_scope_owner(connection: Connection, name: str, owner_id: int) -> bool:
    """Give a scope to another account; False when there is no such scope."""
    return (
        connection.execute(update(scopes).where(scopes.c.name == name).values(account_id=owner_id)).rowcount
        > 0
    )


def scope_rows(owner: str | None = None) -> Select[Any]:
    """Query for scopes and their owners, in the order of their names."""
    query = (
        select(scopes.c.name, accounts.c.name.label("account"))
        .join(accounts, accounts.c.id == scopes.c.account_id)
        .order_by(scopes.c.name)
    )
    return query if owner is None else query.where(accounts.c.name == owner)
