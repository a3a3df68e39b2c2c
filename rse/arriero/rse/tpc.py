"""The report that a storage streams while it pulls a file (HTTP third-party copy): pure parsing.

The status line says nothing: 201 and 202 come before the transfer, and a missing source, a refused token or a
full disk are told in the body. The report is a sequence of performance markers and one line of result, and only
that line decides; a report that ends without it is a failure. Text that follows `failure:` is its reason, even if
a line of it (it may be the source's HTML) looks like success.

The format is that of the WLCG HTTP-TPC documents; dCache indents the lines of its markers, XRootD does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from arriero.rse.errors import clean_remote_text

MAX_LINE = 4096
"""Bytes kept of a line; the rest of it is dropped."""

MAX_REASON = 8192
"""Bytes kept of a failure's reason, before it is cleaned and cut."""


@dataclass(frozen=True, slots=True)
class Marker:
    """One performance marker."""

    bytes: int
    """Transferred so far, over all stripes that have reported."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result line."""

    succeeded: bool
    text: str
    """What the server said, cleaned."""
    is_none: bool = field(default=False, compare=False)
    """There was neither a marker nor a result: this is no report."""


@dataclass(slots=True)
class MarkerParser:
    """Reads a report in the pieces in which it comes."""

    _line: bytearray = field(default_factory=bytearray)
    _reason: bytearray | None = None
    _succeeded: bytes | None = None
    _stripes: dict[int, int] = field(default_factory=dict)
    _in_marker: bool = False
    _stripe: int = 0
    _stripe_bytes: int | None = None
    _begun: bool = False

    def feed(self, piece: bytes) -> list[Marker]:
        """Take in the next piece.

        Parameters
        ----------
        piece
            Bytes of the body, cut anywhere.

        Returns
        -------
        list of Marker
            The markers that were completed by this piece.
        """
        markers: list[Marker] = []
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            self._keep(piece[start:end])
            marker = self._end_of_line()
            if marker is not None:
                markers.append(marker)
            start = end + 1
        self._keep(piece[start:])
        return markers

    def finish(self) -> Outcome:
        """Decide, once the body has ended.

        Returns
        -------
        Outcome
            Success only if the last line that is not blank is outside a marker and says so.
        """
        self._end_of_line()
        if self._reason is not None:
            return Outcome(succeeded=False, text=clean_remote_text(bytes(self._reason)))
        if self._succeeded is not None:
            return Outcome(succeeded=True, text=_cleaned(self._succeeded))
        return Outcome(False, "the transfer report ended without a result", is_none=not self._begun)

    def _keep(self, piece: bytes) -> None:
        room = MAX_LINE - len(self._line)
        if room > 0:
            self._line += piece[:room]

    def _end_of_line(self) -> Marker | None:
        line = bytes(self._line).strip()
        self._line.clear()
        if not line:
            return None
        if self._reason is not None:
            if len(self._reason) < MAX_REASON:
                self._reason += b" " + line
            return None
        self._succeeded = None
        key, _, value = line.partition(b":")
        key = key.strip().lower()
        if key in {b"failure", b"aborted"}:
            self._reason = bytearray(value.strip() or key)
            return None
        if key == b"success" and not self._in_marker:
            self._succeeded = value.strip()
            self._begun = True
            return None
        return self._line_of_marker(key, value)

    def _line_of_marker(self, key: bytes, value: bytes) -> Marker | None:
        if key == b"perf marker":
            self._in_marker, self._stripe, self._stripe_bytes = True, 0, None
            self._begun = True
        elif not self._in_marker:
            return None
        elif key == b"stripe index":
            self._stripe = _count(value) or 0
        elif key == b"stripe bytes transferred":
            self._stripe_bytes = _count(value)
        elif key == b"end":
            self._in_marker = False
            if self._stripe_bytes is not None and (
                self._stripe in self._stripes or len(self._stripes) < 1024
            ):
                self._stripes[self._stripe] = self._stripe_bytes
            return Marker(sum(self._stripes.values()))
        return None


@lru_cache(maxsize=64)
def _cleaned(text: bytes) -> str:
    """Storages tell of every success in the same words."""
    return clean_remote_text(text)


def _count(value: bytes) -> int | None:
    digits = value.strip()
    return int(digits) if digits.isdigit() and len(digits) <= 19 else None
