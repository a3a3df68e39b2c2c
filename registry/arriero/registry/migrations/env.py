"""What Alembic runs for each command: the connection comes from `arriero.registry.migrate`, never from a file.

Partitions of a partitioned table are rows of an operator's calendar, not schema: they are left out of comparisons.
"""

from typing import Any

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.sql.schema import SchemaItem

from arriero.registry.schema.tables import metadata

_OWN_INDEXES = frozenset({"ix_did_meta_searched"})
"""Indexes over expressions, of PostgreSQL only: the tables of the code cannot describe them."""


def _partitions(connection: Connection) -> frozenset[str]:
    if connection.dialect.name != "postgresql":
        return frozenset()
    names = connection.scalars(
        text("SELECT relname FROM pg_class WHERE relispartition AND relkind IN ('r', 'p')")
    )
    return frozenset(names)


def _run(connection: Connection) -> None:
    partitions = _partitions(connection)

    def include_object(
        item: SchemaItem, name: str | None, kind: str, reflected: bool, compare_to: Any
    ) -> bool:
        del item, reflected, compare_to
        return not (kind == "table" and name in partitions) and not (kind == "index" and name in _OWN_INDEXES)

    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=include_object,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes["connection"])
