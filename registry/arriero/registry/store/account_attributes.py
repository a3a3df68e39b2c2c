"""Attributes of accounts in the database."""

from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select

from arriero.registry.schema.tables import account_attributes


def attribute_rows(account_id: int) -> Select[Any]:
    """Query for the attributes of an account, by key."""
    return (
        select(account_attributes.c.key, account_attributes.c.value)
        .where(account_attributes.c.account_id == account_id)
        .order_by(account_attributes.c.key)
    )


def add_attribute(connection: Connection, account_id: int, key: str, value: str) -> None:
    """Insert an attribute."""
    connection.execute(insert(account_attributes).values(account_id=account_id, key=key, value=value))


def delete_attribute(connection: Connection, account_id: int, key: str) -> bool:
    """Remove an attribute; False when it was not there."""
    found = connection.execute(
        delete(account_attributes).where(
            account_attributes.c.account_id == account_id, account_attributes.c.key == key
        )
    )
    return found.rowcount > 0
