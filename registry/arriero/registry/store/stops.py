"""What somebody has stopped, everywhere, until somebody lets it go on."""

from sqlalchemy import Connection, RowMapping, delete, exists, select

from arriero.registry.dialect import insert_into
from arriero.registry.schema.tables import accounts, stops

DELETIONS = "deletions"
"""Nothing is deleted from any storage."""


def stop(connection: Connection, name: str, *, account_id: int, reason: str | None) -> bool:
    """Stop something; False when it was stopped already, and by whom and why stays."""
    row = {"name": name, "account_id": account_id, "reason": reason}
    statement = insert_into(connection, stops).values(**row).on_conflict_do_nothing()
    return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount > 0


def go(connection: Connection, name: str) -> bool:
    """Let something go on; False when nobody had stopped it."""
    return connection.execute(delete(stops).where(stops.c.name == name)).rowcount > 0


def is_stopped(connection: Connection, name: str) -> bool:
    """Whether something is stopped."""
    return connection.scalar(select(exists().where(stops.c.name == name))) is True


def stopped(connection: Connection, name: str) -> RowMapping | None:
    """Who has stopped something, when and why: ``account``, ``created_at``, ``reason``; None when nobody has."""
    query = (
        select(accounts.c.name.label("account"), stops.c.created_at, stops.c.reason)
        .select_from(stops.outerjoin(accounts, accounts.c.id == stops.c.account_id))
        .where(stops.c.name == name)
    )
    return connection.execute(query).mappings().one_or_none()
