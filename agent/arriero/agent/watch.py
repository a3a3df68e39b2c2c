"""Registers files that arrive at an RSE without a rule: complete ones only, each once.

Why it exists: raws are written beside the catalogue. A file is taken when its size has not changed for a while, or when
a notification says that it is complete; its checksum is taken from its bytes, and it is registered as a replica of the
RSE, from where it goes the way of all others. What was registered is remembered on disk, so that a restart reads nothing
again; the memory is a convenience, since registering twice changes nothing.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from arriero.agent.registration import BATCH, Registered, Registration
from arriero.agent.storage_files import StoredFile
from arriero.registry.pages import pages_of
from arriero.rse.errors import NotFound, RSEError

log = structlog.get_logger(__name__)

_INCOMPLETE = re.compile(r"^[.~]|~$|\.(part|partial|tmp|temp|filepart|crdownload|lock)$", re.IGNORECASE)
"""Names under which programs write what is not complete."""

AGAIN_S = 60.0
"""When a file is tried again that could not be registered, seconds."""


class Memory:
    """What has been seen at an RSE: sizes, since when, and whether it is registered.

    Parameters
    ----------
    path
        Of its SQLite file.
    """

    def __init__(self, path: Path | str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS seen (path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, "
            "since REAL NOT NULL, done INTEGER NOT NULL) WITHOUT ROWID"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._database.close()

    def ready(self, files: Sequence[StoredFile], settle_s: float) -> tuple[list[StoredFile], int]:
        """Take note of files; give those that are complete and not registered, and how many are not complete."""
        moment = time.time()
        found: list[StoredFile] = []
        waiting = 0
        self._database.execute("BEGIN")
        for file in files:
            row = self._database.execute(
                "SELECT bytes, since, done FROM seen WHERE path = ?", (file.path,)
            ).fetchone()
            if row is None or row[0] != file.bytes:
                self._database.execute(
                    "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, 0)", (file.path, file.bytes, moment)
                )
                row = (file.bytes, moment, 0)
            if not row[2]:
                if moment - row[1] >= settle_s:
                    found.append(file)
                else:
                    waiting += 1
        self._database.execute("COMMIT")
        return found, waiting

    def done(self, files: Iterable[StoredFile]) -> None:
        """Remember that files are registered."""
        self._set(
            "INSERT OR REPLACE INTO seen VALUES (?, ?, 0, 1)", [(file.path, file.bytes) for file in files]
        )

    def later(self, files: Iterable[StoredFile], settle_s: float) -> None:
        """Have files be tried again after a while."""
        since = time.time() + AGAIN_S - settle_s
        self._set("UPDATE seen SET since = ? WHERE path = ?", [(since, file.path) for file in files])

    def _set(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany(statement, rows)
        self._database.execute("COMMIT")


@dataclass(slots=True)
class Watched:
    """What one look, or all of them, came to."""

    seen: int = 0
    registered: int = 0
    waiting: int = 0
    """Still growing, or seen for the first time."""
    failed: int = 0


class Watcher:
    """Registers what arrives.

    Parameters
    ----------
    registration
        How files are registered.
    memory
        What was seen before.
    settle_s
        How long the size of a file has to be the same, seconds; 0: files appear when they are complete (by rename).
    """

    def __init__(self, registration: Registration, memory: Memory, *, settle_s: float = 10.0) -> None:
        self._registration = registration
        self._memory = memory
        self._settle_s = settle_s

    def look(self, files: Iterable[StoredFile]) -> Watched:
        """Register those of some files that are complete and new.

        Raises
        ------
        RegistryError
            The registry cannot be reached, or refuses the whole.
        """
        result = Watched()
        for page in pages_of((file for file in files if not is_incomplete(file.name)), BATCH):
            result.seen += len(page)
            ready, waiting = self._memory.ready(page, self._settle_s)
            result.waiting += waiting
            self._register(ready, result)
        return result

    def take(self, files: Sequence[StoredFile]) -> Watched:
        """Register files that are known to be complete; told once more, they are not read again."""
        result = Watched(seen=len(files))
        ready, _ = self._memory.ready(files, 0.0)
        self._register(ready, result)
        return result

    def _register(self, files: Sequence[StoredFile], result: Watched) -> None:
        if not files:
            return
        done: Registered = self._registration.run(files)
        failed = [file for file in files if file.name in done.failures]
        self._memory.done(file for file in files if file.name not in done.failures)
        self._memory.later(failed, self._settle_s)
        result.registered += done.registered
        result.failed += len(failed)
        for name, error in done.failures.items():
            log.warning("file not registered", name=name, rse=self._registration.rse, reason=str(error))
        log.info("files registered", rse=self._registration.rse, files=done.registered, bytes=done.bytes)


def is_incomplete(name: str) -> bool:
    """Whether a name is one of those under which programs write what is not complete."""
    return _INCOMPLETE.search(name.rpartition("/")[2]) is not None


def watch(
    look: Callable[[], Watched], stop: threading.Event, *, every_s: float, once: bool = False
) -> Iterator[Watched]:
    """Look again and again until told to stop; what fails for now is tried again.

    Raises
    ------
    Exception
        What waiting will not mend.
    """
    while True:
        try:
            yield look()
        except Exception as error:
            if once or not _may_pass(error):
                raise
            log.warning("cannot look", reason=str(error))
        if once or stop.wait(every_s):
            return


def _may_pass(error: Exception) -> bool:
    # a folder that is not there yet is there tomorrow
    return isinstance(error, NotFound) or bool(getattr(error, "retryable", isinstance(error, RSEError)))
