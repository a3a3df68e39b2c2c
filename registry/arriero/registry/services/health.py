"""Whether this process can do its work."""

from sqlalchemy import select

from arriero.registry.schema.tables import accounts
from arriero.registry.services.context import Context


def check_ready(context: Context) -> None:
    """Read a row of the catalogue.

    Raises
    ------
    sqlalchemy.exc.DBAPIError
        The database does not answer, or has no schema.
    """
    with context.database.snapshot() as connection:
        connection.execute(select(accounts.c.id).limit(1)).all()
