"""Requests to storage elements: how long each may take, which are sent again, and over which connections.

It stands in for the session that webdavclient3 expects, over our own connections (`wire`, `connections`): the stock
one opens a connection per request, follows redirects and lets the environment in (proxies, `~/.netrc` and CA
variables would replace what was registered).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from arriero.rse.body import SizedBody
from arriero.rse.connections import ConnectionPool
from arriero.rse.types import Endpoint
from arriero.rse.wire import Answer, Attention, Connection

READ_TIMEOUT = 60.0
"""Seconds without a byte, for everything but the following."""

READ_TIMEOUTS = {"COPY": 130.0, "PUT": 180.0}
"""COPY: XRootD 5.5.3 looks at the source before its first byte, for up to 120 s. PUT: the server stores and
checksums before it answers."""

IDEMPOTENT = frozenset({"HEAD", "GET", "PROPFIND", "OPTIONS", "MKCOL", "DELETE"})

TRIES = 3
"""Connections tried for an idempotent request: one that was kept may turn out to be closed."""

_STREAMED = frozenset({"GET", "COPY", "PROPFIND"})


class StorageSession:
    """What is sent to one endpoint, by all threads of one process."""

    auth = None
    """webdavclient3 asks for it; credentials are headers of ours."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.pool = ConnectionPool(endpoint)
        self.requests = 0
        """Requests that were ever sent."""
        self._thread = threading.local()
        self._origin = len(endpoint.origin)
        host = endpoint.origin.partition("://")[2]
        self._fixed = f" HTTP/1.1\r\nHost: {host}\r\nUser-Agent: arriero\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"

    @contextmanager
    def patience(self, read_timeout: float | None, attention: Attention | None = None) -> Iterator[None]:
        """Within this block, this thread waits so long for an answer, and is asked meanwhile whether to go on."""
        self._thread.patience = (read_timeout, attention)
        try:
            yield
        finally:
            self._thread.patience = None

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
        OSError
            If there is no answer.
        """
        seconds, attention = getattr(self._thread, "patience", None) or (None, None)
        timeout = seconds or READ_TIMEOUTS.get(method, READ_TIMEOUT)
        url_path = url[self._origin :]
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if lines.count("\n") != len(headers):
            raise ValueError("a header of a request has a line break")
        length = "" if data is None else f"Content-Length: {len(data)}\r\n"
        head = f"{method} {url_path}{self._fixed}{lines}{length}\r\n".encode("latin-1")
        self.requests += 1
        tries = TRIES if method in IDEMPOTENT and not isinstance(data, SizedBody) else 1
        while True:
            connection = self.pool.get()
            tries -= 1
            try:
                answer = connection.exchange(
                    head, data, timeout=timeout, is_head=method == "HEAD", attention=attention
                )
                break
            except BaseException as error:
                connection.close()
                if tries <= 0 or not _was_closed_meanwhile(connection, error):
                    raise
        answer.url_path = url_path
        answer.returns_to(self.pool.give_back)
        if method not in _STREAMED or answer.status_code >= 300:
            if answer.status_code >= 400 and method != "HEAD":
                # XRootD 5.5.3 closes after some refusals, announcing the contrary
                answer.keeps_connection = False
            answer.settle()
        return answer

    def close(self) -> None:
        """Close the connections that are kept."""
        self.pool.close()


def _was_closed_meanwhile(connection: Connection, error: BaseException) -> bool:
    """Whether a request failed because its connection was an old one; never after waiting in vain."""
    return connection.is_used and isinstance(error, OSError) and not isinstance(error, TimeoutError)
