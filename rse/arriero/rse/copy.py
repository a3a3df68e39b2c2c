"""One verified copy of one file from one RSE to another.

Bytes are written under a name of this attempt's own, verified where they are, and only then moved to the final
name, which is looked at first: what is equal is adopted, what is different is never overwritten. Whatever
happens, the attempt's own name is removed. It decides nothing about retries, sources or order: that is the
scheduler's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

import structlog

from arriero.rse.checksum import Adler32, Md5, adler32_of, canonical_adler32, canonical_md5
from arriero.rse.copy_order import CopyOrder, CopyResult, Mode
from arriero.rse.credentials import TokenFile
from arriero.rse.errors import (
    AlreadyExists,
    ChecksumMismatch,
    NotFound,
    RSEError,
    SizeMismatch,
    SourceMismatch,
    TransferFailed,
    Unsupported,
)
from arriero.rse.errors import Cancelled as CopyCancelled
from arriero.rse.paths import temporary_path
from arriero.rse.pool import ProtocolPool
from arriero.rse.protocol import Cancelled, Progress, StorageProtocol
from arriero.rse.types import WIRE_SCHEMES, FileStat

__all__ = ["CopyOrder", "CopyResult", "Mode", "copy_file", "temporary_path"]

log = structlog.get_logger(__name__)

LOOK_FIRST_ABOVE = 1 << 20
"""Bytes above which the final name is looked at before anything is moved, and not only before the last step:
a smaller file is copied in the time that the question takes."""


def copy_file(
    order: CopyOrder,
    pool: ProtocolPool,
    *,
    on_progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> CopyResult:
    """Copy one file, verify it, and put it under its final name.

    Requests, when the destination pulls and has a digest: HEAD of the source, COPY, HEAD of the attempt's name,
    a look at the final name, MOVE; five, six for a file above `LOOK_FIRST_ABOVE`, whose final name is looked at
    before the COPY as well; besides one MKCOL per new folder and one OPTIONS per endpoint and process. Streamed:
    GET and PUT instead of COPY, and a read-back where there is no digest.

    Parameters
    ----------
    order
        What to copy.
    pool
        Protocols of this process; may be shared by threads.
    on_progress
        Called with the bytes at the destination so far.
    cancelled
        Asked between pieces, or between the destination's reports (XRootD: every 5 s).

    Returns
    -------
    CopyResult
        The file is complete, verified and under its final name.

    Raises
    ------
    SourceMismatch
        If the source is not what the catalogue says (permanent for this source).
    NotFound
        If the source is not there.
    AlreadyExists
        If something else is under the final name; the message has both values.
    ChecksumMismatch, SizeMismatch
        If the bytes were damaged on their way (retryable).
    TransferFailed, TimedOut, Unavailable, NoSpace, AccessDenied
        As the storages have it.
    InvalidName
        If one of the storages cannot hold the name.
    Cancelled
        If `cancelled` said so.
    """
    return _Copy(order, pool, on_progress, cancelled).run()


class _Copy:
    """The state of one attempt."""

    def __init__(
        self, order: CopyOrder, pool: ProtocolPool, on_progress: Progress | None, cancelled: Cancelled | None
    ) -> None:
        self.started = time.monotonic()
        self.order = order
        self.source: StorageProtocol = pool.get(order.source)
        self.destination: StorageProtocol = pool.get(order.destination)
        self.on_progress = on_progress
        self.cancelled = cancelled
        self.adler32 = None if order.adler32 is None else canonical_adler32(order.adler32)
        self.md5 = None if order.md5 is None else canonical_md5(order.md5)
        self.work_path = order.destination_path
        self.attempt_path = temporary_path(order.destination_path, order.attempt_name)

    def run(self) -> CopyResult:
        """Go through the steps; remove the attempt's own name on every way out but success."""
        self._check_source()
        renames = self.destination.capabilities.move
        # what was declared bad is neither adopted nor in the way, whatever its storage says of it
        replaces = self.order.replaces_bad and renames
        if not replaces and (self.order.bytes > LOOK_FIRST_ABOVE or not renames):
            present = self._present()
            if present is not None:
                return self._result("adopted", "the destination has it already", present)
        self._stop_if_cancelled()
        if renames:
            self.work_path = self.attempt_path
        self.destination.make_parents(self.work_path)
        try:
            mode, reason = self._transfer()
            self._verify(mode)
            return self._publish(mode, reason)
        except BaseException as error:
            self._discard(error)
            raise

    def _check_source(self) -> None:
        """Compare the source with the catalogue, before anything is moved."""
        order = self.order
        found = self.source.stat(order.source_path, digest=True)
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

    def _present(self) -> str | None:
        """Look at the final name: its adler32 if it is the file, None if it is free.

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
            raise self._occupied(f"{found.bytes} bytes")
        if self.adler32 is None and self.md5 is None:
            self.adler32 = self._adler32_at_source()
        adler32, md5 = self._checksums_at_destination(order.destination_path, found)
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

    def _transfer(self) -> tuple[Mode, str]:
        """Bring the bytes to the work path, by the shortest way that both sides can."""
        order, capabilities = self.order, self.destination.capabilities
        if order.source.scheme not in WIRE_SCHEMES:
            reason = f"the source is reached by {order.source.scheme!r}, which no storage can pull from"
        elif not capabilities.third_party_pull:
            reason = capabilities.pull_reason
        else:
            try:
                self._with_parents(self._pull)
            except Unsupported as error:
                reason = f"the destination refused to pull: {error.message}"
            else:
                return "third_party_pull", capabilities.pull_reason
        self._with_parents(self._stream)
        return "streamed", reason

    def _with_parents(self, transfer: Callable[[], None]) -> None:
        """Run a transfer; once more if the folders, thought to be there, have gone."""
        try:
            transfer()
        except NotFound as error:
            if self._is_about_source(error):
                raise
            self.destination.make_parents(self.work_path)
        else:
            return
        try:
            transfer()
        except NotFound as error:
            if self._is_about_source(error):
                raise
            # not NotFound: that would be held against the source
            order = self.order
            raise TransferFailed(
                f"{order.destination.rse}: the folder of {order.destination_path} does not stay; "
                "try again, and see who removes folders there.",
                rse=order.destination.rse,
                path=order.destination_path,
            ) from error

    def _is_about_source(self, error: NotFound) -> bool:
        return error.path == self.order.source_path and error.rse == self.order.source.rse

    def _pull(self) -> None:
        order = self.order
        token_file = order.source.token_file
        token = TokenFile(token_file, rse=order.source.rse).read() if token_file else None
        self.destination.pull(
            order.source.url(order.source_path),
            self.work_path,
            size=order.bytes,
            source_token=token,
            on_progress=self.on_progress,
            cancelled=self.cancelled,
        )

    def _stream(self) -> None:
        adler32 = Adler32()
        md5 = Md5() if self.md5 is not None else None
        with closing(self.source.read(self.order.source_path)) as pieces:
            self.destination.write(self.work_path, self._watched(pieces, adler32, md5), self.order.bytes)
        if self.adler32 is None:
            self.adler32 = adler32.hexdigest()
        elif adler32.hexdigest() != self.adler32:
            raise self._damaged(adler32.hexdigest())
        if md5 is not None:
            self._check_md5(md5.hexdigest())

    def _watched(self, pieces: Iterable[bytes], adler32: Adler32, md5: Md5 | None) -> Iterator[bytes]:
        for piece in adler32.through(pieces):
            if md5 is not None:
                md5.update(piece)
            self._stop_if_cancelled()
            yield piece
            if self.on_progress is not None:
                self.on_progress(adler32.bytes)

    def _verify(self, mode: Mode) -> None:
        """Compare size and checksums of what is at the destination."""
        order = self.order
        try:
            found = self.destination.stat(self.work_path, digest=True)
        except NotFound as error:
            raise TransferFailed(
                f"{order.destination.rse}: the copy of {order.destination_path} is gone before it was verified; "
                "try again, and see who removes '.part' files there.",
                rse=order.destination.rse,
                path=self.work_path,
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
        adler32, md5 = self._checksums_at_destination(self.work_path, found, md5_was_seen=mode == "streamed")
        if adler32 != self.adler32:
            raise self._damaged(adler32)
        self._check_md5(md5)

    def _adler32_at_source(self) -> str:
        """Read the source: neither the catalogue nor its storage knows, and the copy cannot vouch for itself."""
        return adler32_of(self.source.read(self.order.source_path))[0]

    def _checksums_at_destination(
        self, path: str, found: FileStat, *, md5_was_seen: bool = False
    ) -> tuple[str, str | None]:
        """Give adler32 and, where only the bytes can tell, md5 of a file at the destination.

        The bytes are read back if the storage gives no digest, or the md5 was not seen passing.
        """
        md5_needed = self.md5 is not None and not md5_was_seen
        if found.adler32 is not None and not md5_needed:
            return found.adler32, None
        pieces: Iterable[bytes] = self.destination.read(path)
        md5 = Md5() if md5_needed else None
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

    def _publish(self, mode: Mode, reason: str) -> CopyResult:
        """Move the verified copy to the final name, and say whose file it is that is there."""
        if not self.destination.capabilities.move:
            return self._result(mode, reason, self.adler32 or "")
        if self.order.replaces_bad:
            # in one step: whoever holds a lease that ran out replaces good bytes by good bytes at worst
            self.destination.move(self.work_path, self.order.destination_path, replace=True)
            return self._result(mode, reason, self.adler32 or "")
        try:
            self.destination.move(self.work_path, self.order.destination_path)
        except AlreadyExists as error:
            present = self._present()
            if present is None:
                raise
            self._discard(error)
            return self._result("adopted", "it was there already", present)
        except RSEError as error:
            if not error.retryable or self._present() is None:
                raise
            self._discard(error)
        return self._result(mode, reason, self.adler32 or "")

    def _result(self, mode: Mode, reason: str, adler32: str) -> CopyResult:
        return CopyResult(mode, reason, self.order.bytes, adler32, time.monotonic() - self.started)

    def _stop_if_cancelled(self) -> None:
        if self.cancelled is not None and self.cancelled():
            raise CopyCancelled(
                f"The copy of {self.order.destination_path} to {self.order.destination.rse} was taken back.",
                rse=self.order.destination.rse,
                path=self.order.destination_path,
            )

    def _discard(self, error: BaseException) -> None:
        """Remove what this attempt has written; what cannot be removed now is named, for the janitor."""
        try:
            self.destination.delete(self.work_path)
        except RSEError as failure:
            log.warning(
                "could not remove an unfinished copy",
                rse=self.order.destination.rse,
                path=self.work_path,
                code=failure.code,
                reason=failure.message,
            )
            error.add_note(
                f"{self.work_path} was left behind at {self.order.destination.rse}: {failure.message}"
            )
