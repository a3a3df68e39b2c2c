"""The status line and headers of an HTTP answer, read. Pure.

Storages answer thousands of small files in the same words, so what was read of short ones is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

ALIKE_BYTES = 1_024
"""Bytes up to which what was read is kept."""


class BrokenAnswer(OSError):
    """What came is not an answer, or not all of it."""


@dataclass(frozen=True, slots=True)
class Head:
    """What is said before the body of an answer."""

    status_code: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    keeps_connection: bool
    is_chunked: bool
    remaining: int | None
    """Bytes of the body; None where it is not said."""


def head_of(head: bytes) -> Head:
    """Read status line and headers.

    Raises
    ------
    BrokenAnswer
        If they are none.
    """
    return _kept(head) if len(head) <= ALIKE_BYTES else _read(head)


@lru_cache(maxsize=256)
def _kept(head: bytes) -> Head:
    return _read(head)


def _read(head: bytes) -> Head:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version not in {"HTTP/1.1", "HTTP/1.0"} or not (rest[:3].isascii() and rest[:3].isdigit()):
        raise BrokenAnswer("it does not begin like an HTTP answer")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name = name.lower()
        headers[name] = value.strip() if name not in headers else f"{headers[name]}, {value.strip()}"
    said = headers.get("connection", "").lower()
    is_chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    length = None if is_chunked else headers.get("content-length")
    return Head(
        int(rest[:3]),
        MappingProxyType(headers),
        keeps_connection=version == "HTTP/1.1" and "close" not in said,
        is_chunked=is_chunked,
        remaining=None if length is None else _length(length),
    )


def _length(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise BrokenAnswer("its length is no number")
    return int(text)
