"""Identities in the database: who may act as which account."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select, update

from arriero.registry.schema.tables import accounts, identities
from arriero.registry.states import IdentityType, Role


@dataclass(frozen=True, slots=True)
class Acting:
    """An account as which an identity may act."""

    account_id: int
    account: str
    role: Role
    identity_id: int
    secret_hash: str | None


def add_identity(
    connection: Connection,
    owner_id: int,
    kind: IdentityType,
    identity: str,
    secret_hash: str | None,
    *,
    is_default: bool,
    email: str | None = None,
) -> None:
    """Insert an identity of an account."""
    connection.execute(
        insert(identities).values(
            account_id=owner_id,
            type=kind,
            identity=identity,
            secret_hash=secret_hash,
            is_default=is_default,
            email=email,
        )
    )


def delete_identity(connection: Connection, owner_id: int, kind: IdentityType, identity: str) -> bool:
    """Take an identity from an account; False when it was not its."""
    found = connection.execute(
        delete(identities).where(
            identities.c.account_id == owner_id, identities.c.type == kind, identities.c.identity == identity
        )
    )
    return found.rowcount > 0


def identity_rows(owner_id: int) -> Select[Any]:
    """Query for the identities of an account, without their secrets."""
    return (
        select(identities.c.type, identities.c.identity, identities.c.is_default, identities.c.email)
        .where(identities.c.account_id == owner_id)
        .order_by(identities.c.id)
    )


def account_names_of(kind: IdentityType, identity: str) -> Select[tuple[str]]:
    """Query for the names of the accounts as which an identity may act, its default first."""
    return (
        select(accounts.c.name)
        .join(identities, identities.c.account_id == accounts.c.id)
        .where(identities.c.type == kind, identities.c.identity == identity, accounts.c.deleted_at.is_(None))
        .order_by(identities.c.is_default.desc(), identities.c.id)
    )


def acting(connection: Connection, kind: IdentityType, identity: str, account: str | None) -> Acting | None:
    """Find the account as which an identity acts; None when it may not act as any that is asked for.

    Parameters
    ----------
    account
        The one that is asked for; None for the identity's default.
    """
    query = (
        select(
            accounts.c.id,
            accounts.c.name,
            accounts.c.role,
            identities.c.id.label("identity_id"),
            identities.c.secret_hash,
        )
        .join(accounts, accounts.c.id == identities.c.account_id)
        .where(
            identities.c.type == kind,
            identities.c.identity == identity,
            accounts.c.suspended_at.is_(None),
            accounts.c.deleted_at.is_(None),
        )
        .order_by(identities.c.is_default.desc(), identities.c.id)
        .limit(1)
    )
    if kind is IdentityType.USERPASS:
        query = query.where(identities.c.secret_hash.is_not(None))
    if account is not None:
        query = query.where(accounts.c.name == account)
    row = connection.execute(query).one_or_none()
    return None if row is None else Acting(*row)


def set_secret_hash(connection: Connection, identity_id: int, secret_hash: str) -> None:
    """Replace the hash of a password by a stronger one of the same password."""
    connection.execute(
        update(identities).where(identities.c.id == identity_id).values(secret_hash=secret_hash)
    )
