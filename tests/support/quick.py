"""What production pays for and no test needs: costly password hashes, writes forced to the disk, and statements that
every new engine compiles again.

`tests/conftest.py` has each test process use all of it. Processes that tests start behave as in production.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine, event
from sqlalchemy.util import LRUCache

from arriero.registry import database
from arriero.registry.services import authentication

QUICK_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

_STATEMENTS = 2000
"""More than all tests of a process have: nothing is compiled twice."""


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    """Have this process spend nothing on what no test shows."""
    with quick_passwords(), quick_engines():
        yield


@contextmanager
def quick_passwords() -> Iterator[None]:
    """Have passwords of this process hashed and verified quickly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authentication, "_HASHER", QUICK_HASHER)
        patch.setattr(authentication, "_NOBODY", QUICK_HASHER.hash("nobody"))
        yield


@contextmanager
def quick_engines() -> Iterator[None]:
    """Have the engines of this process share what they compile, as the one engine of a service does.

    SQLite leaves it to the system when a file is written: what a killed process has committed is kept, what a machine
    has that loses power is not.
    """
    make = database._engine
    dialects: dict[str, Any] = {}
    statements: Any = LRUCache(_STATEMENTS)

    def made(url: str, pool_size: int) -> Engine:
        engine = make(url, pool_size)
        kind = engine.dialect.name
        if kind == "sqlite":
            event.listen(engine, "connect", _write_later)
        if kind in dialects:
            engine.dialect = dialects[kind]
        else:
            # not before the dialect has asked a server which version it is
            event.listen(engine, "connect", lambda *_: dialects.setdefault(kind, engine.dialect))
        engine.update_execution_options(compiled_cache=statements)
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_engine", made)
        yield


def _write_later(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")
