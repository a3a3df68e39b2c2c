"""What every storage protocol must do, and what it may declare that it can do besides.

The required part is small, so that a new protocol is a day's work; the differences between servers are data
(`Capabilities`), never subclass tricks. `arriero.rse.testing.ProtocolConformance` is this page as tests.

Paths are relative to the endpoint's prefix, unquoted; each method refuses those that `safe_path` refuses with
`InvalidName`, and those that this server cannot hold as well. All methods may raise `Unavailable`, `TimedOut`
and `AccessDenied`. One instance may be used by many threads; across a fork it renews its connections.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from arriero.rse.types import DirectoryEntry, Endpoint, FileStat

PIECE_BYTES = 1 << 20
"""Bytes read or written at a time; 1 MiB pieces doubled the rate of 64 KiB ones on a streamed copy."""

Progress = Callable[[int], None]
"""Called with the bytes that have arrived so far."""

Cancelled = Callable[[], bool]
"""Asked between pieces; True ends the transfer."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a storage can do beyond the required methods."""

    third_party_pull: bool
    """It fetches from another storage by itself."""
    digest_algorithms: frozenset[str]
    """Checksums that it gives without the bytes being read by us (`adler32`, `md5`)."""
    move: bool
    """It renames; where it cannot, a copy is written under its final name."""
    list_directory: bool
    """It lists folders."""
    pull_reason: str = ""
    """Why it does or does not pull, for `CopyResult.mode_reason`."""


class StorageProtocol(ABC):
    """One endpoint of one RSE."""

    endpoint: Endpoint

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this storage can do; asked of the server once and remembered."""

    @abstractmethod
    def stat(self, path: str, *, digest: bool = False) -> FileStat:
        """Look at a path, without reading it. Idempotent.

        Parameters
        ----------
        path
            File or folder.
        digest
            Also ask for the adler32, where the server has it; it stays None where it has not.

        Raises
        ------
        NotFound
            If nothing is there.
        """

    @abstractmethod
    def digest(self, path: str) -> str:
        """Canonical adler32 of a file: the server's own where it has one, else of the bytes read back. Idempotent.

        Raises
        ------
        NotFound
            If nothing is there, or it is a folder.
        TransferFailed
            If the read-back broke off.
        """

    @abstractmethod
    def read(self, path: str) -> Generator[bytes, None, None]:
        """Give the bytes of a file in pieces. Idempotent.

        Opens before it returns. Closing the generator ends the transfer, and whoever does not read to the
        end must close it. It ends normally only when as many bytes came as the server announced.

        Raises
        ------
        NotFound
            If nothing is there, or it is a folder.
        TransferFailed
            If the stream broke off or came up short (while iterating).
        """

    @abstractmethod
    def write(self, path: str, chunks: Iterable[bytes], size: int) -> None:
        """Write a file, replacing what is there, in a folder that exists. Not idempotent while it fails.

        A write that fails leaves nothing under the path. It does not look whether the path is free: copies
        write under names of their own and `move`.

        Parameters
        ----------
        path
            File.
        chunks
            The content; an error that it raises ends the write and comes out unchanged.
        size
            Length of the content in bytes, known beforehand.

        Raises
        ------
        NotFound
            If the folder does not exist and this server does not make it by itself.
        SizeMismatch
            If the chunks do not sum up to `size`.
        NoSpace
            If the storage is full.
        TransferFailed
            If the connection broke off.
        """

    @abstractmethod
    def move(self, source: str, destination: str, *, replace: bool = False) -> None:
        """Rename within this storage, never over something unless it is to be replaced. Not idempotent.

        Parameters
        ----------
        source, destination
            Files.
        replace
            Take the place of a file that is there, in one step where the server can; never of a folder.

        Raises
        ------
        NotFound
            If the source is not there.
        AlreadyExists
            If something is under the destination (with `replace`: a folder). Servers that ignore `Overwrite: F` are asked first, so
            there two writers may still meet: the caller verifies what it finds.
        Unsupported
            If this storage cannot rename.
        """

    @abstractmethod
    def delete(self, path: str) -> bool:
        """Remove a file. Idempotent.

        Returns
        -------
        bool
            True if it was there, False if there was nothing to remove.

        Raises
        ------
        Unsupported
            If the path is a folder: folders, and what is in them, are never removed.
        """

    @abstractmethod
    def make_parents(self, path: str) -> None:
        """Make the folders above a path, those that exist included. Idempotent.

        Raises
        ------
        AlreadyExists
            If a file is in the place of a folder.
        NoSpace
            If the storage is full.
        """

    @abstractmethod
    def list_directory(self, path: str) -> list[DirectoryEntry]:
        """List the members of a folder (`""` is the prefix itself), in no order. Idempotent.

        Raises
        ------
        NotFound
            If nothing is there, or it is a file.
        Unsupported
            If this storage does not list.
        """

    @abstractmethod
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
        """Have this storage fetch a file from another one, in a folder that exists. Not idempotent.

        A pull that fails may leave a partial file: the caller deletes. Success means that the server says
        so: the caller verifies.

        Parameters
        ----------
        source_url
            URL of a file of a *registered* endpoint: the server can reach what we cannot.
        path
            File to write; must not exist.
        size
            Bytes that are expected, where that is known.
        source_token
            Bearer token for the source, handed on by the destination.
        on_progress, cancelled
            Called whenever the server reports progress (XRootD: every 5 s).

        Raises
        ------
        Unsupported
            If this storage does not pull.
        AlreadyExists
            If something is under the path and the server minds.
        TransferFailed
            If the server reports failure, or the report ends without a result.
        NoSpace
            If the storage is full.
        TimedOut
            If no progress was made for too long.
        Cancelled
            If `cancelled` said so.
        """

    def close(self) -> None:  # noqa: B027
        """Give up the connections; the protocol may be used again afterwards."""
