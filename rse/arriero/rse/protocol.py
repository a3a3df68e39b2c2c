"""What every storage protocol must do, and what it may declare that it can do besides.

The required part is small (`abilities`, `stat`, `read`, `write`, `delete`, `make_parents`), so that a new protocol is a
day's work; the differences between servers are data (`Abilities`), never subclass tricks.
`arriero.rse.testing.ProtocolConformance` is this page as tests.

Paths are relative to the endpoint's prefix, unquoted; each method refuses those that `safe_path` refuses with
`InvalidName`, and those that this server cannot hold as well. All methods may raise `Unavailable`, `TimedOut`
and `AccessDenied`. One instance may be used by many threads; across a fork it renews its connections.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field

from arriero.rse.abilities import Abilities
from arriero.rse.checksum import adler32_of
from arriero.rse.errors import RSEError, Unsupported
from arriero.rse.progress import Watch
from arriero.rse.types import DirectoryEntry, Endpoint, FileStat

PIECE_BYTES = 1 << 20
"""Bytes read or written at a time; 1 MiB pieces doubled the rate of 64 KiB ones on a streamed copy."""


@dataclass(frozen=True, slots=True)
class OtherSide:
    """The file at the other storage of a third-party copy, and what opens it there."""

    endpoint: Endpoint
    path: str
    authorization: str | None = field(default=None, repr=False)
    """For this file alone where its storage gives that (`StorageProtocol.delegate`)."""

    @property
    def url(self) -> str:
        """URL over the wire: composed of a registered endpoint, never taken from anybody."""
        return self.endpoint.url(self.path)


class StorageProtocol(ABC):
    """One endpoint of one RSE."""

    endpoint: Endpoint

    @property
    @abstractmethod
    def abilities(self) -> Abilities:
        """What this storage can do, remembered; at first use what it says of itself, without anything being written."""

    def probe(self) -> Abilities:
        """Find out by trial what this storage can do, with files of our own that are removed again; remembered.

        Where nothing may be written, it is what the storage says of itself.
        """
        return self.abilities

    @property
    def proved(self) -> Abilities | None:
        """What was found out by trial and is still believed; None where nothing was. Asks nobody."""
        return None

    def remember(self, abilities: Abilities) -> None:  # noqa: B027
        """Take over what another process has found out, so that it need not be found out again."""

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

    def has_bytes(self, path: str, count: int) -> bool:
        """Whether a file of so many bytes is there, by as little as that can be known. Idempotent.

        Raises
        ------
        NotFound
            If nothing is there.
        """
        found = self.stat(path)
        return found.bytes == count and not found.is_directory

    def digest(self, path: str) -> str:
        """Canonical adler32 of a file: the server's own where it has one, else of the bytes read back. Idempotent.

        Raises
        ------
        NotFound
            If nothing is there, or it is a folder.
        TransferFailed
            If the read-back broke off.
        """
        return adler32_of(self.read(path))[0]

    def fingerprint(self, path: str, expected: int, *, watch: Watch | None = None) -> FileStat:
        """Give size and adler32 of a file, of the storage where it has them, else of the bytes, read back. Idempotent.

        Parameters
        ----------
        path
            File.
        expected
            Bytes that it should have: small files may be cheaper to read than to ask about.
        watch
            Asked while nothing comes, where that can be told.

        Raises
        ------
        NotFound
            If nothing is there, or it is a folder.
        TransferFailed
            If the read-back broke off.
        """
        found = self.stat(path, digest=True)
        if found.is_directory or found.adler32 is not None or found.bytes != expected:
            return found
        adler32, size = adler32_of(self.read(path, watch=watch))
        return FileStat(size, adler32, is_directory=False)

    @abstractmethod
    def read(self, path: str, *, watch: Watch | None = None) -> Generator[bytes, None, None]:
        """Give the bytes of a file in pieces. Idempotent.

        Opens before it returns. Closing the generator ends the transfer, and whoever does not read to the
        end must close it. It ends normally only when as many bytes came as the server announced.

        Parameters
        ----------
        path
            File.
        watch
            Asked while nothing comes, where that can be told.

        Raises
        ------
        NotFound
            If nothing is there, or it is a folder.
        TransferFailed
            If the stream broke off or came up short (while iterating).
        """

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Give a part of a file, shorter where the file ends before. Idempotent.

        Where the storage does not give parts (`Abilities.ranges`), the file is read up to there.

        Raises
        ------
        NotFound
            If nothing is there, or it is a folder.
        """
        part, position = bytearray(), 0
        if length <= 0:
            return b""
        with closing(self.read(path)) as pieces:
            for piece in pieces:
                part += piece[max(0, start - position) :]
                position += len(piece)
                if len(part) >= length:
                    break
        return bytes(part[:length])

    @abstractmethod
    def write(
        self,
        path: str,
        chunks: Iterable[bytes],
        size: int,
        *,
        only_new: bool = False,
        watch: Watch | None = None,
    ) -> None:
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
        only_new
            Refuse to replace what is there, where the storage can.
        watch
            Asked while nothing moves, where that can be told.

        Raises
        ------
        NotFound
            If the folder does not exist and this server does not make it by itself.
        SizeMismatch
            If the chunks do not sum up to `size`.
        NoSpace
            If the storage is full.
        AlreadyExists
            With `only_new`: if something is there; it stays.
        TransferFailed
            If the connection broke off.
        """

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
        raise self._cannot("rename", source, destination, replace)

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

    def list_directory(self, path: str) -> list[DirectoryEntry]:
        """List the members of a folder (`""` is the prefix itself), in no order. Idempotent.

        Raises
        ------
        NotFound
            If nothing is there, or it is a file.
        Unsupported
            If this storage does not list.
        """
        raise self._cannot("list folders", path)

    def pull(self, source: OtherSide, path: str, *, size: int = 0, watch: Watch | None = None) -> None:
        """Have this storage fetch a file from another one, in a folder that exists. Not idempotent.

        A pull that fails may leave a partial file: the caller deletes. Success means that the server says
        so: the caller verifies.

        Parameters
        ----------
        source
            What to fetch: the server can reach what we cannot, so it is a file of a *registered* endpoint.
        path
            File to write; must not exist.
        size
            Bytes that are expected, where that is known.
        watch
            Told whenever the server reports progress (XRootD: every 5 s), and asked in between.

        Raises
        ------
        Unsupported
            If this storage does not pull.
        OtherSideFailed
            If it could not reach the source, or not read there.
        AlreadyExists
            If something is under the path and the server minds.
        TransferFailed
            If the server reports failure, or the report ends without a result.
        NoSpace
            If the storage is full.
        Stalled, TimedOut
            If no progress was made for too long, or it took too long altogether.
        Cancelled
            If it was taken back.
        """
        raise self._cannot("fetch from another storage", path, source, size, watch)

    def push(self, path: str, destination: OtherSide, *, size: int = 0, watch: Watch | None = None) -> None:
        """Have this storage send a file to another one. Not idempotent.

        A server that is told to push and does not know how may take the destination for a name of its own, copy
        the file there and answer 201 (Apache, nginx): only a storage whose abilities say so is ever told to, and
        only the word of its report is success.

        Parameters
        ----------
        path
            File to send.
        destination
            Where to: what is there may be replaced.
        size, watch
            As for `pull`.

        Raises
        ------
        Unsupported
            If this storage does not push.
        OtherSideFailed
            If it could not reach the destination, or not write there.
        TransferFailed, Stalled, TimedOut, Cancelled
            As for `pull`.
        """
        raise self._cannot("send to another storage", path, destination, size, watch)

    def delegate(self, path: str, *, writes: bool, seconds: float) -> str | None:  # noqa: ARG002
        """Give what another storage may open one file of this one with (a value of `Authorization`).

        Parameters
        ----------
        path
            The file.
        writes
            Whether it is to be written; otherwise it is only read.
        seconds
            How long that takes at most.

        Returns
        -------
        str or None
            For this file alone where the storage gives that; None where nothing is needed.

        Raises
        ------
        Unsupported
            If the credentials are none that may be handed on.
        """
        return None

    def receiving(self, size: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """Say that another storage sends a file of this size here, within the block."""
        return nullcontext()

    def close(self) -> None:  # noqa: B027
        """Give up the connections; the protocol may be used again afterwards."""

    def _cannot(self, what: str, path: str, *_asked: object) -> RSEError:
        return Unsupported(
            f"{self.endpoint.rse}: {path or 'the prefix'}: this storage cannot {what}.",
            rse=self.endpoint.rse,
            path=path,
        )
