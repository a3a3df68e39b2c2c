"""One verified copy of one file from one RSE to another.

Bytes are written under a name of this attempt's own, verified where they are, and only then moved to the final
name, which is looked at first: what is equal is adopted, what is different is never overwritten. Whatever
happens, the attempt's own name is removed. It decides nothing about retries, sources or order: that is the
scheduler's.
"""

from __future__ import annotations

import time

import structlog

from arriero.rse.copy_check import Checks
from arriero.rse.copy_order import CopyOrder, CopyResult, Mode, StepDown
from arriero.rse.copy_ways import Ways
from arriero.rse.errors import AlreadyExists, NotFound, RSEError, TransferFailed
from arriero.rse.errors import Cancelled as CopyCancelled
from arriero.rse.paths import temporary_path
from arriero.rse.pool import ProtocolPool
from arriero.rse.progress import Cancelled, Limits, Progress
from arriero.rse.protocol import StorageProtocol

__all__ = ["CopyOrder", "CopyResult", "Limits", "Mode", "StepDown", "copy_file", "temporary_path"]

log = structlog.get_logger(__name__)

LOOK_FIRST_ABOVE = 1 << 20
"""Bytes above which source and final name are looked at before anything is moved, and not only before the last step:
a smaller file is copied in the time that the question takes, and what arrives is compared with the catalogue."""


def copy_file(
    order: CopyOrder,
    pool: ProtocolPool,
    *,
    on_progress: Progress | None = None,
    cancelled: Cancelled | None = None,
    limits: Limits | None = None,
) -> CopyResult:
    """Copy one file, verify it, and put it under its final name.

    Requests, when the destination pulls and has a digest: COPY, HEAD of the attempt's name, a look at the final name
    (where the storage would overwrite it), MOVE; four, six for a file above `LOOK_FIRST_ABOVE` or without adler32 in
    the catalogue, whose source and final name are looked at before the COPY as well; besides one MKCOL per new folder
    and, per endpoint and process, a trial of what it can do, before which the source is looked at. Pushed: the same, with the COPY at the source. Streamed:
    GET and PUT instead of COPY, and a read-back where there is no digest. What fails has its source looked at, to say
    whose fault it is.

    Parameters
    ----------
    order
        What to copy.
    pool
        Protocols of this process; may be shared by threads.
    on_progress
        Called with the bytes at the destination so far.
    cancelled
        Asked between pieces, and twice a second while nothing comes.
    limits
        How long it may stand still, and take altogether.

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
    Stalled, TimedOut
        If no byte came for too long, or it took too long altogether.
    TransferFailed, Unavailable, NoSpace, AccessDenied, TokenExpired
        As the storages have it.
    InvalidName
        If one of the storages cannot hold the name.
    RefusedByGuard
        If one of them may not be talked to.
    Cancelled
        If `cancelled` said so.
    """
    return _Copy(order, pool, on_progress, cancelled, limits or Limits()).run()


