"""Dumps of storages: a file with a line for each file that is there, as sites make them.

``path[,bytes[,adler32]]``, CSV, plain or gzipped, with or without a line of headings. Read as a stream: a dump of any length
takes the same memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from arriero.agent.errors import AgentError

Found = tuple[str, int | None, str | None]
"""Path, bytes and adler32 of a file that is at a storage."""

_GZIP = b"\x1f\x8b"
_DAY = re.compile(r"(?<!\d)(20\d\d)-?([01]\d)-?([0-3]\d)(?!\d)")
_NOTHING = frozenset({"", "-", "none", "null"})
_CHECKSUM = re.compile(r"(?:adler32|ad|adler)[:=]", re.IGNORECASE)
_HEADINGS = {
    "path": 0,
    "name": 0,
    "file": 0,
    "filename": 0,
    "lfn": 0,
    "bytes": 1,
    "size": 1,
    "filesize": 1,
    "adler32": 2,
    "adler": 2,
    "checksum": 2,
}


class UnusableDump(AgentError):
    """A dump of a storage cannot be read."""

    code = "unusable_dump"
    exit_code = 2


@dataclass(slots=True)
class Dump:
    """A dump that is read.

    Attributes
    ----------
    path
        The file; ``-`` is standard input.
    strip
        What its paths begin with that is not below the prefix of the RSE.
    passed_over
        Lines so far that do not begin with it.
    """

    path: Path
    strip: str = ""
    passed_over: int = 0

    def date(self) -> datetime | None:
        """When it was made: the day in its name or the time of the file, whichever is earlier; None of standard input."""
        if str(self.path) == "-":
            return None
        made = datetime.fromtimestamp(self.path.stat().st_mtime, tz=UTC)
        found = _DAY.search(self.path.name)
        if found is None:
            return made
        try:
            year, month, day_of_month = (int(part) for part in found.groups())
            day = datetime(year, month, day_of_month, tzinfo=UTC)
        except ValueError:
            return made
        return min(made, day)

    def files(self) -> Iterator[Found]:
        """Read it.

        Raises
        ------
        UnusableDump
            A line is not as it should be; the message has its number.
        """
        with self._opened() as stream:
            reader = csv.reader(stream, strict=True)
            try:
                yield from self._read(reader)
            except (csv.Error, UnicodeDecodeError, EOFError, OSError) as error:
                raise UnusableDump(
                    f"The dump {self.path} cannot be read behind line {reader.line_num}: {error}."
                ) from error

    def _read(self, reader: Iterator[list[str]]) -> Iterator[Found]:
        order: Sequence[int | None] = (0, 1, 2)
        for number, row in enumerate(reader, 1):
            if not row:
                continue
            if number == 1 and (headings := _headings(row)) is not None:
                order = headings
                continue
            if len(row) > 3 and order == (0, 1, 2):
                raise self._fault(number, "it has more than path, bytes and adler32: quote paths with commas")
            path, size, checksum = (
                row[place] if place is not None and place < len(row) else "" for place in order
            )
            if not path.startswith(self.strip):
                self.passed_over += 1
                continue
            yield path[len(self.strip) :].lstrip("/"), self._bytes(number, size), _adler32(checksum)

    def _bytes(self, number: int, text: str) -> int | None:
        text = text.strip()
        if text.lower() in _NOTHING:
            return None
        if not (text.isascii() and text.isdigit()):
            raise self._fault(number, f"{text[:40]!r} is no number of bytes")
        return int(text)

    def _fault(self, number: int, what: str) -> UnusableDump:
        return UnusableDump(f"The dump {self.path}, line {number}: {what}. Nothing was compared.")

    @contextmanager
    def _opened(self) -> Iterator[IO[str]]:
        with self._bytes_of() as raw:
            buffered = io.BufferedReader(raw) if isinstance(raw, io.RawIOBase) else raw
            head = buffered.peek(2)[:2]  # type: ignore[attr-defined]
            stream: Any = gzip.GzipFile(fileobj=buffered) if head == _GZIP else buffered
            yield io.TextIOWrapper(stream, encoding="utf-8", newline="")

    @contextmanager
    def _bytes_of(self) -> Iterator[IO[bytes]]:
        if str(self.path) == "-":
            yield sys.stdin.buffer
            return
        with self.path.open("rb") as file:
            yield file


def _headings(row: Sequence[str]) -> Sequence[int | None] | None:
    """Where path, bytes and adler32 stand, if a line says so; None when it is a line like the others."""
    words = [word.strip().lower() for word in row]
    is_one = all(word in _HEADINGS for word in words) and any(_HEADINGS[word] == 0 for word in words)
    # a file may be called `name`, and be alone in its line
    if not is_one or (len(words) == 1 and words != ["path"]):
        return None
    places: list[int | None] = [None, None, None]
    for place, word in enumerate(words):
        if places[_HEADINGS[word]] is None:
            places[_HEADINGS[word]] = place
    return places


def _adler32(text: str) -> str | None:
    text = _CHECKSUM.sub("", text.strip(), count=1)
    return None if text.lower() in _NOTHING else text
