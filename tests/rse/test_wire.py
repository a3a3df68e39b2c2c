"""HTTP as it comes over a wire: cut anywhere, malformed, endless, early, or not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arriero.rse.answer_head import BrokenAnswer
from arriero.rse.body import SizedBody
from arriero.rse.errors import RSEError, TransferFailed, Unavailable
from arriero.rse.pool import ProtocolPool
from arriero.rse.transport import StorageSession
from arriero.rse.types import Endpoint
from arriero.rse.wire import MAX_HEAD, Answer, Connection

HEAD = b"HTTP/1.1 200 OK\r\n"
LONG = b"0123456789" * 20_000


class Scripted:
    """A socket that gives what it was told to, in these pieces, and then the end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.sent = b""
        self.is_closed = False
        self._pair = socket.socketpair()

    def fileno(self) -> int:
        return self._pair[0].fileno()

    def settimeout(self, _seconds: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def send(self, data: bytes) -> int:
        self.sent += bytes(data[:7])
        return min(7, len(data))

    def recv(self, most: int) -> bytes:
        if not self.pieces:
            return b""
        piece = self.pieces[0][:most]
        self.pieces[0] = self.pieces[0][most:]
        if not self.pieces[0]:
            del self.pieces[0]
        return piece

    def recv_into(self, view: memoryview) -> int:
        piece = self.recv(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self.is_closed = True
        for end in self._pair:
            end.close()


def answer_to(pieces: list[bytes], *, is_head: bool = False) -> tuple[Answer, Scripted]:
    sock = Scripted(pieces)
    connection = Connection(sock)  # type: ignore[arg-type]
    try:
        return connection.exchange(b"GET / HTTP/1.1\r\n\r\n", None, timeout=5, is_head=is_head), sock
    except BaseException:
        sock.close()
        raise


def content_of(*pieces: bytes, is_head: bool = False) -> bytes:
    answer, _ = answer_to(list(pieces), is_head=is_head)
    with answer:
        return b"".join(answer.pieces(1 << 20))


def cut(content: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(position % (len(content) + 1) for position in cuts), len(content)]
    return [content[start:end] for start, end in pairwise(edges)]


BODIES = [
    (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    (HEAD + b"content-length:5\r\n\r\nhello", b"hello"),
    (HEAD + b"Content-Length: 0\r\n\r\n", b""),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", b"hello"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0005\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"hello"),
    (HEAD + b"\r\nuntil the end", b"until the end"),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        + HEAD
        + b"Content-Length: 2\r\n\r\nok",
        b"ok",
    ),
    (HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(LONG), LONG), LONG),
]


@pytest.mark.parametrize(("sent", "content"), BODIES)
def test_bodies(sent: bytes, content: bytes) -> None:
    assert content_of(sent) == content


@given(st.sampled_from(BODIES[:-1]), st.lists(st.integers(0, 500), max_size=40))
def test_where_it_is_cut_makes_no_difference(case: tuple[bytes, bytes], cuts: list[int]) -> None:
    sent, content = case
    assert content_of(*cut(sent, cuts)) == content


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_anything_else_is_an_error_of_the_wire(sent: bytes, cuts: list[int]) -> None:
    for begun in (b"", HEAD, HEAD + b"Transfer-Encoding: chunked\r\n\r\n"):
        with suppress(OSError):
            content_of(*cut(begun + sent, cuts))


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not begin"),
        (b"HTTP/2 200 OK\r\n\r\n", "does not begin"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "does not begin"),
        (HEAD + b"X: " + b"y" * (MAX_HEAD + 10), "longer than"),
        (HEAD + b"Content-Length: -5\r\n\r\n", "no number"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "no number"),
        (HEAD + b"Content-Length: 1e3\r\n\r\n", "no number"),
        (HEAD + b"Content-Length: 10\r\n\r\nhello", "5 bytes too early"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", "before the end of a chunk"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "between two chunks"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n", "longer than announced"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n", "its length"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n", "its length"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n", "its length"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 5000, "between two chunks"),
    ],
)
def test_what_is_no_answer_says_why(sent: bytes, says: str) -> None:
    with pytest.raises(BrokenAnswer, match=says):
        content_of(sent)


def test_an_answer_without_a_body_has_none_whatever_it_announces() -> None:
    assert content_of(HEAD + b"Content-Length: 99\r\n\r\n", is_head=True) == b""
    assert content_of(b"HTTP/1.1 204 No Content\r\nContent-Length: 99\r\n\r\n") == b""


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\nhello", True),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True),
        (HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", False),
        (HEAD + b"\r\nhello", False),
    ],
)
def test_a_connection_is_kept_when_its_answer_was_read(sent: bytes, kept: bool) -> None:
    given_back: list[Connection] = []
    answer, sock = answer_to([sent])
    answer.returns_to(given_back.append)
    for _piece in answer.pieces(100):
        assert not given_back
    assert bool(given_back) is kept
    assert sock.is_closed is not kept
    sock.close()