class _Copy:
    """The state of one attempt."""

    def __init__(
        self,
        order: CopyOrder,
        pool: ProtocolPool,
        on_progress: Progress | None,
        cancelled: Cancelled | None,
        limits: Limits,
    ) -> None:
        self.started = time.monotonic()
        self.order = order
        source: StorageProtocol = pool.get(order.source)
        self.destination: StorageProtocol = pool.get(order.destination)
        self.cancelled = cancelled
        # reading takes time as well, but it is no progress of the copy
        self.checks = Checks(order, source, self.destination, lambda: self.ways.watch(told=False))
        self.ways = Ways(
            order,
            source,
            self.destination,
            pool.links,
            limits=limits,
            on_progress=on_progress,
            cancelled=cancelled,
            confirm=self.checks.confirm_source,
        )
        self.work_path = order.destination_path
        self.attempt_path = temporary_path(order.destination_path, order.attempt_name)

    def run(self) -> CopyResult:
        """Copy; what vanishes at the destination meanwhile is not held against the source."""
        try:
            return self._steps()
        except NotFound as error:
            if error.rse != self.order.destination.rse:
                raise
            raise TransferFailed(
                f"{error.rse}: something went away there during the copy of {self.order.destination_path}: "
                f"{error.message} Try again, and see who removes files there.",
                rse=error.rse,
                path=error.path,
            ) from error

    def _steps(self) -> CopyResult:
        """Go through the steps; remove the attempt's own name on every way out but success."""
        is_small = self.order.bytes <= LOOK_FIRST_ABOVE and self.checks.adler32 is not None
        if not is_small or self.destination.proved is None:
            self.checks.confirm_source()
        abilities = self.destination.abilities
        if not abilities.is_proved:
            abilities = self.destination.probe()
        renames = abilities.move
        if not renames:
            # what is written under the final name should be right from the first byte
            self.checks.confirm_source()
        adopted = self._adopted(renames=renames)
        if adopted is not None:
            return adopted
        self._stop_if_cancelled()
        if renames:
            self.work_path = self.attempt_path
        self.destination.make_parents(self.work_path)
        try:
            mode = self._transfer(in_place=not renames)
            self.checks.arrived(self.work_path, mode)
            return self._publish(mode, in_place=not renames)
        except CopyCancelled as error:
            self._discard(error)
            raise
        except RSEError as error:
            self._discard(error)
            self.checks.confirm_source()
            raise
        except BaseException as error:
            self._discard(error)
            raise

    def _adopted(self, *, renames: bool) -> CopyResult | None:
        """See whether the file is there already, or an earlier attempt has left it whole."""
        order = self.order
        # what was declared bad is neither adopted nor in the way, whatever its storage says of it
        replaces = order.replaces_bad and renames
        if not replaces and (order.bytes > LOOK_FIRST_ABOVE or not renames):
            present = self.checks.present(partial_is_ours=not renames and bool(order.earlier_attempts))
            if present is not None:
                return self._result("adopted", "the destination has it already", present)
        if not renames:
            return None
        for name in order.earlier_attempts:
            if self._take_over(temporary_path(order.destination_path, name)):
                return self._result(
                    "adopted", "an earlier attempt had left it complete", self.checks.adler32 or ""
                )
        return None

    def _take_over(self, path: str) -> bool:
        """Move what an earlier attempt has left complete to its final name; remove it otherwise."""
        try:
            if self.checks.is_complete(path):
                self.destination.move(path, self.order.destination_path, replace=self.order.replaces_bad)
                return True
        except NotFound:
            return False
        except RSEError as error:
            log.info("earlier attempt not adopted", path=path, code=error.code)
        try:
            self.destination.delete(path)
        except RSEError as error:
            log.info("earlier attempt not removed", path=path, code=error.code)
        return False

    def _transfer(self, *, in_place: bool) -> Mode:
        """Bring the bytes to the work path, by the shortest way that both sides can."""
        ways = self.ways
        mode = ways.go(self.work_path, only_new=in_place, wants_md5=self.checks.needs_md5)
        if ways.adler32 is not None:
            self.checks.streamed(ways.adler32, ways.md5)
        return mode

    def _publish(self, mode: Mode, *, in_place: bool) -> CopyResult:
        """Move the verified copy to the final name, and say whose file it is that is there."""
        reason, adler32 = self.ways.reason(mode), self.checks.adler32 or ""
        if in_place:
            return self._result(mode, reason, adler32)
        if self.order.replaces_bad:
            # in one step: whoever holds a lease that ran out replaces good bytes by good bytes at worst
            self.destination.move(self.work_path, self.order.destination_path, replace=True)
            return self._result(mode, reason, adler32)
        try:
            self.destination.move(self.work_path, self.order.destination_path)
        except AlreadyExists as error:
            present = self.checks.present()
            if present is None:
                raise
            self._discard(error)
            return self._result("adopted", "it was there already", present)
        except RSEError as error:
            if not error.retryable or self.checks.present() is None:
                raise
            self._discard(error)
        return self._result(mode, reason, adler32)

    def _result(self, mode: Mode, reason: str, adler32: str) -> CopyResult:
        seconds = time.monotonic() - self.started
        return CopyResult(mode, reason, self.order.bytes, adler32, seconds, tuple(self.ways.steps))

    def _stop_if_cancelled(self) -> None:
        if self.cancelled is not None and self.cancelled():
            raise CopyCancelled(
                f"The copy of {self.order.destination_path} to {self.order.destination.rse} was taken back.",
                rse=self.order.destination.rse,
                path=self.order.destination_path,
            )

    def _discard(self, error: BaseException) -> None:
        """Remove what this attempt has written; what cannot be removed now is named, for the janitor."""
        if self.work_path == self.order.destination_path and isinstance(error, AlreadyExists):
            return  # it was written in place, and somebody else's is there
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
