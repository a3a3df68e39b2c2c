"""HTTP/1.1 over one connection, and no more of it than storage needs.

A general client costs more time per request than everything else that is done for a small file: a HEAD took 179 us of
urllib3, 90 us of `http.client` and 27 us as it is here (measured, one core). So there is one: no redirect is followed,
nothing is decompressed, nothing of the environment is read, and what is received is bounded.

It knows connections and answers. Which server, how long, and whether to try again is the caller's.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Self

from arriero.rse.answer_head import BrokenAnswer, head_of
from arriero.rse.body import SizedBody

MAX_HEAD = 65_536
"""Bytes of status line and headers of an answer."""

MAX_LINE = 4_096
"""Bytes of the line that announces a chunk."""

MAX_ANSWER = 65_536
"""Bytes read of an answer that is not a file, a listing or a transfer report."""

RECEIVED_AT_ONCE = 65_536

PIECE_SECONDS = 1.0
"""How long bytes are gathered for one piece of a file; a slow source gives smaller ones."""

ATTENTION_SECONDS = 0.5
"""How often somebody who waits for bytes is asked whether to go on."""

Attention = Callable[[], None]
"""Called while nothing comes; what it raises ends the wait."""

_EARLY_ANSWER_SECONDS = 5.0
_BODILESS = frozenset({204, 304})
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")


class Connection:
    """One open connection; used by one thread at a time."""

    __slots__ = ("_can_send", "_poll", "_received", "_timeout", "attention", "is_used", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.is_used = False
        """Whether an answer came through it before: the server may have closed it since."""
        self._received = b""
        self._timeout: float | None = None
        self.attention: Attention | None = None
        """Called while this connection is waited for."""
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._can_send = select.poll()
        self._can_send.register(sock, select.POLLOUT)

    @property
    def is_stale(self) -> bool:
        """Whether the server has closed it, or said what nobody asked for."""
        return bool(self._received) or bool(self._poll.poll(0))

    def exchange(
        self,
        head: bytes,
        body: SizedBody | bytes | None,
        *,
        timeout: float,
        is_head: bool = False,
        attention: Attention | None = None,
    ) -> Answer:
        """Send a request and give the answer, of which status and headers were read.

        Parameters
        ----------
        head
            Request line and headers, with the blank line at their end.
        body
            What follows.
        timeout
            Seconds without a byte.
        is_head
            Whether the answer has no body, whatever it announces.
        attention
            Called while the answer does not come.

        Raises
        ------
        OSError
            If it cannot be sent or there is no answer; `BrokenAnswer` if it is none.
        """
        self.limit(timeout)
        self.attention = attention
        try:
            self._send(head, body)
        except (BrokenPipeError, ConnectionResetError) as error:
            # a server that refuses an upload may say why before it hangs up
            self.limit(_EARLY_ANSWER_SECONDS)
            try:
                answer = self._answer(is_head=is_head)
            except OSError:
                raise error from None
            answer.keeps_connection = False
            return answer
        return self._answer(is_head=is_head)

    def close(self) -> None:
        self.sock.close()

    def limit(self, seconds: float) -> None:
        """Wait so long for each byte."""
        if seconds != self._timeout:
            self.sock.settimeout(seconds)
            self._timeout = seconds

    def _send(self, head: bytes, body: SizedBody | bytes | None) -> None:
        if body is None:
            self.sock.sendall(head)
        elif isinstance(body, bytes):
            self.sock.sendall(head + body)
        else:
            self.sock.sendall(head)
            for piece in body:
                self._send_piece(memoryview(piece))

    def _send_piece(self, rest: memoryview) -> None:
        """Send a piece of any length: the time-out is for each step of it, that of `sendall` would be for all of it."""
        while rest:
            if self.attention is not None:
                self._attend(self._can_send)
            rest = rest[self.sock.send(rest) :]

    def _answer(self, *, is_head: bool) -> Answer:
        until = time.monotonic() + (self._timeout or 0.0)
        while True:
            head = self._until_blank_line(until)
            answer = _read_head(head, self)
            if answer.status_code >= 200:
                break
        if is_head or answer.status_code in _BODILESS:
            answer.remaining = 0
            answer.is_chunked = False
        return answer

    def _until_blank_line(self, until: float) -> bytes:
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if len(self._received) > MAX_HEAD:
                raise BrokenAnswer(f"its headers are longer than {MAX_HEAD} bytes")
            piece = self.receive()
            if not piece:
                raise BrokenAnswer("the connection was closed without an answer")
            self._received += piece
            if time.monotonic() > until:
                raise TimeoutError("its headers do not end")
        head, self._received = self._received[:end], self._received[end + 4 :]
        return head

    def receive(self) -> bytes:
        """Give some of what has come; nothing at the end of the connection.

        Raises
        ------
        TimeoutError
            If nothing comes for too long.
        """
        self._wait()
        return self.sock.recv(RECEIVED_AT_ONCE)

    def take(self, most: int) -> bytes:
        """Give what was received beyond what was read, up to `most` bytes."""
        taken = self._received[:most]
        self._received = self._received[most:]
        return taken

    def line(self) -> bytes:
        """Give the next line, without its end.

        Raises
        ------
        BrokenAnswer
            If it does not end.
        """
        while (end := self._received.find(b"\r\n")) < 0:
            piece = self.receive() if len(self._received) <= MAX_LINE else b""
            if not piece:
                raise BrokenAnswer("it broke off between two chunks")
            self._received += piece
        line, self._received = self._received[:end], self._received[end + 2 :]
        return line

    def piece(self, most: int) -> bytes:
        """Give up to `most` bytes: as many as come within `PIECE_SECONDS`, and at least one but at the end.

        Raises
        ------
        TimeoutError
            If nothing comes for too long.
        """
        if self._received:
            return self.take(most)
        if most <= RECEIVED_AT_ONCE:
            self._wait()
            return self.sock.recv(most)
        buffer = bytearray(most)
        view = memoryview(buffer)
        filled, until = 0, 0.0
        while filled < most:
            self._wait()
            count = self.sock.recv_into(view[filled:])
            if not count:
                break
            filled += count
            now = time.monotonic()
            if now > (until := until or now + PIECE_SECONDS):
                break
        return bytes(view[:filled])

    def _wait(self) -> None:
        """Wait for a byte, if somebody wants to be asked meanwhile."""
        if self.attention is None or (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()):
            return
        self._attend(self._poll)

    def _attend(self, ready: select.poll) -> None:
        until = time.monotonic() + (self._timeout or 0.0)
        while not ready.poll(1000 * ATTENTION_SECONDS):
            if self.attention is not None:
                self.attention()
            if time.monotonic() > until:
                raise TimeoutError("nothing moves")


class Answer:
    """One answer of a server; leaving its `with` block gives up what was not read."""

    __slots__ = (
        "_connection",
        "_give_back",
        "content",
        "headers",
        "is_chunked",
        "keeps_connection",
        "remaining",
        "status_code",
        "url_path",
    )

    def __init__(self, status_code: int, headers: Mapping[str, str], connection: Connection) -> None:
        self.status_code = status_code
        self.headers = headers
        """By their names in lower case."""
        self.url_path = ""
        self.content = b""
        """First bytes of the body, where it was read to its end already."""
        self.remaining: int | None = None
        """Bytes of the body (of the chunk) that are still to come; None where only the end of the connection tells."""
        self.is_chunked = False
        self.keeps_connection = True
        self._connection: Connection | None = connection
        self._give_back: Callable[[Connection], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def returns_to(self, give_back: Callable[[Connection], None]) -> None:
        """Say who gets the connection once the body was read to its end."""
        self._give_back = give_back

    def limit_silence(self, seconds: float, attention: Attention | None = None) -> None:
        """From here on, so many seconds may pass without a byte."""
        if self._connection is not None:
            self._connection.limit(seconds)
            self._connection.attention = attention

    def close(self) -> None:
        """Close the connection, unless the body was read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def settle(self) -> None:
        """Read the body to its end, so that the connection can be used again; close it where that is long."""
        if self.remaining == 0 and not self.is_chunked:
            self._end()
            return
        content = bytearray()
        try:
            for piece in self.pieces(RECEIVED_AT_ONCE):
                content += piece
                if len(content) > MAX_ANSWER:
                    break
        except OSError:
            pass
        self.content = bytes(content[:MAX_ANSWER])
        self.close()

    def pieces(self, most: int) -> Generator[bytes, None, None]:
        """Give the body in pieces of up to `most` bytes, and as it comes where that is slow.

        Raises
        ------
        OSError
            If it breaks off, comes up short, or nothing comes for too long.
        """
        if self.is_chunked:
            yield from self._chunks(most)
        else:
            yield from self._plain(most)
        self._end()

    def _plain(self, most: int) -> Iterator[bytes]:
        connection = self._opened()
        while self.remaining != 0:
            piece = connection.piece(most if self.remaining is None else min(most, self.remaining))
            if not piece:
                if self.remaining is None:
                    self.keeps_connection = False
                    return
                raise BrokenAnswer(f"the connection ended {self.remaining} bytes too early")
            if self.remaining is not None:
                self.remaining -= len(piece)
            yield piece

    def _chunks(self, most: int) -> Iterator[bytes]:
        connection = self._opened()
        while size := _chunk_size(connection.line()):
            while size:
                piece = connection.piece(min(most, size))
                if not piece:
                    raise BrokenAnswer(f"the connection ended {size} bytes before the end of a chunk")
                size -= len(piece)
                yield piece
            if connection.line():
                raise BrokenAnswer("a chunk is longer than announced")
        while connection.line():
            pass

    def _opened(self) -> Connection:
        if self._connection is None:
            raise BrokenAnswer("the answer was closed")
        return self._connection

    def _end(self) -> None:
        """Give the connection back once nothing is left to read."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self.keeps_connection and self._give_back is not None:
            connection.is_used = True
            self._give_back(connection)
        else:
            connection.close()


def _read_head(head: bytes, connection: Connection) -> Answer:
    read = head_of(head)
    answer = Answer(read.status_code, read.headers, connection)
    answer.keeps_connection = read.keeps_connection
    answer.is_chunked = read.is_chunked
    answer.remaining = read.remaining
    return answer


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not 0 < len(digits) <= 16 or not _HEXADECIMAL.issuperset(digits):
        raise BrokenAnswer("a chunk does not begin with its length")
    return int(digits, 16)
