"""Databases on PostgreSQL for thousands of tests: each test has a new one, and waits for nothing.

They lie in memory where there is room. A database has 500 files, and a disk's file system is slow at making files where
many have just been removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections import deque
from pathlib import Path

import psycopg

from servicelib.postgresql import PostgreSQL
from servicelib.stack import claim, new_directory, remove_abandoned

_MEMORY = Path("/dev/shm")
_ROOM = 3 * 2**30
"""Bytes that have to be free there."""

_KEPT = 2
"""Databases that are dropped later: `DROP DATABASE` waits a tenth of a second for sessions that are just ending."""


class Databases:
    """Databases of one server, made and dropped in no time.

    Parameters
    ----------
    server
        Where they are made.
    prefix
        Beginning of the name of the directory in memory.
    """

    def __init__(self, server: PostgreSQL, prefix: str) -> None:
        self._server = server
        self._connection = psycopg.connect(server.url, autocommit=True)
        self._used: set[str] = set()
        self._done: deque[str] = deque()
        self._memory = _directory_in_memory(prefix)
        self._place = ""
        if self._memory is not None:
            name = self._memory.name
            location = server.make_directory(self._memory / "databases")
            self._connection.execute(f"""CREATE TABLESPACE "{name}" LOCATION '{location}'""")
            self._place = f' TABLESPACE "{name}"'

    def create(self, *, template: str | None = None) -> str:
        """Create a database.

        Parameters
        ----------
        template
            Name of the one to copy, which nobody may be connected to; by default an empty one.

        Returns
        -------
        url
            As `PostgreSQL.database_url` gives it.
        """
        while len(self._done) > _KEPT:
            self._drop(self._done.popleft())
        name = f"test_{secrets.token_hex(8)}"
        # its files are copied: faster than to write every page of it to the log
        how = f'TEMPLATE "{template or "template1"}" STRATEGY file_copy{self._place}'
        self._connection.execute(f'CREATE DATABASE "{name}" {how}')
        self._used.add(name)
        return self._server.database_url(name)

    def drop(self, url: str) -> None:
        """Drop a database soon."""
        name = url.rpartition("/")[2]
        self._used.discard(name)
        self._done.append(name)

    def close(self) -> None:
        """Drop what is left."""
        for name in [*self._done, *self._used]:
            self._drop(name)
        if self._memory is not None:
            self._connection.execute(f'DROP TABLESPACE "{self._memory.name}"')
            shutil.rmtree(self._memory)
        self._connection.close()

    def _drop(self, name: str) -> None:
        self._connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _directory_in_memory(prefix: str) -> Path | None:
    """Create a directory in memory, None where there is no room for it."""
    if not _MEMORY.is_dir():
        return None
    remove_abandoned(prefix, _MEMORY)
    room = os.statvfs(_MEMORY)
    if room.f_bavail * room.f_frsize < _ROOM:
        return None
    directory = new_directory(prefix, _MEMORY)
    claim(directory)
    return directory
