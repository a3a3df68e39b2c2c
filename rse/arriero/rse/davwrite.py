"""Changing what a WebDAV server holds: files written, moved and removed, folders made.

Servers differ in what they refuse: XRootD 5.5.3 overwrites whatever it is told, and takes the destination of a MOVE
as it is written; all of them leave something behind when an upload breaks off, and say so late.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable

from arriero.rse.body import SizedBody
from arriero.rse.davread import DavReader
from arriero.rse.errors import (
    AccessDenied,
    AlreadyExists,
    NotFound,
    RSEError,
    Stalled,
    TimedOut,
    TransferFailed,
    Unavailable,
    Unsupported,
)
from arriero.rse.paths import parent_of
from arriero.rse.progress import Watch

_KNOWN_FOLDERS = 10_000


class DavWriter:
    """What is changed on a WebDAV endpoint, for `WebDavProtocol`."""

    def __init__(self, reader: DavReader) -> None:
        self._reader = reader
        self._server = reader.server
        self.endpoint = reader.endpoint
        self._request = self._server.request
        self._folders: dict[str, None] = {}
        self._literal_destination: bool | None = None

    def write(
        self, path: str, chunks: Iterable[bytes], size: int, *, only_new: bool, watch: Watch | None
    ) -> None:
        """See `StorageProtocol.write`."""
        url_path = self._server.url_path(path)
        body = SizedBody(chunks, size, rse=self.endpoint.rse, path=path)
        try:
            with self._server.transfer_of(size):
                self._request(
                    "put",
                    url_path,
                    path,
                    data=body if size else b"".join(body),
                    headers={"If-None-Match": "*"} if only_new else None,
                    attention=None if watch is None else watch.check,
                )
        except RSEError as error:
            self.forget_folder_of(path)
            if only_new and isinstance(error, AlreadyExists):
                raise
            self._discard(path)
            if body.error is not None:
                raise body.error from error
            raise self._broken(error, body, path, size) from error
        except BaseException:
            self._discard(path)
            raise

    def _broken(self, error: RSEError, body: SizedBody, path: str, size: int) -> RSEError:
        """Say how far an upload came."""
        rse, came = self.endpoint.rse, f"after {body.sent} of {size} bytes of {path}"
        if type(error) is TimedOut and 0 < body.sent < size:
            return Stalled(f"{rse}: the storage takes nothing more {came}; try again.", rse=rse, path=path)
        if isinstance(error, Unavailable) and body.sent and error.status is None:
            return TransferFailed(
                f"{rse}: the connection broke off {came}; try again, and see whether the storage is full.",
                rse=rse,
                path=path,
            )
        return error

    def move(self, source: str, destination: str, *, replace: bool) -> None:
        """See `StorageProtocol.move`."""
        source_url, destination_url = self._server.url_path(source), self._server.url_path(destination)
        abilities = self._server.profile().abilities
        if not abilities.move:
            raise Unsupported(
                f"{self.endpoint.rse}: {source}: this storage cannot rename.",
                rse=self.endpoint.rse,
                path=source,
            )
        if replace:
            if self._is_folder(destination):
                raise self._occupied(destination)
        elif not abilities.move_refuses and self._reader.is_taken(destination):
            raise self._occupied(destination)
        if "%" in destination_url and self.takes_destination_literally():
            # XRootD trims blanks and non-ASCII bytes off the end of a header, and cuts the path at '?'.
            destination_url = as_header(f"{self.endpoint.root}/{destination}?end")
        self.move_url(source_url, source, destination_url, replace=replace)

    def move_url(self, source_url: str, source: str, destination_url: str, *, replace: bool) -> None:
        """MOVE, without a look."""
        headers = {
            "Destination": f"{self.endpoint.origin}{destination_url}",
            "Overwrite": "T" if replace else "F",
        }
        self._request("move", source_url, source, headers=headers)

    def delete(self, path: str) -> bool:
        """See `StorageProtocol.delete`."""
        url_path = self._server.url_path(path)
        profile = self._server.profile()
        try:
            # XRootD refuses to remove a folder with something in it; others remove all of it
            if (
                not profile.is_xrootd
                and profile.abilities.list_directory
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

    def make_parents(self, path: str) -> None:
        """See `StorageProtocol.make_parents`; what was made or seen once is not asked for again."""
        self._server.url_path(path)
        folder = parent_of(path)
        if folder in self._folders:
            return
        missing: list[str] = []
        while not self._made(folder):
            missing.append(folder)
            if not folder:
                # not NotFound: that would be held against the file
                raise Unavailable(
                    f"{self.endpoint.rse}: the prefix {self.endpoint.prefix} does not exist; make it on the server.",
                    rse=self.endpoint.rse,
                    path="",
                )
            folder = parent_of(folder)
        for folder in reversed(missing):
            if not self._made(folder):
                raise TransferFailed(
                    f"{self.endpoint.rse}: folder {folder} could not be made; look at the storage's permissions.",
                    rse=self.endpoint.rse,
                    path=folder,
                )

    def forget_folder_of(self, path: str) -> None:
        """Look again, next time, whether the folder of a path is there."""
        self._folders.pop(parent_of(path), None)

    def takes_destination_literally(self) -> bool:
        """Find out, once, whether `%41` in Destination makes an `A` or a file that is called `%41`.

        XRootD 5.5.3 does not decode it (measured). An empty file of our own tells, so that no file of
        anybody's is touched.
        """
        if not self._server.profile().is_xrootd:
            return False
        if self._literal_destination is None:
            trial = f".arriero-{uuid.uuid4().hex}"
            try:
                self.write(trial, [], 0, only_new=False, watch=None)
                destination = as_header(f"{self.endpoint.root}/{trial}%41")
                self.move_url(self._server.url_path(trial), trial, destination, replace=False)
                self._literal_destination = not self._reader.is_taken(f"{trial}A")
            finally:
                for name in (trial, f"{trial}A", f"{trial}%41"):
                    self.delete(name)
        return self._literal_destination

    def _is_folder(self, path: str) -> bool:
        try:
            return self._reader.stat(path, digest=False).is_directory
        except NotFound:
            return False

    def _made(self, folder: str) -> bool:
        """Make a folder; False if the one above it is missing."""
        if folder in self._folders:
            return True
        try:
            self._request("mkcol", f"{self._server.url_path(folder).rstrip('/')}/", folder)
        except NotFound:
            return False
        except (Unsupported, AccessDenied, AlreadyExists, TransferFailed) as error:
            if isinstance(error, Unsupported) and not self._server.profile().abilities.list_directory:
                return True  # names with slashes, and no folders
            try:
                found = self._reader.stat(folder, digest=False)
            except NotFound:
                raise error from None
            if not found.is_directory:
                raise self._occupied(folder) from error
        if len(self._folders) >= _KNOWN_FOLDERS:
            self._folders.clear()
        self._folders[folder] = None
        return True

    def _discard(self, path: str) -> None:
        """Remove what a broken write has left; twice, since the server may notice the break only later."""
        for pause in (0.0, 0.2):
            time.sleep(pause)
            try:
                if self.delete(path):
                    return
            except RSEError:
                return

    def _occupied(self, path: str) -> AlreadyExists:
        return AlreadyExists(
            f"{self.endpoint.rse}: {path} is there already; nothing is overwritten: remove or rename it.",
            rse=self.endpoint.rse,
            path=path,
        )


def as_header(text: str) -> str:
    """Give a text in the form in which it is sent as UTF-8 by what sends headers as Latin-1."""
    return text.encode().decode("latin-1")
