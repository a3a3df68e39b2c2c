"""HTTP connections to storage elements: how they are opened, shared, timed and given up.

It stands in for the session that webdavclient3 expects, on urllib3 alone: requests' own costs as much time per
request as the rest together, and lets the environment in (proxies, `~/.netrc` and CA variables would replace what
was registered). No redirect is followed (a redirected PUT would become a GET that succeeds), nothing is
decompressed, and every answer is read to its end or its connection closed, so that connections are used again.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from typing_extensions import override
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError
from urllib3.response import BaseHTTPResponse, HTTPResponse
from urllib3.util import Timeout
from urllib3.util.retry import Retry

from arriero.rse.body import SizedBody
from arriero.rse.types import WIRE_SCHEMES, Endpoint

CONNECT_TIMEOUT = 5.0
"""Seconds; a storage that does not accept a connection by then is taken for unreachable."""

READ_TIMEOUT = 60.0
"""Seconds without a byte, for everything but the following."""

READ_TIMEOUTS = {"COPY": 130.0, "PUT": 180.0}
"""COPY: XRootD 5.5.3 looks at the source before its first byte, for up to 120 s. PUT: the server stores and
checksums before it answers."""

MAX_CONNECTIONS = 32
"""Connections kept per endpoint and process; more threads than that open some that are not kept."""

MAX_ANSWER = 65_536
"""Bytes read of an answer that is not a file, a listing or a transfer report."""

IDEMPOTENT = frozenset({"HEAD", "GET", "PROPFIND", "OPTIONS", "MKCOL", "DELETE"})
_STREAMED = frozenset({"GET", "COPY", "PROPFIND"})
_HEADERS = {"User-Agent": "arriero", "Accept": "*/*", "Accept-Encoding": "identity"}


class StaleConnectionRetry(Retry):
    """One more try when a kept connection turns out to be closed; never after waiting in vain."""

    @override
    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if isinstance(error, Urllib3TimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


_RETRY = StaleConnectionRetry(
    total=2, connect=0, read=2, redirect=0, status=0, other=0, allowed_methods=IDEMPOTENT
)


@dataclass(slots=True)
class Answer:
    """One answer of a storage; leaving its `with` block gives up what was not read."""

    status_code: int
    headers: Mapping[str, str]
    raw: HTTPResponse
    url_path: str
    content: bytes = b""
    """First bytes of the body, where it was read to its end already."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection unless the body was read to its end."""
        self.raw.close()
        self.raw.release_conn()

    def settle(self, *, keep: bool) -> None:
        """Read the body to its end, so that the connection can be used again, or close it.

        Parameters
        ----------
        keep
            False to close it in any case: XRootD 5.5.3 closes after some refusals, announcing the contrary.
        """
        try:
            self.content = self.raw.read(MAX_ANSWER, decode_content=False)
            ended = not self.raw.read(1)
        except (HTTPError, OSError):
            ended = False
        if keep and ended:
            self.raw.release_conn()
        else:
            self.close()

    def pieces(self, size: int) -> Iterator[bytes]:
        """Give the body in pieces of up to `size` bytes.

        Raises
        ------
        urllib3.exceptions.HTTPError
            If it breaks off, comes up short or stalls.
        """
        if self.raw.chunked:
            yield from self.raw.read_chunked(size, decode_content=False)
            return
        while piece := self.raw.read(size, decode_content=False):
            yield piece

    def arriving_pieces(self, silence: float) -> Iterator[bytes]:
        """Give the body as it arrives; after the first piece each may take `silence` seconds."""
        pieces = self.raw.read_chunked(None, decode_content=False) if self.raw.chunked else self._arriving()
        for piece in pieces:
            sock = getattr(self.raw.connection, "sock", None)
            if sock is not None:
                sock.settimeout(silence)
            yield piece

    def _arriving(self) -> Iterator[bytes]:
        while piece := self.raw.read1(MAX_ANSWER, decode_content=False):
            yield piece


class StorageSession:
    """The connections to one endpoint, shared by all threads of one process."""

    auth = None
    """webdavclient3 asks for it; credentials are headers of ours."""

    def __init__(self, endpoint: Endpoint, *, max_connections: int = MAX_CONNECTIONS) -> None:
        options: dict[str, Any] = {"maxsize": max_connections, "block": False}
        port = endpoint.port or None
        self._origin = endpoint.origin
        self._thread = threading.local()
        self.pool: HTTPConnectionPool
        if WIRE_SCHEMES[endpoint.scheme] == "https":
            context = _tls_context(endpoint.ca_bundle)
            self.pool = HTTPSConnectionPool(endpoint.hostname, port, ssl_context=context, **options)
        else:
            self.pool = HTTPConnectionPool(endpoint.hostname, port, **options)

    @contextmanager
    def read_timeout(self, seconds: float) -> Iterator[None]:
        """Within this block, this thread waits so long for an answer."""
        self._thread.seconds = seconds
        try:
            yield
        finally:
            self._thread.seconds = None

    def request(
        self,
        *,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: SizedBody | bytes | None = None,
        **_: object,
    ) -> Answer:
        """Make one request, as webdavclient3 asks `requests.Session` for it; its other options do not apply.

        Raises
        ------
        urllib3.exceptions.HTTPError
            If there is no answer.
        """
        seconds = getattr(self._thread, "seconds", None) or READ_TIMEOUTS.get(method, READ_TIMEOUT)
        sent = {**_HEADERS, **headers}
        if data is not None:
            sent["Content-Length"] = str(len(data))
        url_path = url[len(self._origin) :]
        raw = self.pool.urlopen(
            method,
            url_path,
            body=data,
            headers=sent,
            retries=_RETRY,
            redirect=False,
            assert_same_host=False,
            timeout=Timeout(connect=CONNECT_TIMEOUT, read=seconds),
            preload_content=False,
            decode_content=False,
        )
        assert isinstance(raw, HTTPResponse)
        answer = Answer(raw.status, raw.headers, raw, url_path)
        if method not in _STREAMED or raw.status >= 300:
            answer.settle(keep=raw.status < 400 or method == "HEAD")
        return answer

    def close(self) -> None:
        """Close the connections that are kept."""
        self.pool.close()


def _tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """Trust the given authorities and no others; those of the system when none are given.

    Raises
    ------
    OSError
        If they cannot be read; it names the file, which that of `ssl` does not.
    """
    if ca_bundle is None:
        return ssl.create_default_context()
    try:
        if Path(ca_bundle).is_dir():
            return ssl.create_default_context(capath=ca_bundle)
        return ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:
        raise OSError(error.errno, error.strerror, ca_bundle) from error
