"""Bearer tokens by reference: the file is the credential's only home, and its path the only thing that is stored.

A token is read again when its file changes, so that whoever renews it need not tell anybody.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

from arriero.rse.errors import AccessDenied

_TOKEN = re.compile(r"[\x21-\x7e]{1,32768}", re.ASCII)


class TokenFile:
    """One file with one bearer token (b64token of RFC 6750, blanks around it ignored)."""

    def __init__(self, path: str, *, rse: str) -> None:
        self._path = Path(path)
        self._rse = rse
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def read(self) -> str:
        """Give the token.

        Raises
        ------
        AccessDenied
            If the file cannot be read or holds something else.
        """
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            with self._lock:
                if seen != self._seen:
                    self._token = self._checked(self._path.read_bytes()[:40_000])
                    self._seen = seen
                return self._token
        except OSError as error:
            raise AccessDenied(
                f"RSE {self._rse}: token file {self._path} cannot be read ({error.strerror}); "
                "write the token there, or correct the RSE's credential reference.",
                rse=self._rse,
            ) from error

    def _checked(self, content: bytes) -> str:
        token = content.decode("ascii", "replace").strip()
        if _TOKEN.fullmatch(token) is None:
            raise AccessDenied(
                f"RSE {self._rse}: token file {self._path} does not hold one bearer token; write it anew.",
                rse=self._rse,
            )
        return token
