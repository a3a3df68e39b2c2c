"""Walks through a storage: every file below the prefix of an RSE, always in the same order.

Folders are listed many at once and given out one after the other: a folder's files by name, then its folders by name. So a
walk that was interrupted goes on behind the last file that was given out, and lists little more than what is left.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from arriero.rse.errors import InvalidName, NotFound, RSEError
from arriero.rse.paths import QUARANTINE_FOLDER, parent_of
from arriero.rse.protocol import StorageProtocol
from arriero.rse.types import DirectoryEntry

_TRIES = 4
_FIRST_PAUSE_S = 0.5


class Walk:
    """One walk; iterate it once.

    Parameters
    ----------
    protocol
        Of the RSE.
    threads
        Folders that are listed at once.
    per_second
        Folders that are listed in a second at most; 0 for no limit.
    after
        Path of the last file that is known already.

    Attributes
    ----------
    unusable
        Names so far that no file of the catalogue could have.
    """

    def __init__(
        self, protocol: StorageProtocol, *, threads: int = 8, per_second: float = 0, after: str | None = None
    ) -> None:
        self._protocol = protocol
        self._threads = threads
        self._pause_s = 1 / per_second if per_second > 0 else 0.0
        self._after = after
        self._lock = threading.Lock()
        self._next = 0.0
        self.unusable = 0

    def files(self) -> Iterator[tuple[str, int]]:
        """Give path and bytes of every file.

        Raises
        ------
        RSEError
            A folder cannot be listed: what is in it is not known, so the walk is worth nothing.
        """
        pending: deque[str] = deque([""])
        listing: dict[str, Future[list[DirectoryEntry]]] = {}
        with ThreadPoolExecutor(self._threads, thread_name_prefix="arriero-walk") as executor:
            try:
                while pending:
                    for folder in islice(pending, 2 * self._threads):
                        if folder not in listing:
                            listing[folder] = executor.submit(self._list, folder)
                    folder = pending.popleft()
                    entries = sorted(listing.pop(folder).result(), key=lambda entry: entry.name)
                    for entry in entries:
                        if not entry.is_directory and self._is_new_file(folder, entry.name):
                            yield _below(folder, entry.name), entry.bytes
                    deeper = [
                        _below(folder, entry.name)
                        for entry in entries
                        if entry.is_directory and self._is_new_folder(folder, entry.name)
                    ]
                    pending.extendleft(reversed(deeper))
            finally:
                executor.shutdown(wait=False, cancel_futures=True)

    def _is_new_file(self, folder: str, name: str) -> bool:
        if not _is_text(name):
            self.unusable += 1
            return False
        if self._after is None:
            return True
        last = parent_of(self._after)
        if folder == last:
            return name > self._after.rpartition("/")[2]
        return not _is_above(folder, last)

    def _is_new_folder(self, folder: str, name: str) -> bool:
        if not _is_text(name):
            self.unusable += 1
            return False
        if not folder and name == QUARANTINE_FOLDER:
            return False
        if self._after is None:
            return True
        last = parent_of(self._after)
        if folder == last or not _is_above(folder, last):
            return True
        following = last[len(folder) + 1 :] if folder else last
        return name >= following.partition("/")[0]

    def _list(self, folder: str) -> list[DirectoryEntry]:
        for attempt in range(1, _TRIES + 1):
            self._wait()
            try:
                return self._protocol.list_directory(folder)
            except NotFound:
                if not folder:
                    raise
                # removed since its parent was listed
                return []
            except InvalidName:
                with self._lock:
                    self.unusable += 1
                return []
            except RSEError as error:
                if not error.retryable or attempt == _TRIES:
                    raise
            time.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _wait(self) -> None:
        """Keep the pace."""
        if not self._pause_s:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + self._pause_s
        time.sleep(begin - now)


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_above(folder: str, other: str) -> bool:
    """Whether a folder holds another one, at any depth."""
    return folder != other and (not folder or other.startswith(f"{folder}/"))


def _is_text(name: str) -> bool:
    """Whether a name can be written down: a file system may hold bytes that are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
