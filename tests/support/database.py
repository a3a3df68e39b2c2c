"""Databases with the schema, made fast: migrated once a session, then copied.

`migrated_database` gives a new one with each call; the fixture `migrated_url` runs a test on both kinds.
"""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import event

from arriero.registry import migrate
from arriero.registry.database import Database
from support.services import Services

_TEMPLATES: dict[str, str] = {}


def migrated_database(services: Services, kind: str, directory: Path) -> str:
    """Create a database with the newest schema and nothing in it.

    Parameters
    ----------
    kind
        `sqlite` or `postgresql`.
    directory
        Where an SQLite file goes.

    Returns
    -------
    url
        For SQLAlchemy. A PostgreSQL database is dropped with `drop_database` of `support.services`.
    """
    if kind == "sqlite":
        target = directory / f"registry-{uuid.uuid4().hex[:8]}.db"
        shutil.copyfile(_sqlite_template(services), target)
        return f"sqlite:///{target}"
    return services.databases.create(template=_postgresql_template(services))


def _sqlite_template(services: Services) -> str:
    key = f"sqlite {id(services)}"
    if key not in _TEMPLATES:
        path = services.directory / "template.db"
        migrate.upgrade(f"sqlite:///{path}")
        # all of it in one file: a copy would leave a write-ahead log behind
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        _TEMPLATES[key] = str(path)
    return _TEMPLATES[key]


def _postgresql_template(services: Services) -> str:
    key = f"postgresql {id(services)}"
    if key not in _TEMPLATES:
        name = f"template_{uuid.uuid4().hex[:12]}"
        migrate.upgrade(services.postgresql.create_database(name))
        _TEMPLATES[key] = name
    return _TEMPLATES[key]


@contextmanager
def counted_statements(database: Database) -> Iterator[list[str]]:
    """Collect the SQL statements that are executed meanwhile; `executemany` counts once, `COPY` not at all."""
    statements: list[str] = []

    def note(_connection, _cursor, statement, _parameters, _context, _executemany) -> None:
        statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
