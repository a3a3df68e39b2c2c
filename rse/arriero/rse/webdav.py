"""Storage elements that speak WebDAV: the one place that knows webdavclient3.

Of webdavclient3 the request builder and the errors are used; its session is replaced (`transport`), because the
stock one opens a connection per request, follows redirects and takes over proxies and `~/.netrc`; its path
handling is not used, because it lets `..` through. Errors come out as this package's.

It must not decide what is copied where, nor trust what a server says about success without looking.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from typing_extensions import override
from webdav3.client import Client
from webdav3.exceptions import (
    MethodNotSupported,
    NotEnoughSpace,
    RemoteResourceNotFound,
    ResourceLocked,
    ResponseErrorCode,
    WebDavException,
)

from arriero.rse.abilities import Abilities
from arriero.rse.body import SizedBody
from arriero.rse.credentials import Credentials
from arriero.rse.davprobe import Probe
from arriero.rse.davread import DavReader
from arriero.rse.davserver import DavServer
from arriero.rse.davwrite import DavWriter
from arriero.rse.errors import AccessDenied, NotFound, RSEError, Unsupported
from arriero.rse.macaroons import MacaroonIssuer
from arriero.rse.progress import Watch
from arriero.rse.protocol import OtherSide, StorageProtocol
from arriero.rse.responses import error_of_connection, error_of_status
from arriero.rse.thirdparty import ThirdParty
from arriero.rse.transport import StorageSession
from arriero.rse.types import DirectoryEntry, Endpoint, FileStat
from arriero.rse.wire import Answer, Attention

_REFUSALS: tuple[tuple[type[Exception], int], ...] = (
    (RemoteResourceNotFound, 404),
    (MethodNotSupported, 405),
    (ResourceLocked, 423),
    (NotEnoughSpace, 507),
)
_VERBS = {
    "options": "OPTIONS",
    "head": "HEAD",
    "get": "GET",
    "put": "PUT",
    "move": "MOVE",
    "delete": "DELETE",
    "mkcol": "MKCOL",
    "propfind": "PROPFIND",
    "pull": "COPY",
    "push": "COPY",
    "macaroon": "POST",
}
_NO_HEADERS: dict[str, str] = {}
_Patience = tuple[float | None, Attention | None]


class _StorageClient(Client):  # type: ignore[misc]  # webdavclient3 has no types
    """webdavclient3's client over our session, with whole paths that are quoted already."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(
            {
                "webdav_hostname": endpoint.origin,
                "webdav_override_methods": _VERBS,
                "webdav_disable_check": True,
            }
        )
        self.session = StorageSession(endpoint)
        self.http_header: dict[str, list[str]] = {action: [] for action in _VERBS}
        self._origin = endpoint.origin

    def get_headers(self, action: str, headers_ext: dict[str, str] | None = None) -> dict[str, str]:  # noqa: ARG002
        """Upstream strips values, and with them the last byte of some names."""
        return headers_ext or _NO_HEADERS

    def get_url(self, path: str) -> str:
        """Upstream formats it for each request."""
        return self._origin + path


