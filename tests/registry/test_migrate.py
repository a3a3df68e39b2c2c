"""The revisions make exactly the tables that the code describes, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect, text

from arriero.registry import migrate
from arriero.registry.database import Database
from arriero.registry.schema.tables import metadata

PARTITIONED = (
    "audit_log",
    "deletion_history",
    "events",
    "request_attempts",
    "request_history",
    "rule_history",
)


def test_upgrade_makes_the_tables_that_the_code_describes(empty_database):
    migrate.upgrade(empty_database)
    migrate.compare(empty_database)
    migrate.check(empty_database)
    migrate.upgrade(empty_database)
    database = Database(empty_database)
    assert set(metadata.tables) <= set(inspect(database.engine).get_table_names())
    database.dispose()


def test_a_difference_is_noticed(empty_database):
    migrate.upgrade(empty_database)
    database = Database(empty_database)
    with database.transaction() as connection:
        connection.execute(text("ALTER TABLE scopes ADD COLUMN surplus INTEGER"))
    database.dispose()
    with pytest.raises(Exception, match="surplus"):
        migrate.compare(empty_database)


def test_an_empty_database_is_refused_with_the_command_to_run(empty_database):
    with pytest.raises(migrate.SchemaOutdated, match="arriero admin db upgrade"):
        migrate.check(empty_database)


def test_histories_are_partitioned_on_postgresql(services):
    url = services.postgresql.create_database()
    migrate.upgrade(url)
    database = Database(url)
    with database.snapshot() as connection:
        partitioned = connection.scalars(
            text("SELECT relname FROM pg_class WHERE relkind = 'p' ORDER BY relname")
        ).all()
        partitions = connection.scalars(
            text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relispartition ORDER BY relname")
        ).all()
    database.dispose()
    services.postgresql.drop_database(url)
    assert tuple(partitioned) == PARTITIONED
    assert tuple(partitions) == tuple(f"{name}_default" for name in PARTITIONED)
