"""A local or mounted file system as a storage element.

No symbolic link below the prefix is ever followed: every folder on the way is opened by itself with O_NOFOLLOW,
and what is done is done relative to it, so that no one can swap a folder for a link in between. Files appear
under their name only when they are complete and on disk.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat as stat_module
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress

from typing_extensions import override

from arriero.rse.abilities import Abilities
from arriero.rse.body import SizedBody
from arriero.rse.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidName,
    NoSpace,
    NotFound,
    RSEError,
    Unavailable,
    Unsupported,
)
from arriero.rse.paths import parent_of, safe_path
from arriero.rse.progress import Watch
from arriero.rse.protocol import PIECE_BYTES, StorageProtocol
from arriero.rse.types import DirectoryEntry, Endpoint, FileStat

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_ABILITIES = Abilities(
    third_party_pull=False,
    third_party_push=False,
    digest_algorithms=frozenset(),
    move=True,
    move_refuses=True,
    ranges=True,
    list_directory=True,
    pull_reason="the destination is a file system, which does not pull",
    push_reason="the source is a file system, which does not push",
    server="file",
    is_proved=True,
)
_BY_ERRNO: dict[int, tuple[type[RSEError], str]] = {
    errno.ENOENT: (NotFound, "nothing is there"),
    errno.ENOTDIR: (NotFound, "a file or a symbolic link is on the way there; links are not followed"),
    errno.ELOOP: (
        InvalidName,
        "it is a symbolic link, and links are not followed; replace it by the file itself",
    ),
    errno.EEXIST: (AlreadyExists, "something is there already; nothing is overwritten"),
    errno.EISDIR: (NotFound, "it is a folder"),
    errno.ENAMETOOLONG: (InvalidName, "the file system cannot hold a name of this length; shorten it"),
    errno.EACCES: (AccessDenied, "permission denied; look at the permissions of the folders above"),
    errno.EPERM: (AccessDenied, "not permitted; look at the permissions of the folders above"),
    errno.EROFS: (AccessDenied, "the file system is read-only"),
    errno.ENOSPC: (NoSpace, "the file system is full; make space"),
    errno.EDQUOT: (NoSpace, "the quota is used up; make space or raise it"),
}


class FileProtocol(StorageProtocol):
    """One folder of this machine; `endpoint.prefix` is its absolute path and may itself be a link."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @property
    @override
    def abilities(self) -> Abilities:
        return _ABILITIES

    @override
    def stat(self, path: str, *, digest: bool = False) -> FileStat:
        with self._errors(path), self._folder_of(path) as (folder, name):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat_module.S_ISDIR(found.st_mode) and not stat_module.S_ISREG(found.st_mode):
            raise self._not_regular(path)
        return FileStat(found.st_size, None, is_directory=stat_module.S_ISDIR(found.st_mode))

    @override
    def read(self, path: str, *, watch: Watch | None = None) -> Generator[bytes, None, None]:
        return self._pieces(self._opened(path), path)

    @override
    def read_range(self, path: str, start: int, length: int) -> bytes:
        descriptor = self._opened(path)
        try:
            with self._errors(path):
                return os.pread(descriptor, max(0, length), start)
        finally:
            os.close(descriptor)

    def _opened(self, path: str) -> int:
        """Open a file to be read, and nothing else."""
        with self._errors(path), self._folder_of(path) as (folder, name):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(name, flags, dir_fd=folder)
        mode = os.fstat(descriptor).st_mode
        if not stat_module.S_ISREG(mode):
            os.close(descriptor)
            if stat_module.S_ISDIR(mode):
                raise self._error(OSError(errno.EISDIR, ""), path)
            raise self._not_regular(path)
        return descriptor

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
        body = SizedBody(chunks, size, rse=self.endpoint.rse, path=path)
        try:
            with self._errors(path), self._folder_of(path) as (folder, name):
                _write_and_rename(folder, name, body, only_new=only_new)
        except RSEError as error:
            if body.error is not None:
                raise body.error from error
            raise

    @override
    def move(self, source: str, destination: str, *, replace: bool = False) -> None:
        with self._errors(source), self._folder_of(source) as (source_folder, source_name):
            found = os.stat(source_name, dir_fd=source_folder, follow_symlinks=False)
            if not stat_module.S_ISREG(found.st_mode):
                raise self._not_regular(source)
            with self._errors(destination), self._folder_of(destination) as (folder, name):
                if replace:
                    _rename_over_file(source_folder, source_name, folder, name)
                else:
                    _rename_to_free_name(source_folder, source_name, folder, name)
                os.fsync(folder)

    @override
    def delete(self, path: str) -> bool:
        try:
            with self._errors(path), self._folder_of(path) as (folder, name):
                if stat_module.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    raise Unsupported(
                        f"{self.endpoint.rse}: {path} is a folder; only files are removed.",
                        rse=self.endpoint.rse,
                        path=path,
                    )
                os.unlink(name, dir_fd=folder)
        except NotFound:
            return False
        return True

    @override
    def make_parents(self, path: str) -> None:
        with self._errors(path):
            folder = self._prefix()
            try:
                for segment in parent_of(safe_path(path)).split("/"):
                    if not segment:
                        continue
                    with suppress(FileExistsError):
                        os.mkdir(segment, 0o755, dir_fd=folder)
                        os.fsync(folder)
                    try:
                        deeper = os.open(segment, _FOLDER, dir_fd=folder)
                    except NotADirectoryError:
                        raise FileExistsError(errno.EEXIST, "a file is where a folder is needed") from None
                    os.close(folder)
                    folder = deeper
            finally:
                os.close(folder)

    @override
    def list_directory(self, path: str) -> list[DirectoryEntry]:
        with self._errors(path), self._folder(safe_path(path) if path else "") as folder:
            return list(_members(folder))

    @contextmanager
    def _folder(self, path: str) -> Iterator[int]:
        """Open a folder below the prefix (`""` is the prefix), following no link on the way."""
        folder = self._prefix()
        try:
            for segment in path.split("/") if path else ():
                deeper = os.open(segment, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = deeper
            yield folder
        finally:
            os.close(folder)

    def _prefix(self) -> int:
        """Open the prefix. A disk that is not mounted is no proof that its files are gone."""
        root = self.endpoint.root or "/"
        try:
            return os.open(root, _FOLDER & ~os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise Unavailable(
                f"{self.endpoint.rse}: its prefix {root} is not there; mount or create it, or correct the protocol.",
                rse=self.endpoint.rse,
                path="",
            ) from error

    @contextmanager
    def _folder_of(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the folder above a path; gives it and the last name of the path."""
        with self._folder(parent_of(safe_path(path))) as folder:
            yield folder, path.rpartition("/")[2]

    def _pieces(self, descriptor: int, path: str) -> Generator[bytes, None, None]:
        with open(descriptor, "rb", buffering=0) as file, self._errors(path):
            while piece := file.read(PIECE_BYTES):
                yield piece

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(error, path) from error

    def _error(self, error: OSError, path: str) -> RSEError:
        kind, meaning = _BY_ERRNO.get(
            error.errno or 0, (Unavailable, f"{error.strerror or error}; look at the file system")
        )
        return kind(
            f"{self.endpoint.rse}: {path or 'the prefix'}: {meaning}.", rse=self.endpoint.rse, path=path
        )

    def _not_regular(self, path: str) -> InvalidName:
        return InvalidName(
            f"{self.endpoint.rse}: {path} is neither a file nor a folder (links, devices and pipes are not "
            "followed); replace it by the file itself.",
            rse=self.endpoint.rse,
            path=path,
        )


def _write_and_rename(folder: int, name: str, body: SizedBody, *, only_new: bool) -> None:
    """Write under a name of its own, wait for the disk, and only then give it its name."""
    unfinished = f".arriero-{secrets.token_hex(8)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(unfinished, flags, 0o644, dir_fd=folder)
    try:
        try:
            for chunk in body:
                _write_all(descriptor, chunk)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if only_new:
            _rename_to_free_name(folder, unfinished, folder, name)
        else:
            os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished, dir_fd=folder)
        raise
    os.fsync(folder)


def _rename_to_free_name(source_folder: int, source_name: str, folder: int, name: str) -> None:
    """Rename without replacing: a hard link fails where something is, which a rename would replace."""
    try:
        os.link(source_name, name, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, "something is there already") from error
        os.rename(source_name, name, src_dir_fd=source_folder, dst_dir_fd=folder)
    else:
        os.unlink(source_name, dir_fd=source_folder)


def _rename_over_file(source_folder: int, source_name: str, folder: int, name: str) -> None:
    """Rename, replacing a file that is there in one step; a folder that is there stays."""
    with suppress(FileNotFoundError):
        if stat_module.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise FileExistsError(errno.EEXIST, "a folder is there")
    os.rename(source_name, name, src_dir_fd=source_folder, dst_dir_fd=folder)


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _members(folder: int) -> Iterator[DirectoryEntry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat_module.S_ISDIR(found.st_mode) or stat_module.S_ISREG(found.st_mode):
                yield DirectoryEntry(entry.name, found.st_size, stat_module.S_ISDIR(found.st_mode))
