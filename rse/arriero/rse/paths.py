"""Which paths may go to a storage element: pure, so that it can be proved and used at every edge.

A path is relative to an RSE's prefix, unquoted, with `/` between segments. It must not do more than name a
file: servers and client libraries resolve `..`, fold `//` and cut at control characters, each in its own way.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache
from urllib.parse import quote

from arriero.rse.errors import InvalidName

MAX_SEGMENT_BYTES = 250
"""UTF-8 bytes of a segment; file systems hold 255."""

MAX_PATH_BYTES = 1000
"""UTF-8 bytes of a path; dCache and XRootD hold about 1,024 with the prefix."""

QUARANTINE_FOLDER = ".arriero-quarantine"
"""Folder below the prefix of an RSE to which dark files are moved; nothing in it is looked at."""

_OWN = (f"{QUARANTINE_FOLDER}/", ".arriero-deletions")

_ATTEMPT_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def safe_path(path: str) -> str:
    """Check that a path can be appended to a prefix.

    Parameters
    ----------
    path
        Path below the prefix, unquoted.

    Returns
    -------
    str
        The same path.

    Raises
    ------
    InvalidName
        If it is empty, absolute or too long, has an empty, `.` or `..` segment, a backslash, a control
        character or a surrogate, or is not in Unicode normal form C.
    """
    reason = _fault(path)
    if reason:
        shown = ascii(path if len(path) <= 80 else path[:79] + "…")
        raise InvalidName(f"Path {shown} {reason}; rename the file or correct its PFN.", path=path)
    return path


@lru_cache(maxsize=8192)
def quoted_path(path: str) -> str:
    """Percent-encode each segment of a path exactly once; a copy asks for the same few paths many times.

    Raises
    ------
    InvalidName
        As `safe_path`.
    """
    return quote(safe_path(path))


def _fault(path: str) -> str | None:
    """Give the reason why the path is refused, None when it is fine."""
    if len(path) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    reason = _character_fault(path)
    if reason:
        return reason
    encoded = path.encode()
    if len(encoded) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    return _segment_fault(encoded)


def _character_fault(path: str) -> str | None:
    if "\\" in path:
        return "contains a backslash"
    if path.isascii():
        return None if path.isprintable() else "contains a control character"
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in path):
        return "contains a control character, a surrogate or a line separator"
    return None if unicodedata.is_normalized("NFC", path) else "is not in Unicode normal form C"


def _segment_fault(encoded: bytes) -> str | None:
    if encoded.startswith(b"/"):
        return "begins with '/' (paths are relative to the prefix of the RSE)"
    for segment in encoded.split(b"/"):
        if segment in {b"", b".", b".."}:
            return f"has {'an empty' if not segment else 'a'} segment {segment.decode()!r}"
        if len(segment) > MAX_SEGMENT_BYTES:
            return f"has a segment longer than {MAX_SEGMENT_BYTES} bytes"
    return None


def is_own(path: str) -> bool:
    """Whether a path is of what Arriero itself keeps on a storage: the quarantine, and the mark of deletion."""
    return path.startswith(_OWN)


def parent_of(path: str) -> str:
    """Folder of a path; empty for the prefix itself."""
    return path.rpartition("/")[0]


def temporary_path(path: str, attempt_name: str) -> str:
    """Name that an attempt writes under: `<path>.<attempt_name>.part`, in the same folder.

    A name that would become too long for a server is shortened and told apart by a hash.

    Raises
    ------
    InvalidName
        If the path or the attempt's name is not fit for it.
    """
    if _ATTEMPT_NAME.fullmatch(attempt_name) is None:
        raise InvalidName(f"{attempt_name[:80]!a} is not an attempt name; use letters, digits, '-' and '_'.")
    folder, slash, name = safe_path(path).rpartition("/")
    suffix = f".{attempt_name}.part"
    room = min(MAX_SEGMENT_BYTES, MAX_PATH_BYTES - len((folder + slash).encode())) - len(suffix)
    if len(name.encode()) > room:
        mark = "~" + hashlib.sha256(name.encode()).hexdigest()[:12]
        if room < len(mark):
            raise InvalidName(
                f"Path {path[:60]!a}… leaves no room for the name that a copy is written under; shorten it.",
                path=path,
            )
        name = name.encode()[: room - len(mark)].decode("utf-8", "ignore") + mark
    return safe_path(f"{folder}{slash}{name}{suffix}")
