"""Storage elements that speak WebDAV: the one place that knows webdavclient3.

Of webdavclient3 the request builder and the errors are used; its session is replaced (`transport`), because the
stock one opens a connection per request, follows redirects and takes over proxies and `~/.netrc`; its path
handling is not used, because it lets `..` through. Errors come out as this package's, with their cause.

It must not decide what is copied where, nor trust what a server says about success without looking.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Generator, Iterable, Iterator
from contextlib import nullcontext
from urllib.parse import urlsplit

from typing_extensions import override
from urllib3.exceptions import HTTPError
from webdav3.client import Client
from webdav3.exceptions import (
    MethodNotSupported,
    NotEnoughSpace,
    RemoteResourceNotFound,
    ResourceLocked,
    ResponseErrorCode,
    WebDavException,
)

from arriero.rse.body import SizedBody
from arriero.rse.credentials import TokenFile
from arriero.rse.davread import DavReader
from arriero.rse.errors import (
    AccessDenied,
    AlreadyExists,
    NotFound,
    RSEError,
    TransferFailed,
    Unavailable,
    Unsupported,
)
from arriero.rse.paths import parent_of
from arriero.rse.protocol import Cancelled, Capabilities, Progress, StorageProtocol
from arriero.rse.responses import error_of_broken_read, error_of_connection, error_of_status, follow_report
from arriero.rse.transport import Answer, StorageSession
from arriero.rse.types import DirectoryEntry, Endpoint, FileStat

MARKER_SILENCE = 30.0
"""Seconds without a line of a transfer report before it is given up; servers write every 5 s."""

_KNOWN_FOLDERS = 10_000

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
}


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
        self.token_file = TokenFile(endpoint.token_file, rse=endpoint.rse) if endpoint.token_file else None

    def get_headers(self, action: str, headers_ext: list[str] | None = None) -> dict[str, str]:  # noqa: ARG002
        """Upstream strips values, and with them the last byte of some names."""
        headers = dict(header.split(": ", 1) for header in headers_ext or ())
        if self.token_file is not None:
            headers["Authorization"] = f"Bearer {self.token_file.read()}"
        return headers


class WebDavProtocol(StorageProtocol):
    """One WebDAV endpoint; made by `ProtocolPool`, used by all threads of one process."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._reader = DavReader(endpoint, self._request)
        self._lock = threading.Lock()
        self._pid = 0
        self._client_of_pid: _StorageClient | None = None
        self._folders: dict[str, None] = {}
        self._literal_destination: bool | None = None

    @property
    @override
    def capabilities(self) -> Capabilities:
        return self._reader.profile().capabilities

    @override
    def stat(self, path: str, *, digest: bool = False) -> FileStat:
        return self._reader.stat(path, digest=digest)

    @override
    def digest(self, path: str) -> str:
        return self._reader.digest(path)

    @override
    def read(self, path: str) -> Generator[bytes, None, None]:
        return self._reader.read(path)

    @override
    def list_directory(self, path: str) -> list[DirectoryEntry]:
        return self._reader.list_directory(path)

    @override
    def write(self, path: str, chunks: Iterable[bytes], size: int) -> None:
        url_path = self._reader.url_path(path)
        body = SizedBody(chunks, size, rse=self.endpoint.rse, path=path)
        try:
            with self._reader.transfer_of(size):
                self._request("put", url_path, path, data=body if size else b"".join(body))
        except RSEError as error:
            self._folders.pop(parent_of(path), None)
            self._discard(path)
            if body.error is not None:
                raise body.error from error
            if isinstance(error, Unavailable) and body.sent:
                raise TransferFailed(
                    f"{self.endpoint.rse}: the connection broke off after {body.sent} of {size} bytes of {path}; "
                    "try again, and see whether the storage is full.",
                    rse=self.endpoint.rse,
                    path=path,
                ) from error
            raise
        except BaseException:
            self._discard(path)
            raise

    @override
    def move(self, source: str, destination: str, *, replace: bool = False) -> None:
        source_url, destination_url = self._reader.url_path(source), self._reader.url_path(destination)
        if self._is_there(destination, only_folder=replace):
            raise self._occupied(destination)
        if "%" in destination_url and self._takes_destination_literally():
            # XRootD trims blanks and non-ASCII bytes off the end of a header, and cuts the path at '?'.
            destination_url = _as_header(f"{self.endpoint.root}/{destination}?end")
        self._move(source_url, source, destination_url, replace=replace)

    @override
    def delete(self, path: str) -> bool:
        url_path = self._reader.url_path(path)
        try:
            if (
                not self._reader.profile().is_xrootd
                and self._reader.stat_by_propfind(path, url_path).is_directory
            ):
                raise Unsupported(
                    f"{self.endpoint.rse}: {path} is a folder; only files are removed.",
                    rse=self.endpoint.rse,
                    path=path,
                )
            self._request("delete", url_path, path)
        except NotFound:
            return False
        return True

    @override
    def make_parents(self, path: str) -> None:
        self._reader.url_path(path)
        folder = parent_of(path)
        if folder in self._folders:
            return
        missing: list[str] = []
        while not self._made(folder):
            missing.append(folder)
            if not folder:
                raise NotFound(
                    f"{self.endpoint.rse}: the prefix {self.endpoint.prefix} does not exist; make it on the server.",
                    rse=self.endpoint.rse,
                    path="",
                )
            folder = parent_of(folder)
        for folder in reversed(missing):
            if not self._made(folder):
                raise NotFound(
                    f"{self.endpoint.rse}: folder {folder} could not be made; look at the storage's permissions.",
                    rse=self.endpoint.rse,
                    path=folder,
                )

    @override
    def pull(
        self,
        source_url: str,
        path: str,
        *,
        size: int = 0,
        source_token: str | None = None,
        on_progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> None:
        if not source_url.startswith(("http://", "https://")):
            # XRootD 5.5.3 reads file:///etc/passwd and puts it into its report.
            raise Unsupported(
                f"{self.endpoint.rse}: a storage pulls from http and https only; stream the file through a worker.",
                rse=self.endpoint.rse,
                path=path,
            )
        headers = [
            f"Source: {source_url}",
            "Overwrite: F",
            "Credential: none",
            "RequireChecksumVerification: false",
        ]
        if source_token is not None:
            headers.append(f"TransferHeaderAuthorization: Bearer {source_token}")
        with self._reader.transfer_of(size):
            try:
                response = self._request("pull", self._reader.url_path(path), path, headers=headers)
            except NotFound:
                self._folders.pop(parent_of(path), None)
                raise
            with response:
                follow_report(
                    self._report_pieces(response, path),
                    rse=self.endpoint.rse,
                    path=path,
                    on_progress=on_progress,
                    cancelled=cancelled,
                )

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

    def _request(
        self,
        action: str,
        url_path: str,
        path: str,
        *,
        data: SizedBody | bytes | None = None,
        headers: list[str] | None = None,
        read_timeout: float | None = None,
    ) -> Answer:
        """Make one request; whatever goes wrong comes out as this package's error."""
        try:
            client = self._client()
            with nullcontext() if read_timeout is None else client.session.read_timeout(read_timeout):
                response: Answer = client.execute_request(action, url_path, data, headers)
        except WebDavException as error:
            status, text = _refusal(error)
            raise error_of_status(status, text, _VERBS[action], self.endpoint.rse, path) from error
        except (HTTPError, OSError) as error:
            raise error_of_connection(error, _VERBS[action], self.endpoint.rse, path) from error
        if response.status_code >= 300 and not _is_slash_missing(response):
            text = response.headers.get("Location", "")
            raise error_of_status(response.status_code, text, _VERBS[action], self.endpoint.rse, path)
        return response

    def _is_there(self, path: str, *, only_folder: bool = False) -> bool:
        try:
            found = self.stat(path)
        except NotFound:
            return False
        return found.is_directory or not only_folder

    # -- changing ---------------------------------------------------------------------------------

    def _made(self, folder: str) -> bool:
        """Make a folder; False if the one above it is missing."""
        if folder in self._folders:
            return True
        try:
            self._request("mkcol", f"{self._reader.url_path(folder).rstrip('/')}/", folder)
        except NotFound:
            return False
        except (Unsupported, AccessDenied, AlreadyExists, TransferFailed) as error:
            try:
                found = self.stat(folder)
            except NotFound:
                raise error from None
            if not found.is_directory:
                raise self._occupied(folder) from error
        if len(self._folders) >= _KNOWN_FOLDERS:
            self._folders.clear()
        self._folders[folder] = None
        return True

    def _move(self, source_url: str, source: str, destination_url: str, *, replace: bool = False) -> None:
        overwrite = "T" if replace else "F"
        headers = [f"Destination: {self.endpoint.origin}{destination_url}", f"Overwrite: {overwrite}"]
        self._request("move", source_url, source, headers=headers)

    def _takes_destination_literally(self) -> bool:
        """Find out, once, whether `%41` in Destination makes an `A` or a file that is called `%41`.

        XRootD 5.5.3 does not decode it (measured). An empty file of our own tells, so that no file of
        anybody's is touched.
        """
        if not self._reader.profile().is_xrootd:
            return False
        if self._literal_destination is None:
            trial = f".arriero-{uuid.uuid4().hex}"
            try:
                self.write(trial, [], 0)
                destination = _as_header(f"{self.endpoint.root}/{trial}%41")
                self._move(self._reader.url_path(trial), trial, destination)
                self._literal_destination = not self._is_there(f"{trial}A")
            finally:
                for name in (trial, f"{trial}A", f"{trial}%41"):
                    self.delete(name)
        return self._literal_destination

    def _discard(self, path: str) -> None:
        """Remove what a broken write has left; twice, since the server may notice the break only later."""
        for pause in (0.0, 0.2):
            time.sleep(pause)
            try:
                if self.delete(path):
                    return
            except RSEError:
                return

    def _report_pieces(self, response: Answer, path: str) -> Iterator[bytes]:
        try:
            yield from response.arriving_pieces(MARKER_SILENCE)
        except (HTTPError, OSError) as error:
            raise error_of_broken_read(error, self.endpoint.rse, path) from error

    def _occupied(self, path: str) -> AlreadyExists:
        return AlreadyExists(
            f"{self.endpoint.rse}: {path} is there already; nothing is overwritten: remove or rename it.",
            rse=self.endpoint.rse,
            path=path,
        )


def _is_slash_missing(response: Answer) -> bool:
    """Apache, lighttpd and nginx redirect from a folder to the same with a slash."""
    location = urlsplit(response.headers.get("Location", "")).path
    return response.status_code == 301 and location == response.url_path + "/"


def _as_header(text: str) -> str:
    """Give a text in the form in which `http.client` sends it as UTF-8."""
    return text.encode().decode("latin-1")


def _refusal(error: WebDavException) -> tuple[int, str | bytes]:
    """Status and text of an answer that webdavclient3 turned into an exception."""
    if isinstance(error, ResponseErrorCode):
        return error.code, error.message
    return next((status for kind, status in _REFUSALS if isinstance(error, kind)), 500), ""
