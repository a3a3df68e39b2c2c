"""The connections to one server: opened, kept, and given up.

They are shared by the threads of one process. Certificates are read again when their files change, so that whoever
renews a proxy or an authority need not tell anybody.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import weakref
from collections import deque
from pathlib import Path

from arriero.rse.answer_head import BrokenAnswer
from arriero.rse.certificates import first_expiry
from arriero.rse.errors import RefusedByGuard, TokenExpired
from arriero.rse.hosts import address_fault
from arriero.rse.tokens import LEEWAY_S
from arriero.rse.types import WIRE_SCHEMES, Endpoint
from arriero.rse.wire import Connection

CONNECT_TIMEOUT = 5.0
"""Seconds; a storage that does not accept a connection by then is taken for unreachable."""

MAX_CONNECTIONS = 32
"""Connections kept per endpoint and process; more threads than that open some that are not kept."""


class ConnectionPool:
    """The connections to one endpoint."""

    def __init__(self, endpoint: Endpoint, *, most: int = MAX_CONNECTIONS) -> None:
        self._endpoint = endpoint
        self._is_secure = WIRE_SCHEMES[endpoint.scheme] == "https"
        self._port = endpoint.port or (443 if self._is_secure else 80)
        self._most = most
        self._idle: deque[Connection] = deque()
        # whoever forgets to close leaves no open sockets
        weakref.finalize(self, _close_all, self._idle)
        self._tls = TlsFiles(endpoint)
        self.opened = 0
        """Connections that were ever opened."""

    def get(self) -> Connection:
        """Give an open connection: the one that was used last, or a new one.

        Raises
        ------
        OSError
            If there is no connection.
        RefusedByGuard
            If its name leads where no storage is.
        """
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._open()
            if not connection.is_stale:
                return connection
            connection.close()

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        if len(self._idle) < self._most:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close those that are kept."""
        _close_all(self._idle)

    def _open(self) -> Connection:
        host = self._endpoint.hostname
        context = self._tls.context() if self._is_secure else None
        try:
            sock = socket.create_connection((host, self._port), CONNECT_TIMEOUT)
        except UnicodeError as error:
            raise BrokenAnswer(f"{host} is no host name") from error
        except TimeoutError as error:
            raise _not_in_time() from error
        try:
            self._check_address(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=host)
        except TimeoutError as error:
            sock.close()
            raise _not_in_time() from error
        except BaseException:
            sock.close()
            raise
        self.opened += 1
        return Connection(sock)

    def _check_address(self, sock: socket.socket) -> None:
        """Look where the name has led, before anything is sent: a name may lead elsewhere tomorrow."""
        address = str(sock.getpeername()[0])
        fault = address_fault(address)
        if fault:
            raise RefusedByGuard(
                f"{self._endpoint.rse}: {self._endpoint.hostname} leads to {address}, which {fault}; "
                "nothing was sent: correct the protocol of the RSE, or the name.",
                rse=self._endpoint.rse,
            )


def _not_in_time() -> BrokenAnswer:
    """No `TimeoutError`: that is for a storage that was reached, and does not answer."""
    return BrokenAnswer(f"it opens no connection within {CONNECT_TIMEOUT:g} s")


def _close_all(connections: deque[Connection]) -> None:
    while connections:
        connections.pop().close()


class TlsFiles:
    """The certificates for one endpoint, as they are on disk."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._seen: tuple[object, ...] | None = None
        self._context: ssl.SSLContext | None = None
        self._expiry: float | None = None

    def context(self) -> ssl.SSLContext:
        """Give what a new connection is made with.

        Raises
        ------
        OSError
            If a file cannot be read; it names the file, which that of `ssl` does not.
        TokenExpired
            If our certificate or proxy has run out.
        """
        endpoint = self._endpoint
        names = (endpoint.ca_bundle, endpoint.certificate_file, endpoint.key_file)
        seen = tuple(None if name is None else _mark(name) for name in names)
        with self._lock:
            if self._context is None or seen != self._seen:
                self._expiry = self._first_expiry()
                self._context, self._seen = self._made(), seen
            self._not_expired()
            return self._context

    def _not_expired(self) -> None:
        if self._expiry is not None and time.time() > self._expiry + LEEWAY_S:
            endpoint = self._endpoint
            ago = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._expiry))
            raise TokenExpired(
                f"RSE {endpoint.rse}: the certificate or proxy in {endpoint.certificate_file} ran out at {ago}; "
                "renew it there, nothing else has to be told.",
                rse=endpoint.rse,
            )

    def _first_expiry(self) -> float | None:
        if self._endpoint.certificate_file is None:
            return None
        return first_expiry(Path(self._endpoint.certificate_file).read_text("ascii", "replace"))

    def _made(self) -> ssl.SSLContext:
        endpoint = self._endpoint
        context = _trusting(endpoint.ca_bundle)
        if endpoint.certificate_file is not None:
            key = endpoint.key_file or endpoint.certificate_file
            try:
                context.load_cert_chain(endpoint.certificate_file, key, password=_no_password)
            except (OSError, ValueError) as error:
                number = error.errno if isinstance(error, OSError) else None
                text = error.strerror if isinstance(error, OSError) else None
                raise OSError(
                    number or 0, text or "no certificate and key", endpoint.certificate_file
                ) from error
        return context


def _trusting(ca_bundle: str | None) -> ssl.SSLContext:
    """Trust the given authorities and no others; those of the system when none are given."""
    if ca_bundle is None:
        return ssl.create_default_context()
    try:
        if Path(ca_bundle).is_dir():
            return ssl.create_default_context(capath=ca_bundle)
        return ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:
        raise OSError(error.errno, error.strerror, ca_bundle) from error


def _mark(name: str) -> tuple[int, int, int] | None:
    """What changes when a file does."""
    try:
        found = Path(name).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _no_password() -> str:
    """A key that needs a password is refused: OpenSSL would ask for it on the terminal."""
    raise ValueError("its key needs a password")