class WebDavProtocol(StorageProtocol):
    """One WebDAV endpoint; made by `ProtocolPool`, used by all threads of one process."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._credentials = Credentials(endpoint)
        self._server = DavServer(endpoint, self._request, self._look)
        self._reader = DavReader(self._server)
        self._writer = DavWriter(self._reader)
        self._copier = ThirdParty(self._server)
        self._macaroons = MacaroonIssuer(self._server) if endpoint.gives_macaroons else None
        self._lock = threading.Lock()
        self._probing = threading.Lock()
        self._pid = 0
        self._client_of_pid: _StorageClient | None = None

    # -- what it can do ---------------------------------------------------------------------------

    @property
    @override
    def abilities(self) -> Abilities:
        return self._server.abilities

    @property
    @override
    def proved(self) -> Abilities | None:
        return self._server.proved

    @override
    def probe(self) -> Abilities:
        with self._probing:
            if self._server.is_to_be_tried():
                trial = Probe(self._reader, self._writer, self._copier, self._credentials.authorization())
                self._server.remember(trial.run(self.abilities))
        return self.abilities

    @override
    def remember(self, abilities: Abilities) -> None:
        self._server.remember(abilities)

    # -- reading ----------------------------------------------------------------------------------

    @override
    def stat(self, path: str, *, digest: bool = False) -> FileStat:
        return self._reader.stat(path, digest=digest)

    @override
    def has_bytes(self, path: str, count: int) -> bool:
        return self._reader.has_bytes(path, count)

    @override
    def digest(self, path: str) -> str:
        return self._reader.digest(path)

    @override
    def fingerprint(self, path: str, expected: int, *, watch: Watch | None = None) -> FileStat:
        return self._reader.fingerprint(path, expected, watch=watch)

    @override
    def read(self, path: str, *, watch: Watch | None = None) -> Generator[bytes, None, None]:
        return self._reader.read(path, watch=watch)

    @override
    def read_range(self, path: str, start: int, length: int) -> bytes:
        if self.abilities.ranges:
            part = self._reader.read_range(path, start, length)
            if part is not None:
                return part
            self._server.learn(ranges=False)
        return super().read_range(path, start, length)

    @override
    def list_directory(self, path: str) -> list[DirectoryEntry]:
        if not self.abilities.list_directory:
            raise self._cannot("list folders", path)
        return self._reader.list_directory(path)

    # -- changing ---------------------------------------------------------------------------------

    @override
    def write(
        self,
        path: str,
        chunks: Iterable[bytes],
        size: int,
        *,
        only_new: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self._writer.write(path, chunks, size, only_new=only_new, watch=watch)

    @override
    def move(self, source: str, destination: str, *, replace: bool = False) -> None:
        self._writer.move(source, destination, replace=replace)

    @override
    def delete(self, path: str) -> bool:
        return self._writer.delete(path)

    @override
    def make_parents(self, path: str) -> None:
        self._writer.make_parents(path)

    # -- copying by itself ------------------------------------------------------------------------

    @override
    def pull(self, source: OtherSide, path: str, *, size: int = 0, watch: Watch | None = None) -> None:
        try:
            self._copier.pull(source, path, size=size, watch=watch)
        except NotFound as error:
            if error.rse == self.endpoint.rse:
                self._writer.forget_folder_of(path)
            raise

    @override
    def push(self, path: str, destination: OtherSide, *, size: int = 0, watch: Watch | None = None) -> None:
        self._copier.push(path, destination, size=size, watch=watch)

    @override
    def delegate(self, path: str, *, writes: bool, seconds: float) -> str | None:
        if self._macaroons is None or not self._credentials.are_needed:
            return self._credentials.to_hand_on()
        try:
            return f"Bearer {self._macaroons.request(path, writes=writes, seconds=seconds)}"
        except Unsupported as refused:
            try:
                return self._credentials.to_hand_on()
            except Unsupported:
                raise refused from None

    @override
    def receiving(self, size: int) -> AbstractContextManager[None]:
        return self._server.transfer_of(size)

    @override
    def close(self) -> None:
        with self._lock:
            client, self._client_of_pid = self._client_of_pid, None
        if client is not None and self._pid == os.getpid():
            client.session.close()

    # -- requests ---------------------------------------------------------------------------------

    def _client(self) -> _StorageClient:
        """Give the client of this process; one that came through a fork is left to the parent."""
        client = self._client_of_pid
        if client is not None and self._pid == os.getpid():
            return client
        with self._lock:
            if self._client_of_pid is None or self._pid != os.getpid():
                self._client_of_pid = _StorageClient(self.endpoint)
                self._pid = os.getpid()
            return self._client_of_pid

    def _look(self, action: str, url_path: str, path: str) -> Answer | None:
        """Make one request to which 404 is an answer like others: the name of most copies is free."""
        sent = self._credentials.authorization()
        try:
            return self._exchange(action, url_path, path, sent, data=None, headers=None, patience=None)
        except RemoteResourceNotFound:
            return None
        except WebDavException as error:
            # not `from` it: it has the text of the server as it came
            raise self._refused(error, action, path) from None

    def _request(
        self,
        action: str,
        url_path: str,
        path: str,
        *,
        data: SizedBody | bytes | None = None,
        headers: dict[str, str] | None = None,
        read_timeout: float | None = None,
        attention: Attention | None = None,
    ) -> Answer:
        """Make one request; whatever goes wrong comes out as this package's error."""
        sent = self._credentials.authorization()
        patience = None if read_timeout is None and attention is None else (read_timeout, attention)
        try:
            return self._send(action, url_path, path, sent, data=data, headers=headers, patience=patience)
        except AccessDenied:
            if sent is None or isinstance(data, SizedBody):
                raise
            renewed = self._credentials.authorization()
            if renewed == sent:
                raise
        return self._send(action, url_path, path, renewed, data=data, headers=headers, patience=patience)

    def _send(
        self,
        action: str,
        url_path: str,
        path: str,
        authorization: str | None,
        *,
        data: SizedBody | bytes | None,
        headers: dict[str, str] | None,
        patience: _Patience | None,
    ) -> Answer:
        try:
            response = self._exchange(
                action, url_path, path, authorization, data=data, headers=headers, patience=patience
            )
        except WebDavException as error:
            raise self._refused(error, action, path) from None
        if response.status_code >= 300 and not _is_slash_missing(response):
            text = response.headers.get("location", "")
            raise error_of_status(response.status_code, text, _VERBS[action], self.endpoint.rse, path)
        return response

    def _exchange(
        self,
        action: str,
        url_path: str,
        path: str,
        authorization: str | None,
        *,
        data: SizedBody | bytes | None,
        headers: dict[str, str] | None,
        patience: _Patience | None,
    ) -> Answer:
        """Have webdavclient3 make one request."""
        if authorization is not None:
            headers = {**(headers or _NO_HEADERS), "Authorization": authorization}
        try:
            client = self._client()
            if patience is None:
                answer: Answer = client.execute_request(action, url_path, data, headers)
            else:
                with client.session.patience(*patience):
                    answer = client.execute_request(action, url_path, data, headers)
        except OSError as error:
            raise error_of_connection(error, _VERBS[action], self.endpoint.rse, path) from error
        return answer

    def _refused(self, error: WebDavException, action: str, path: str) -> RSEError:
        """Error of ours for one of webdavclient3."""
        if isinstance(error, ResponseErrorCode):
            status, text = error.code, error.message
        else:
            status, text = next((status for kind, status in _REFUSALS if isinstance(error, kind)), 500), ""
        return error_of_status(status, text, _VERBS[action], self.endpoint.rse, path)


def _is_slash_missing(response: Answer) -> bool:
    """Apache, lighttpd and nginx redirect from a folder to the same with a slash."""
    location = urlsplit(response.headers.get("location", "")).path
    return response.status_code == 301 and location == response.url_path + "/"
