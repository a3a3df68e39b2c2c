"""What is left of a list whose reader has stalled: in a temporary file, so that the database is rid of it.

Bounded for each list and for the process; what is longer is broken off, so that nobody takes a part for the whole.
"""

import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Protocol

STALL_S = 1.0
"""A reader that has taken nothing for so long, seconds, costs no connection any more."""

GONE_S = 3600.0
"""A reader that has taken nothing for so long is cut off, seconds: it would keep its room for ever."""

LIST_BYTES = 256 * 1024 * 1024
PROCESS_BYTES = 2 * 1024 * 1024 * 1024
"""Most that is kept of one list, and of all lists of one process, bytes."""

_READ_BYTES = 256 * 1024


class ReaderTooSlow(Exception):
    """A reader has stalled for too long, or on a list that is too long to be kept for it."""


class Lines(Protocol):
    """Pieces of an answer, and a way to give up what they are read from."""

    def __next__(self) -> bytes: ...

    def close(self) -> None: ...


class Spool:
    """Keeps the rest of lists.

    Parameters
    ----------
    list_bytes, process_bytes
        Most that is kept of one list, and of all at once.
    """

    def __init__(self, *, list_bytes: int = LIST_BYTES, process_bytes: int = PROCESS_BYTES) -> None:
        self._list_bytes = list_bytes
        self._process_bytes = process_bytes
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that are kept now."""
        return self._used

    def keep(self, lines: Lines) -> Lines:
        """Read now what is left, close it, and give it back from a file.

        Raises
        ------
        ReaderTooSlow
            It is more than may be kept; it is closed all the same.
        """
        kept = _Kept(self)
        try:
            while chunk := next(lines, b""):
                kept.write(chunk)
        except BaseException:
            kept.close()
            raise
        finally:
            lines.close()
        kept.rewind()
        return kept

    def take(self, size: int, of_list: int) -> None:
        """Count bytes that are to be kept.

        Parameters
        ----------
        size
            How many more.
        of_list
            How many of the same list are kept already.

        Raises
        ------
        ReaderTooSlow
            There is no room for them.
        """
        with self._lock:
            if of_list + size > self._list_bytes or self._used + size > self._process_bytes:
                raise ReaderTooSlow("the reader has stalled, and the rest of its list is too long to be kept")
            self._used += size

    def give_back(self, size: int) -> None:
        """Count bytes that are not kept any more."""
        with self._lock:
            self._used -= size


class _Kept:
    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        # closed by `close`, whatever becomes of the reader
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="arriero-list-")  # noqa: SIM115
        self._size = 0

    def write(self, chunk: bytes) -> None:
        self._spool.take(len(chunk), self._size)
        self._size += len(chunk)
        self._file.write(chunk)

    def rewind(self) -> None:
        self._file.seek(0)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = self._file.read(_READ_BYTES)
        if not chunk:
            raise StopIteration
        return chunk

    def close(self) -> None:
        self._file.close()
        self._spool.give_back(self._size)
        self._size = 0


SPOOL = Spool()
"""Of this process."""
