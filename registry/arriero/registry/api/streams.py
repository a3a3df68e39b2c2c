"""Lists as NDJSON: one object a line, sent while the database still reads, whatever the length.

A reader that stops must not keep a connection of the database (docs/adr/0014-slow-readers.md): a list that is read in
pages holds none between two of them, and of another the rest is put aside when its reader stalls.
"""

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import orjson
from anyio import CancelScope, CapacityLimiter, create_task_group, move_on_after, sleep, to_thread
from anyio.lowlevel import RunVar
from fastapi.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import override

from arriero.registry.api.stalls import GONE_S, SPOOL, STALL_S, Lines, ReaderTooSlow
from arriero.registry.pages import pages_of

STREAM_TYPE = "application/x-json-stream"
"""The official client compares the whole header: no charset may follow."""

_ROWS_A_WRITE = 500

_THREADS = 8
_threads: RunVar[CapacityLimiter] = RunVar("arriero_threads_of_lists")
"""Of the lists that hold a connection: all other threads may be waiting for the connections that these give back."""

T = TypeVar("T")


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


class _ListResponse(StreamingResponse):
    """Sends pieces of a list as the reader takes them, and gives up what they are read from when it goes away.

    Parameters
    ----------
    lines
        Pieces; none of them is empty.
    paged
        They hold no connection of the database between two of them: a reader may stall as long as it likes.
    """

    def __init__(self, lines: Lines, media_type: str, *, paged: bool) -> None:
        super().__init__(iter(()), media_type=media_type)
        self._lines = lines
        self._paged = paged

    @override
    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while chunk := await self._run(lambda: next(self._lines, b"")):
            message = {"type": "http.response.body", "body": chunk, "more_body": True}
            if self._paged:
                await _send(send, message)
                continue
            async with create_task_group() as watched:
                watched.start_soon(self._keep_for_the_slow)
                await _send(send, message)
                watched.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_for_the_slow(self) -> None:
        await sleep(STALL_S)
        # nothing interrupts a thread: what is sent next is either the list or the file, whole
        self._lines = await self._run(lambda: SPOOL.keep(self._lines))
        self._paged = True

    async def _run(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=None if self._paged else _limiter())

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await self._run(self._lines.close)


async def _send(send: Send, message: Message) -> None:
    with move_on_after(GONE_S) as waiting:
        await send(message)
    if waiting.cancelled_caught:
        raise ReaderTooSlow(f"the reader has taken nothing for {GONE_S:g} s")


def _limiter() -> CapacityLimiter:
    try:
        return _threads.get()
    except LookupError:
        _threads.set(limiter := CapacityLimiter(_THREADS))
        return limiter


def json_stream(rows: Iterable[Any], *, paged: bool = False, at_once: bool = False) -> StreamingResponse:
    """Answer with a line for each row.

    Parameters
    ----------
    rows
        Usually a generator of a service. Its first row is taken here, so that what it raises at its start becomes a
        proper error; what it raises later breaks the answer off, so that nobody takes a part for the whole.
    paged
        They are read in pages, so that no connection is held while the reader takes its time.
    at_once
        They are few and long in coming: each is sent by itself.
    """
    iterator = iter(rows)
    first = list(itertools.islice(iterator, 1))
    lines = _lines(first, iterator, 1 if at_once else _ROWS_A_WRITE)
    return _ListResponse(lines, STREAM_TYPE, paged=paged)


def byte_stream(chunks: Generator[bytes, None, None], media_type: str) -> StreamingResponse:
    """Answer with pieces of bytes, none of them empty, that are made from a list that is read in pages.

    Parameters
    ----------
    chunks
        The first one is taken here, as `json_stream` does with a row.
    """
    first = list(itertools.islice(chunks, 1))
    return _ListResponse(_chunks(first, chunks), media_type, paged=True)


def _chunks(first: list[bytes], rest: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    try:
        yield from first
        yield from rest
    finally:
        rest.close()


def _lines(
    first: list[Any], rest: Iterator[Any], rows_a_write: int = _ROWS_A_WRITE
) -> Generator[bytes, None, None]:
    try:
        for page in pages_of(itertools.chain(first, rest), rows_a_write):
            yield b"".join(to_json(row) + b"\n" for row in page)
    finally:
        if isinstance(rest, Generator):
            rest.close()
