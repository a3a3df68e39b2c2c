"""A storage in the memory of this process: how little a new protocol has to be.

It renames nothing and copies nothing by itself, and says so; everything else it is asked for comes from its base.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

from typing_extensions import override

from arriero.rse.abilities import Abilities
from arriero.rse.body import SizedBody
from arriero.rse.errors import AlreadyExists, NotFound, Unsupported
from arriero.rse.paths import safe_path
from arriero.rse.progress import Watch
from arriero.rse.protocol import StorageProtocol
from arriero.rse.types import DirectoryEntry, Endpoint, FileStat

_ABILITIES = Abilities(
    third_party_pull=False,
    third_party_push=False,
    digest_algorithms=frozenset(),
    move=False,
    move_refuses=False,
    ranges=False,
    list_directory=True,
    pull_reason="the destination is the memory of a process, which does not pull",
    push_reason="the source is the memory of a process, which does not push",
    is_proved=True,
)
_shared: dict[str, dict[str, bytes]] = {}


class MemoryProtocol(StorageProtocol):
    """All endpoints of one host name have the same files; folders are the beginnings of their names."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.files = _shared.setdefault(endpoint.hostname, {"": b""})

    @property
    @override
    def abilities(self) -> Abilities:
        return _ABILITIES

    @override
    def stat(self, path: str, *, digest: bool = False) -> FileStat:
        if path and safe_path(path) in self.files:
            return FileStat(len(self.files[path]), None, is_directory=False)
        if path and f"{path}/" not in self.files:
            raise self._missing(path)
        return FileStat(0, None, is_directory=True)

    @override
    def read(self, path: str, *, watch: Watch | None = None) -> Generator[bytes, None, None]:
        if safe_path(path) not in self.files:
            raise self._missing(path)
        return (piece for piece in [self.files[path]])

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
        if only_new and path in self.files:
            raise AlreadyExists(f"{self.endpoint.rse}: {path} is there.", rse=self.endpoint.rse, path=path)
        self.make_parents(path)
        self.files[path] = b"".join(SizedBody(chunks, size, rse=self.endpoint.rse, path=path))

    @override
    def delete(self, path: str) -> bool:
        if f"{safe_path(path)}/" in self.files:
            raise Unsupported(f"{self.endpoint.rse}: {path} is a folder.", rse=self.endpoint.rse, path=path)
        return self.files.pop(path, None) is not None

    @override
    def make_parents(self, path: str) -> None:
        *folders, _ = safe_path(path).split("/")
        for count in range(1, len(folders) + 1):
            folder = "/".join(folders[:count])
            if folder in self.files:
                raise AlreadyExists(
                    f"{self.endpoint.rse}: {folder} is a file.", rse=self.endpoint.rse, path=folder
                )
            self.files.setdefault(f"{folder}/", b"")

    @override
    def list_directory(self, path: str) -> list[DirectoryEntry]:
        if not self.stat(path).is_directory:
            raise self._missing(path)
        prefix = f"{path}/" if path else ""
        names = {name[len(prefix) :] for name in self.files if name.startswith(prefix) and name != prefix}
        return [
            DirectoryEntry(name.rstrip("/"), len(self.files[prefix + name]), is_directory=name.endswith("/"))
            for name in names
            if name and "/" not in name.rstrip("/")
        ]

    def _missing(self, path: str) -> NotFound:
        return NotFound(f"{self.endpoint.rse}: {path} is not there.", rse=self.endpoint.rse, path=path)
