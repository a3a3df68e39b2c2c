"""Whether a transfer goes on: what has arrived, when it stands still, when it has taken too long, who took it back.

One `Watch` goes with one transfer through whatever carries its bytes, and is asked whenever there is something to
tell or nothing comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from arriero.rse.errors import Cancelled as TransferCancelled
from arriero.rse.errors import Stalled, TookTooLong

Progress = Callable[[int], None]
"""Called with the bytes that have arrived so far."""

Cancelled = Callable[[], bool]
"""Asked now and then; True ends the transfer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a transfer may take, and over how many connections."""

    stall_s: float = 90.0
    """Seconds without a byte of progress."""
    least_s: float = 600.0
    """Seconds that every transfer has (FTS: 600)."""
    bytes_per_s: float = 500_000.0
    """And as many more as its size takes at this rate (FTS: 2 s a MB)."""
    streams: int = 1
    """Connections that storages are asked to use for one file, where they copy by themselves."""

    def total_s(self, size: int) -> float:
        """Seconds that a file of this size may take."""
        return self.least_s + size / self.bytes_per_s


class Watch:
    """Looks after one transfer."""

    def __init__(
        self,
        rse: str,
        path: str,
        size: int,
        *,
        limits: Limits | None = None,
        on_progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> None:
        self._rse = rse
        self._path = path
        self._size = size
        self.limits = limits or Limits()
        self._on_progress = on_progress
        self._cancelled = cancelled
        self._until = time.monotonic() + self.limits.total_s(size)
        self._since: float | None = None
        self.bytes = -1
        """Bytes at the destination so far; -1 before anything was told."""

    def arrived(self, count: int) -> None:
        """Note the bytes at the destination so far; the caller is told when there are more of them."""
        if count > self.bytes:
            self.bytes, self._since = count, time.monotonic()
            if self._on_progress is not None:
                self._on_progress(count)
        elif self._since is None:
            self._since = time.monotonic()

    def rest(self) -> None:
        """No byte is expected for a while: from here on it cannot stand still, until the next has arrived."""
        self._since = None

    def check(self) -> None:
        """See whether it may go on.

        Raises
        ------
        Cancelled
            If it was taken back.
        Stalled
            If bytes were expected and none came for too long.
        TookTooLong
            If it has taken too long altogether.
        """
        if self._cancelled is not None and self._cancelled():
            raise TransferCancelled(
                f"The copy of {self._path} to {self._rse} was taken back.", rse=self._rse, path=self._path
            )
        now = time.monotonic()
        if self._since is not None and now - self._since > self.limits.stall_s:
            raise Stalled(
                f"{self._rse}: {self._path} stands at {max(self.bytes, 0)} of {self._size} bytes for "
                f"{self.limits.stall_s:.0f} s; it was given up, try again.",
                rse=self._rse,
                path=self._path,
            )
        if now > self._until:
            raise TookTooLong(
                f"{self._rse}: {self._path} ({self._size} bytes, {max(self.bytes, 0)} arrived) takes longer than "
                f"{self.limits.total_s(self._size):.0f} s; it was given up, try again.",
                rse=self._rse,
                path=self._path,
            )
