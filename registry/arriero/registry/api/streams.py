"""Lists as NDJSON: one object a line, sent while the database still reads, whatever the length."""

import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from anyio import CancelScope
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

STREAM_TYPE = "application/x-json-stream"
"""The official client compares the whole header: no charset may follow."""

_ROWS_A_WRITE = 500


def wire_date(value: datetime) -> str:
    """Write an instant as Rucio does, from which its client makes a `datetime`.

    Returns
    -------
    str
        Such as ``Mon, 13 May 2013 10:23:03 UTC``.
    """
    return value.astimezone(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")


def _default(value: object) -> Any:
    if isinstance(value, datetime):
        return wire_date(value)
    if isinstance(value, UUID):
        return value.hex
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")


def to_json(value: Any) -> bytes:
    """Write JSON as Rucio's client expects it: instants by `wire_date`, ids of rules as 32 hexadecimal digits."""
    options = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(value, default=_default, option=options)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with one JSON value."""
    return Response(
        to_json(value),
        status_code=status,
        media_type="application/json",
        headers=dict(headers) if headers else None,
    )


class _ClosingStream(StreamingResponse):
    """Ends the generator when the reader goes away: it holds a connection of the database."""

    def __init__(self, lines: Generator[bytes, None, None], media_type: str) -> None:
        super().__init__(lines, media_type=media_type)
        self._lines = lines

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await run_in_threadpool(self._lines.close)


def json_stream(rows: Iterable[Any]) -> StreamingResponse:
    """Answer with a line for each row.

    Parameters
    ----------
    rows
        Usually a generator of a service. Its first row is taken here, so that what it raises at its start becomes a
        proper error; what it raises later breaks the answer off, so that nobody takes a part for the whole.
    """
    iterator = iter(rows)
    first = list(itertools.islice(iterator, 1))
    return _ClosingStream(_lines(first, iterator), STREAM_TYPE)


def _lines(first: list[Any], rest: Iterator[Any]) -> Generator[bytes, None, None]:
    rows = itertools.chain(first, rest)
    try:
        while batch := list(itertools.islice(rows, _ROWS_A_WRITE)):
            yield b"".join(to_json(row) + b"\n" for row in batch)
    finally:
        if isinstance(rest, Generator):
            rest.close()
