"""Whether bytes are those that were meant: at the source before a copy, at the destination after it.

A storage's own digest counts; where it gives none the bytes are read back. When they differ, the source is read to
find out who is to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from arriero.rse.checksum import Md5, adler32_of, canonical_adler32, canonical_md5
from arriero.rse.copy_order import CopyOrder, Mode
from arriero.rse.errors import (
    AlreadyExists,
    ChecksumMismatch,
    NotFound,
    RSEError,
    SizeMismatch,
    SourceMismatch,
    TransferFailed,
)
from arriero.rse.progress import Watch
from arriero.rse.protocol import StorageProtocol
from arriero.rse.types import FileStat


class Checks:
    """What is known of the content of one order, and what is compared with it."""

    def __init__(
        self,
        order: CopyOrder,
        source: StorageProtocol,
        destination: StorageProtocol,
        watch: Callable[[], Watch],
    ) -> None:
        self.order = order
        self.source = source
        self.destination = destination
        self._watch = watch
        self.adler32 = None if order.adler32 is None else canonical_adler32(order.adler32)
        self.md5 = None if order.md5 is None else canonical_md5(order.md5)
        self._source_is_known = False

    @property
    def needs_md5(self) -> bool:
        """Whether the md5 is the only checksum that the catalogue has: it costs a core for each 200 MB/s."""
        return self.order.adler32 is None and self.md5 is not None

    # -- the source -------------------------------------------------------------------------------

    def confirm_source(self) -> None:
        """Compare the source with the catalogue, unless it is known to be right.

        Raises
        ------
        SourceMismatch
            If it is something else.
        """
        if not self._source_is_known:
            self._compare_source()
            self._source_is_known = True

    def _compare_source(self) -> None:
        order = self.order
        # where asking for a checksum may end the server, what the copy comes to says as much
        asks = self.adler32 is None or not self.source.abilities.fragile_digests
        if not asks and self.source.has_bytes(order.source_path, order.bytes):
            return
        found = self.source.stat(order.source_path, digest=asks)
        if found.is_directory:
            raise SourceMismatch(
                f"{order.source.rse}: {order.source_path} is a folder, not the file of the catalogue; "
                "declare that replica bad.",
                rse=order.source.rse,
                path=order.source_path,
            )
        if found.bytes != order.bytes:
            raise self._source_mismatch(f"{found.bytes} bytes", f"{order.bytes} bytes")
        if found.adler32 is not None:
            if self.adler32 is not None and found.adler32 != self.adler32:
                raise self._source_mismatch(f"adler32 {found.adler32}", f"adler32 {self.adler32}")
            self.adler32 = found.adler32

    def _source_mismatch(self, found: str, expected: str) -> SourceMismatch:
        order = self.order
        return SourceMismatch(
            f"{order.source.rse}: {order.source_path} has {found}, the catalogue says {expected}; "
            "copy from another replica, then declare this one bad or correct the catalogue.",
            rse=order.source.rse,
            path=order.source_path,
        )

    def _adler32_at_source(self) -> str:
        """Read the source: neither the catalogue nor its storage knows, and the copy cannot vouch for itself."""
        return adler32_of(self.source.read(self.order.source_path, watch=self._watch()))[0]

    # -- what is there already --------------------------------------------------------------------

    def present(self, *, partial_is_ours: bool = False) -> str | None:
        """Look at the final name: its adler32 if it is the file, None if it is free.

        Parameters
        ----------
        partial_is_ours
            What is shorter than the file was left by an attempt of ours, and is no obstacle.

        Raises
        ------
        AlreadyExists
            If something else is there.
        """
        order = self.order
        try:
            found = self.destination.stat(order.destination_path, digest=True)
        except NotFound:
            return None
        if found.is_directory:
            raise self._occupied("a folder")
        if found.bytes != order.bytes:
            if partial_is_ours and found.bytes < order.bytes:
                return None
            raise self._occupied(f"{found.bytes} bytes")
        if self.adler32 is None and self.md5 is None:
            self.adler32 = self._adler32_at_source()
        # it is not our copy: all that the catalogue knows has to be right
        adler32, md5 = self._checksums(order.destination_path, found, wants_md5=self.md5 is not None)
        if self.adler32 is not None and adler32 != self.adler32:
            raise self._occupied(f"adler32 {adler32}")
        if md5 is not None and md5 != self.md5:
            raise self._occupied(f"md5 {md5}")
        return adler32

    def _occupied(self, found: str) -> AlreadyExists:
        order = self.order
        return AlreadyExists(
            f"{order.destination.rse}: {order.destination_path} is there with {found}, and the file to copy has "
            f"{order.bytes} bytes, adler32 {self.adler32 or 'unknown'}; nothing is overwritten: "
            "remove or rename what is there.",
            rse=order.destination.rse,
            path=order.destination_path,
        )

    # -- the copy ---------------------------------------------------------------------------------

    def streamed(self, adler32: str, md5: str | None) -> None:
        """Compare what has passed here with the catalogue.

        Raises
        ------
        ChecksumMismatch, SourceMismatch
            If it is something else.
        """
        if self.adler32 is None:
            self.adler32 = adler32
        elif adler32 != self.adler32:
            raise self._damaged(adler32)
        self._check_md5(md5)

    def arrived(self, path: str, mode: Mode) -> None:
        """Compare size and checksums of the copy with what they must be.

        Raises
        ------
        SizeMismatch, ChecksumMismatch
            If the bytes were damaged on their way.
        SourceMismatch
            If they were wrong before.
        TransferFailed
            If it is gone, or cannot be read back.
        """
        order = self.order
        reads_for_md5 = self.needs_md5 and mode != "streamed"
        try:
            if reads_for_md5:
                found = self.destination.stat(path)
            else:
                found = self.destination.fingerprint(path, order.bytes, watch=self._watch())
        except NotFound as error:
            raise TransferFailed(
                f"{order.destination.rse}: the copy of {order.destination_path} is gone before it was verified; "
                "try again, and see who removes '.part' files there.",
                rse=order.destination.rse,
                path=path,
            ) from error
        if found.bytes != order.bytes:
            raise SizeMismatch(
                f"{order.destination.rse}: {found.bytes} of {order.bytes} bytes of {order.destination_path} "
                f"arrived ({mode}); the copy was removed, try again.",
                rse=order.destination.rse,
                path=order.destination_path,
            )
        if self.adler32 is None:
            self.adler32 = self._adler32_at_source()
        adler32, md5 = self._checksums(path, found, wants_md5=reads_for_md5)
        if adler32 != self.adler32:
            raise self._damaged(adler32)
        self._check_md5(md5)
        self._source_is_known = True

    def is_complete(self, path: str) -> bool:
        """Whether what an earlier attempt has left is the whole file.

        Raises
        ------
        NotFound
            If it has left nothing.
        """
        found = self.destination.stat(path, digest=True)
        if found.is_directory or found.bytes != self.order.bytes or self.adler32 is None:
            return False
        adler32, md5 = self._checksums(path, found, wants_md5=self.needs_md5)
        return adler32 == self.adler32 and md5 in {None, self.md5}

    def _checksums(self, path: str, found: FileStat, *, wants_md5: bool) -> tuple[str, str | None]:
        """Give adler32 and, where only the bytes can tell, md5 of a file at the destination.

        The bytes are read back if the storage gives no digest, or the md5 is wanted.
        """
        if found.adler32 is not None and not wants_md5:
            return found.adler32, None
        pieces: Iterable[bytes] = self.destination.read(path, watch=self._watch())
        md5 = Md5() if wants_md5 else None
        adler32, size = adler32_of(pieces if md5 is None else md5.through(pieces))
        if size != found.bytes:
            raise TransferFailed(
                f"{self.order.destination.rse}: {size} of {found.bytes} bytes of {path} came back for verification; "
                "try again.",
                rse=self.order.destination.rse,
                path=path,
            )
        return adler32, None if md5 is None else md5.hexdigest()

    def _damaged(self, found: str) -> RSEError:
        """Find out who is to blame for a wrong adler32, by reading the source: itself, or the way."""
        order = self.order
        actual = self._adler32_at_source()
        if actual != self.adler32:
            return self._source_mismatch(f"adler32 {actual} in its bytes", f"adler32 {self.adler32}")
        return ChecksumMismatch(
            f"{order.destination.rse}: the copy of {order.destination_path} has adler32 {found} instead of "
            f"{self.adler32}, and the source at {order.source.rse} is right; the copy was removed, try again.",
            rse=order.destination.rse,
            path=order.destination_path,
        )

    def _check_md5(self, found: str | None) -> None:
        """Compare an md5 with the catalogue's; the adler32 was right, so it is the source that differs."""
        if self.md5 is not None and found is not None and found != self.md5:
            raise self._source_mismatch(f"md5 {found}", f"md5 {self.md5}")
