"""Checksums in the one form that is stored and compared.

adler32 is eight lower-case hexadecimal digits with its leading zeros: some servers drop them, and some give
upper case. A checksum that does not read as one is refused, never compared as text.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator

_ADLER32 = re.compile(r"(?:0x)?([0-9a-f]{1,8})", re.IGNORECASE | re.ASCII)
_MD5 = re.compile(r"[0-9a-f]{32}", re.IGNORECASE | re.ASCII)


def canonical_adler32(text: str) -> str:
    """Bring an adler32 to its canonical form.

    Parameters
    ----------
    text
        One to eight hexadecimal digits, in any case, with or without `0x` and leading zeros.

    Returns
    -------
    str
        Eight lower-case hexadecimal digits.

    Raises
    ------
    ValueError
        If it is not an adler32.
    """
    match = _ADLER32.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!a} is not an adler32: expected up to 8 hexadecimal digits")
    return match.group(1).lower().rjust(8, "0")


def canonical_md5(text: str) -> str:
    """Bring an md5 to its canonical form of 32 lower-case hexadecimal digits.

    Raises
    ------
    ValueError
        If it is not an md5.
    """
    stripped = text.strip()
    if _MD5.fullmatch(stripped) is None:
        raise ValueError(f"{text[:40]!a} is not an md5: expected 32 hexadecimal digits")
    return stripped.lower()


class Adler32:
    """adler32 and length of a stream, piece by piece."""

    __slots__ = ("_value", "bytes")

    def __init__(self) -> None:
        self._value = 1
        self.bytes = 0

    def update(self, piece: bytes) -> None:
        """Take in the next piece."""
        self._value = zlib.adler32(piece, self._value)
        self.bytes += len(piece)

    def hexdigest(self) -> str:
        """Canonical adler32 of what was taken in so far."""
        return f"{self._value:08x}"

    def through(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass pieces on, taking each in on its way."""
        for piece in pieces:
            self.update(piece)
            yield piece


class Md5:
    """md5 and length of a stream, piece by piece (not for security: the field's second checksum)."""

    __slots__ = ("_hash", "bytes")

    def __init__(self) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)
        self.bytes = 0

    def update(self, piece: bytes) -> None:
        """Take in the next piece."""
        self._hash.update(piece)
        self.bytes += len(piece)

    def hexdigest(self) -> str:
        """Canonical md5 of what was taken in so far."""
        return self._hash.hexdigest()

    def through(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass pieces on, taking each in on its way."""
        for piece in pieces:
            self.update(piece)
            yield piece


def adler32_of(pieces: Iterable[bytes]) -> tuple[str, int]:
    """Canonical adler32 and number of bytes of a stream."""
    adler32 = Adler32()
    for piece in pieces:
        adler32.update(piece)
    return adler32.hexdigest(), adler32.bytes
