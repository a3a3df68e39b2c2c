"""A storage element that lies, cuts, stalls and refuses, as a test tells it to.

It speaks enough WebDAV to be the source or the destination of a copy. A fault is set per path; everything without
a fault behaves well, so that a test shows one thing going wrong.
"""

from __future__ import annotations

import itertools
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

from arriero.rse.types import Endpoint

PREFIX = "/store"
_NEEDS = {"GET": "DOWNLOAD", "HEAD": "LIST", "PROPFIND": "LIST", "PUT": "UPLOAD"}
"""Activity that a macaroon needs for a verb."""

MARKER = b"Perf Marker\nStripe Index: 0\nStripe Bytes Transferred: %d\nEnd\n"


@dataclass
class Fault:
    """What goes wrong with one path; None and False mean that it does not."""

    cut_after: int | None = None
    """GET sends so many bytes, announces all, and hangs up."""
    send: bytes | None = None
    """GET sends this instead, with its true length."""
    flip_bit_at: int | None = None
    """GET sends one bit wrong."""
    without_length: bool = False
    """GET announces no length and ends by hanging up."""
    status: int | None = None
    """Every request is answered with this status."""
    body: bytes = b""
    """Text of that answer."""
    location: str | None = None
    stall: bool = False
    """GET sends half, then nothing until the server ends."""
    digest: str | None = None
    """HEAD gives this adler32."""
    digest_fails: int = 0
    """So many HEAD requests with Want-Digest are answered with 500."""
    lose_bytes: int = 0
    """PUT and COPY store so many bytes less, and say that all is well."""
    report: tuple[bytes, ...] | None = None
    """COPY answers 201 and streams this; otherwise it copies, and says how that went."""
    pulled: bytes | None = None
    """COPY stores this."""
    pushed: bytes | None = None
    """COPY sends this to its destination."""
    report_is_cut: bool = False
    """COPY hangs up after its report, without the end of the chunked body."""
    report_stalls: bool = False
    """COPY says nothing more after its report, until the server ends."""
    report_repeats: bool = False
    """COPY repeats the last piece of its report for ever."""
    report_grows: bool = False
    """COPY goes on for ever with markers of one byte more each."""
    move_answers: int | None = None
    """MOVE to this path is done, and answered with this status; 0 hangs up."""

    def spoiled(self, content: bytes) -> bytes:
        """What is sent instead of the content."""
        content = content if self.send is None else self.send
        if self.flip_bit_at is None:
            return content
        position = self.flip_bit_at
        return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@dataclass
