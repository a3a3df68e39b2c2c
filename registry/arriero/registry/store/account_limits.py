"""Limits of accounts in the database: so many bytes at an RSE, or at the RSEs of an expression."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, exists, select

from arriero.registry.dialect import insert_into
from arriero.registry.schema.tables import account_global_limits, account_limits, accounts, rses

UNLIMITED = -1
"""As Rucio writes it; the same as no limit at all."""


@dataclass(frozen=True, slots=True)
class Held:
    """An account that will not be deleted before the transaction ends."""

    name: str
    limited: bool
    """Whether it has any limit."""


def hold_account(connection: Connection, account_id: int) -> Held | None:
    """Keep an account from being deleted until the transaction ends; None when it was."""
    limited = exists().where(account_limits.c.account_id == account_id) | exists().where(
        account_global_limits.c.account_id == account_id
    )
    query = select(accounts.c.name, limited.label("limited")).where(
        accounts.c.id == account_id, accounts.c.deleted_at.is_(None)
    )
    row = connection.execute(query.with_for_update(read=True, key_share=True, of=accounts)).one_or_none()
    return None if row is None else Held(row.name, bool(row.limited))


def lock_spending(connection: Connection, account_id: int) -> None:
    """Wait for every other transaction that measures the account against its limits; no one else waits."""
    query = select(accounts.c.id).where(accounts.c.id == account_id).with_for_update(key_share=True)
    connection.execute(query)


def local_limits(connection: Connection, account_id: int) -> dict[str, int]:
    """Limits of an account by RSE name, bytes."""
    query = (
        select(rses.c.name, account_limits.c.bytes)
        .join(rses, rses.c.id == account_limits.c.rse_id)
        .where(account_limits.c.account_id == account_id)
        .order_by(rses.c.name)
    )
    return {row.name: row.bytes for row in connection.execute(query)}


def global_limits(connection: Connection, account_id: int) -> dict[str, int]:
    """Limits of an account by RSE expression, bytes."""
    query = (
        select(account_global_limits.c.rse_expression, account_global_limits.c.bytes)
        .where(account_global_limits.c.account_id == account_id)
        .order_by(account_global_limits.c.rse_expression)
    )
    return {row.rse_expression: row.bytes for row in connection.execute(query)}


def set_local_limit(connection: Connection, account_id: int, rse_id: int, limit: int) -> None:
    """Set a limit at an RSE, bytes."""
    statement = insert_into(connection, account_limits).values(
        account_id=account_id, rse_id=rse_id, bytes=limit
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["account_id", "rse_id"], set_={"bytes": statement.excluded.bytes}
        )
    )


def delete_local_limit(connection: Connection, account_id: int, rse_id: int) -> bool:
    """Remove a limit at an RSE; False when there was none."""
    found = connection.execute(
        delete(account_limits).where(
            account_limits.c.account_id == account_id, account_limits.c.rse_id == rse_id
        )
    )
    return found.rowcount > 0


def set_global_limit(connection: Connection, account_id: int, expression: str, limit: int) -> None:
    """Set a limit at the RSEs of an expression, bytes."""
    statement = insert_into(connection, account_global_limits).values(
        account_id=account_id, rse_expression=expression, bytes=limit
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["account_id", "rse_expression"], set_={"bytes": statement.excluded.bytes}
        )
    )


def delete_global_limit(connection: Connection, account_id: int, expression: str) -> bool:
    """Remove a limit at the RSEs of an expression; False when there was none."""
    found = connection.execute(
        delete(account_global_limits).where(
            account_global_limits.c.account_id == account_id,
            account_global_limits.c.rse_expression == expression,
        )
    )
    return found.rowcount > 0
