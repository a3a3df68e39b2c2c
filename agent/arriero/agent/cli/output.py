"""Results on stdout, as a table for people or as JSON, JSON lines or CSV for programs; everything else on stderr.

Rows are written as they come, but for tables. Nothing that comes from the catalogue may act on the terminal or on a
spreadsheet: control characters are shown, markup is not read, and CSV cells are no formulas.
"""

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from io import StringIO
from typing import Any, Protocol, TextIO

from arriero.agent.cli.failures import NothingToDo

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_RUCIO_TIME = "%a, %d %b %Y %H:%M:%S UTC"
_FORMULA = ("=", "+", "-", "@")
_WIDE = 100_000
_MICROSECONDS = re.compile(r"(\.\d{3})\d*Z$")


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


class Kind(StrEnum):
    """How a value looks in a table."""

    TEXT = "text"
    BYTES = "bytes"
    NUMBER = "number"
    SECONDS = "seconds"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table and of CSV."""

    key: str
    header: str = ""
    kind: Kind = Kind.TEXT

    @property
    def title(self) -> str:
        """Its heading."""
        return self.header or self.key.replace("_", " ").upper()


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, steps: float = 1) -> None: ...


class Output:
    """Where a command's results go.

    Parameters
    ----------
    chosen
        Format that the user asked for; None: a table on a terminal, JSON lines elsewhere.
    progress
        Whether to show progress; None: where stderr is a terminal.
    error_on_nothing
        Whether a list without rows is an error.
    """

    def __init__(
        self, chosen: Format | None = None, *, progress: bool | None = None, error_on_nothing: bool = False
    ) -> None:
        self.chosen = chosen
        self.format = chosen or (Format.TABLE if sys.stdout.isatty() else Format.JSONL)
        self._progress = sys.stderr.isatty() if progress is None else progress
        self._error_on_nothing = error_on_nothing

    def rows(self, columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> int:
        """Write a list.

        Raises
        ------
        NothingToDo
            There were no rows and the user asked to be told.
        """
        plain = (_plain(row) for row in rows)
        match self.format:
            case Format.TABLE:
                count = _write_table(columns, plain)
            case Format.JSON:
                count = _write_json(plain)
            case Format.JSONL:
                count = _write_jsonl(plain)
            case Format.CSV:
                count = _write_csv([column.key for column in columns], plain)
        sys.stdout.flush()
        if not count:
            self.nothing("Nothing found.")
        return count

    def record(self, record: Mapping[str, Any], *, sizes: frozenset[str] = frozenset({"bytes"})) -> None:
        """Write one thing: its keys and values in a table, else one object.

        Parameters
        ----------
        record
            What to write.
        sizes
            Keys whose values are bytes.
        """
        plain = _plain(record)
        match self.format:
            case Format.TABLE:
                rows = [
                    {"key": key, "value": _cell(value, Kind.BYTES if key in sizes else Kind.TEXT)}
                    for key, value in plain.items()
                ]
                _write_table([Column("key", "KEY"), Column("value", "VALUE")], rows)
            case Format.JSON:
                sys.stdout.write(json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
            case Format.JSONL:
                _write_jsonl([plain])
            case Format.CSV:
                _write_csv(list(plain), [plain])
        sys.stdout.flush()

    def records(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write several things as `record` does; with JSON, as one list when there are several."""
        found = list(records)
        if self.format is Format.JSON and len(found) != 1:
            self.rows([], found)
            return
        for index, record in enumerate(found):
            if index and self.format is Format.TABLE:
                sys.stdout.write("\n")
            self.record(record)

    def value(self, key: str, value: str, record: Mapping[str, Any]) -> None:
        """Write a bare value, unless a format was asked for; then the whole record that it is a part of."""
        if self.chosen in {None, Format.TABLE}:
            self.lines(key, [value])
        else:
            self.record(record)

    def lines(self, key: str, values: Iterable[str]) -> None:
        """Write bare values, one a line, unless a format was asked for: what scripts take with ``$(...)``."""
        if self.chosen in {None, Format.TABLE}:
            for value in values:
                sys.stdout.write(shown(value) + "\n")
            sys.stdout.flush()
            return
        self.rows([Column(key)], ({key: value} for value in values))

    def done(self, sentence: str, record: Mapping[str, Any]) -> None:
        """Tell that something was done; programs that asked for a format get it as a record."""
        if self.chosen in {None, Format.TABLE}:
            self.note(sentence)
        else:
            self.record(record)

    def note(self, sentence: str) -> None:
        """Tell people something, on stderr."""
        sys.stderr.write(shown(sentence) + "\n")

    def nothing(self, sentence: str) -> None:
        """There was nothing.

        Raises
        ------
        NothingToDo
            The user asked to be told.
        """
        if self._error_on_nothing:
            raise NothingToDo(sentence)

    @contextmanager
    def progress(
        self, description: str, total: float | None, *, kind: Kind = Kind.NUMBER
    ) -> Iterator[Advance]:
        """Show a progress bar on stderr, where it is wanted.

        Parameters
        ----------
        description
            What is being done.
        total
            Steps (or bytes); None: unknown.
        kind
            Whether steps are things or bytes.
        """
        if not self._progress:
            yield lambda steps=1: None  # noqa: ARG005
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        counted = (
            (DownloadColumn(binary_units=True), TransferSpeedColumn())
            if kind is Kind.BYTES
            else (MofNCompleteColumn(),)
        )
        columns = (TextColumn("{task.description}"), BarColumn(), *counted, TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
            task = bar.add_task(description, total=total)
            yield lambda steps=1: bar.advance(task, steps)


def human_bytes(count: float) -> str:
    """Size in binary units."""
    for unit in _UNITS:
        if abs(count) < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def human_seconds(seconds: float) -> str:
    """Duration in the two largest units that matter."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def shown(text: str) -> str:
    """Text with its control and invisible characters made visible."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain_value(key, value) for key, value in record.items()}


def _plain_value(key: str, value: Any) -> Any:
    """Value as JSON has it, with times as ISO 8601 in UTC."""
    match value:
        case datetime():
            plain: Any = _iso(value)
        case str() if key.endswith("_at"):
            plain = _time_of(value)
        case Mapping():
            plain = _plain(value)
        case list() | tuple() | set() | frozenset():
            plain = [_plain_value("", item) for item in value]
        case None | str() | int() | float():
            plain = value
        case _:
            plain = str(value)
    return plain


def _time_of(text: str) -> str:
    """Rucio's way to write a time turned into ours; anything else as it is."""
    try:
        return _iso(datetime.strptime(text, _RUCIO_TIME).replace(tzinfo=UTC))
    except ValueError:
        return text


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _cell(value: Any, kind: Kind) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if kind is Kind.BYTES and isinstance(value, int | float):
        return human_bytes(value)
    if kind is Kind.SECONDS and isinstance(value, int | float):
        return human_seconds(value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return _MICROSECONDS.sub(r"\1Z", str(value)) if kind is Kind.TIME else str(value)


def table_of(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> Any:
    """Make rows a table of rich's, in which nothing acts on the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: Any = "left" if column.kind in {Kind.TEXT, Kind.TIME} else "right"
        table.add_column(column.title, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(_cell(row.get(column.key), column.kind))) for column in columns))
    return table


def _write_table(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> int:
    from rich.console import Console

    table = table_of(columns, rows)
    if table.row_count:
        # a pipe has no width: there a line is as long as it has to be. Not straight to stdout, because rich would end
        # the process with 1 when the reader has gone
        terminal = sys.stdout.isatty()
        text = StringIO()
        console = Console(
            file=text, force_terminal=terminal, highlight=False, width=None if terminal else _WIDE
        )
        console.print(table)
        sys.stdout.writelines(line.rstrip() + "\n" for line in text.getvalue().splitlines())
    return int(table.row_count)


def _write_json(rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    sys.stdout.write("[")
    for row in rows:
        sys.stdout.write(("," if count else "") + "\n" + json.dumps(row, ensure_ascii=False))
        count += 1
    sys.stdout.write("\n]\n" if count else "]\n")
    return count


def _write_jsonl(rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    for row in rows:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        count += 1
    return count


def _write_csv(keys: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> int:
    stream: TextIO = sys.stdout
    writer = csv.writer(stream, lineterminator="\n")
    count = 0
    names = list(keys)
    for row in rows:
        if not count:
            names = names or list(row)
            writer.writerow(names)
        writer.writerow([_csv_cell(row.get(name)) for name in names])
        count += 1
    if not count and names:
        writer.writerow(names)
    return count


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return value
    value = shown(value)
    return "'" + value if value.startswith(_FORMULA) else value