def test_what_nobody_asked_for_makes_a_connection_useless() -> None:
    answer, sock = answer_to([HEAD + b"Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n"])
    connections: list[Connection] = []
    answer.returns_to(connections.append)
    assert b"".join(answer.pieces(100)) == b"hello"
    assert connections[0].is_stale
    sock.close()


def test_a_body_is_sent_in_as_many_steps_as_it_takes() -> None:
    sock = Scripted([HEAD + b"Content-Length: 0\r\n\r\n"])
    body = SizedBody([b"0123456789" * 3, b"", b"end"], 33, rse="X", path="f")
    Connection(sock).exchange(b"PUT\r\n\r\n", body, timeout=5)  # type: ignore[arg-type]
    assert sock.sent == b"PUT\r\n\r\n" + b"0123456789" * 3 + b"end"
    sock.close()


@contextmanager
def server(*conversations: Callable[[socket.socket], None]) -> Iterator[Endpoint]:
    """A server that has these conversations, one for each connection, and then no more."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for conversation in conversations:
                with suppress(OSError):
                    connection, _ = listening.accept()
                    with connection:
                        conversation(connection)
            listening.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Endpoint("SCRIPTED", "http", "127.0.0.1", listening.getsockname()[1], "/")
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)  # ends the wait of whoever accepts
        thread.join(5)


def answering(*answers: bytes) -> Callable[[socket.socket], None]:
    def converse(connection: socket.socket) -> None:
        for answer in answers:
            connection.recv(65536)
            connection.sendall(answer)

    return converse


OPTIONS = HEAD + b"Server: scripted\r\nDAV: 1\r\nContent-Length: 0\r\n\r\n"
FILE = HEAD + b"Content-Length: 5\r\n\r\nhello"


def test_a_request_that_changes_nothing_is_sent_again_when_an_old_connection_is_closed() -> None:
    with server(answering(FILE), answering(FILE)) as endpoint:
        session = StorageSession(endpoint)
        for _ in range(2):
            answer = session.request(method="GET", url=f"{endpoint.origin}/f", headers={})
            assert b"".join(answer.pieces(100)) == b"hello"
        assert session.pool.opened == 2
        session.close()


def test_a_request_is_not_sent_again_after_waiting_in_vain() -> None:
    released = threading.Event()

    def silent(connection: socket.socket) -> None:
        answering(FILE)(connection)
        connection.recv(65536)
        released.wait(10)

    with server(silent, answering(FILE)) as endpoint:
        session = StorageSession(endpoint)
        with session.request(method="GET", url=f"{endpoint.origin}/f", headers={}) as answer:
            assert b"".join(answer.pieces(100)) == b"hello"
        with pytest.raises(TimeoutError), session.patience(0.2):
            session.request(method="GET", url=f"{endpoint.origin}/f", headers={})
        assert session.pool.opened == 1
        released.set()
        session.close()


def test_an_upload_that_is_refused_early_says_why(pool: ProtocolPool) -> None:
    """The server answers and hangs up while we send: what it said is more than that it hung up."""

    def refuse(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 4\r\n\r\nfull")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    with server(
        answering(OPTIONS), refuse, answering(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
    ) as endpoint:
        protocol = pool.get(endpoint)
        assert protocol.abilities.move
        protocol.close()
        with pytest.raises(RSEError) as caught:
            protocol.write("f", [bytes(1_000_000)] * 3, 3_000_000)
        assert caught.value.code == "no_space"


def test_a_connection_that_is_reset_in_the_middle(pool: ProtocolPool) -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\nhello")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with server(reset, reset) as endpoint:
        with pytest.raises((TransferFailed, Unavailable)) as caught:
            list(pool.get(endpoint).read("f"))
        assert caught.value.retryable


def test_a_server_that_accepts_and_goes_no_further_is_unreachable(
    pool: ProtocolPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arriero.rse.connections.CONNECT_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint("SILENT", "https", "127.0.0.1", silent.getsockname()[1], "/")
        with pytest.raises(Unavailable, match=r"no connection within 0\.2 s"):
            pool.get(endpoint).stat("f")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nX: y"])
def test_a_header_cannot_smuggle_another(value: str) -> None:
    session = StorageSession(Endpoint("X", "http", "127.0.0.1", 2811, "/"))
    with pytest.raises(ValueError, match="line break"):
        session.request(method="GET", url="http://127.0.0.1:2811/f", headers={"A": value})