class BadServer:
    """Content, faults and log of requests."""

    software: str = "XrootD/bad"
    allow: str = "HEAD,GET,PUT,PROPFIND,DELETE,OPTIONS,COPY"
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    macaroons: list[dict[str, object]] = field(default_factory=list)
    """What macaroons were asked for."""
    gives_digests: bool = True
    dav: str = "1"
    """What it says of its compliance with WebDAV; nothing, and it answers no PROPFIND and no MKCOL either."""
    moves: bool = True
    copies: bool = True
    """Whether it copies by itself; otherwise its COPY is that of WebDAV, within itself."""
    port: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    before: Callable[[str, str], None] | None = None
    """Called with verb and path before a request is answered."""
    opens: Callable[[str, str, str], bool] | None = None
    """Says whether a value of `Authorization` opens a path for a verb; everything is open without."""
    gives_macaroons: bool = False
    """Whether it makes macaroons, as dCache does: `macaroon.<activities>.<path>` opens that path for that."""

    def endpoint(self, rse: str = "BAD_DISK", **options: str) -> Endpoint:
        return Endpoint(rse, "http", "127.0.0.1", self.port, PREFIX, **options)

    def verbs(self, path: str) -> list[str]:
        """Verbs of the requests for one path."""
        return [verb for verb, requested, _ in self.requests if requested == path]

    def fault(self, path: str) -> Fault:
        return self.faults.get(path, Fault())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    @property
    def bad(self) -> BadServer:
        return self.server.bad

    def version_string(self) -> str:
        return self.bad.software

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self) -> tuple[str, Fault] | None:
        """Note the request and give its path; None if its fault has answered it."""
        path = unquote(urlsplit(self.path).path).removeprefix(PREFIX).strip("/")
        self.bad.requests.append((self.command, path, dict(self.headers)))
        if self.bad.before is not None:
            self.bad.before(self.command, path)
        fault = self.bad.fault(path)
        if self.bad.opens is not None and not self.is_open(path):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(401 if "Authorization" not in self.headers else 403)
            return None
        if fault.status is not None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            location = {"Location": fault.location} if fault.location else {}
            self.answer(fault.status, fault.body, **location)
            return None
        return path, fault

    def is_open(self, path: str) -> bool:
        authorization = self.headers.get("Authorization", "")
        kind, _, token = authorization.partition(" ")
        if self.bad.gives_macaroons and kind == "Bearer" and token.startswith("macaroon."):
            _, activities, of = token.split(".", 2)
            return bytes.fromhex(of).decode() == path and _NEEDS[self.command] in activities
        assert self.bad.opens is not None
        return self.bad.opens(self.command, path, authorization)

    def do_POST(self) -> None:
        if not (begun := self.begin()):
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.bad.gives_macaroons or self.headers["Content-Type"] != "application/macaroon-request":
            self.answer(405)
            return
        order = json.loads(body)
        self.bad.macaroons.append(order)
        activities = "-".join(order["caveats"]).replace("activity:", "").replace(",", "-")
        self.answer(
            200, json.dumps({"macaroon": f"macaroon.{activities}.{begun[0].encode().hex()}"}).encode()
        )

    def do_OPTIONS(self) -> None:
        if self.begin():
            dav = {"DAV": self.bad.dav} if self.bad.dav else {}
            self.answer(200, Allow=self.bad.allow, **dav)

    def do_HEAD(self) -> None:
        if not (begun := self.begin()):
            return
        path, fault = begun
        if path not in self.bad.files:
            self.answer(404)
            return
        content = self.bad.files[path]
        headers = {"Content_Length": str(len(content))}
        if "Want-Digest" in self.headers:
            if fault.digest_fails > 0:
                fault.digest_fails -= 1
                self.answer(500)
                return
            if self.bad.gives_digests:
                headers["Digest"] = "adler32=" + (fault.digest or f"{zlib.adler32(content):08x}")
        self.answer(200, **headers)

    def do_GET(self) -> None:
        if not (begun := self.begin()):
            return
        path, fault = begun
        if path not in self.bad.files:
            self.answer(404, b"nothing here")
            return
        content = fault.spoiled(self.bad.files[path])
        self.send_response(200)
        if not fault.without_length:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault.stall:
            self.wfile.write(content[: len(content) // 2])
            self.bad.ended.wait(60)
        elif fault.cut_after is not None:
            self.wfile.write(content[: fault.cut_after])
        else:
            self.wfile.write(content)
        self.close_connection = fault.stall or fault.without_length or fault.cut_after is not None

    def do_PUT(self) -> None:
        content = b""
        if not (begun := self.begin()):
            return
        path, fault = begun
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("If-None-Match") == "*" and path in self.bad.files:
            self.answer(412)
            return
        self.bad.files[path] = content[: len(content) - fault.lose_bytes]
        self.answer(201)

    def do_DELETE(self) -> None:
        if begun := self.begin():
            self.answer(404 if self.bad.files.pop(begun[0], None) is None else 204)

    def do_MKCOL(self) -> None:
        if self.begin():
            self.answer(201 if self.bad.dav else 405)

    def do_MOVE(self) -> None:
        if not (begun := self.begin()):
            return
        path = begun[0]
        if not self.bad.moves:
            self.answer(405)
            return
        destination = unquote(urlsplit(self.headers["Destination"]).path).removeprefix(PREFIX).strip("/")
        if path not in self.bad.files:
            self.answer(404)
            return
        self.bad.files[destination] = self.bad.files.pop(path)
        status = self.bad.fault(destination).move_answers
        if status == 0:
            self.close_connection = True
        else:
            self.answer(status or 201)

    def do_COPY(self) -> None:
        if not (begun := self.begin()):
            return
        path, fault = begun
        if not self.bad.copies:
            self.copy_within(path)
            return
        if fault.pulled is not None:
            self.bad.files[path] = fault.pulled
        report = fault.report
        if report is None:
            report = (b"success: Created",) if fault.pulled is not None else (self.copied(path, fault),)
        self.send_response(201)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in report:
            self.chunk(piece)
        for count in itertools.count() if fault.report_repeats or fault.report_grows else ():
            if self.bad.ended.wait(0.02):
                break
            self.chunk(MARKER % count if fault.report_grows else report[-1])
        if fault.report_stalls:
            self.bad.ended.wait(60)
        if fault.report_is_cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def copy_within(self, path: str) -> None:
        """What servers do that know WebDAV alone: another host in the destination is not looked at."""
        if path not in self.bad.files or "Destination" not in self.headers:
            self.answer(404)
            return
        destination = unquote(urlsplit(self.headers["Destination"]).path).removeprefix(PREFIX).strip("/")
        self.bad.files[destination] = self.bad.files[path]
        self.answer(201, b"<html>Created</html>")

    def chunk(self, piece: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def copied(self, path: str, fault: Fault) -> bytes:
        """Fetch from `Source` or send to `Destination`; gives the line of the result."""
        authorization = self.headers.get("TransferHeaderAuthorization")
        headers = {} if authorization is None else {"Authorization": authorization}
        source, destination = self.headers.get("Source"), self.headers.get("Destination")
        if source is not None:
            status, content = _exchange("GET", source, None, headers)
            if status == 200:
                self.bad.files[path] = content[: len(content) - fault.lose_bytes]
        elif destination is not None and path in self.bad.files:
            content = self.bad.files[path] if fault.pushed is None else fault.pushed
            status, _ = _exchange("PUT", destination, content, headers)
        else:
            return b"failure: nothing to copy"
        return b"success: Created" if status < 300 else b"failure: status code %d" % status

    def do_PROPFIND(self) -> None:
        if not (begun := self.begin()):
            return
        path = begun[0]
        if not self.bad.dav:
            self.answer(405)
            return
        if path not in self.bad.files:
            self.answer(404)
            return
        href = quote(f"{PREFIX}/{path}")
        body = (
            '<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:response>'
            f"<D:href>{href}</D:href><D:propstat><D:prop>"
            f"<D:getcontentlength>{len(self.bad.files[path])}</D:getcontentlength>"
            "</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>"
        )
        self.answer(207, body.encode())


def _exchange(verb: str, url: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=10)
    try:
        connection.request(verb, parts.path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    bad: BadServer


@contextmanager
def bad_server(**settings: str | bool) -> Iterator[BadServer]:
    """Run a server on a free port for the length of the block."""
    bad = BadServer(**settings)  # type: ignore[arg-type]
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.bad = bad
        bad.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield bad
        finally:
            bad.ended.set()
            server.shutdown()
            thread.join(5)
