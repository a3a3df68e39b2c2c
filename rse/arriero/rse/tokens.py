"""Bearer tokens by reference: where each is found, when it runs out, and that it is read again when it is renewed.

A token's only home is its file or the environment; what is stored is the name of that. Whoever renews it need not
tell anybody.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from typing_extensions import override

from arriero.rse.errors import AccessDenied, TokenExpired

LEEWAY_S = 60.0
"""A token is used so long after it has run out by our clock: clocks differ, and the storage's counts."""

SHARED_FOLDER = Path("/tmp")  # noqa: S108 - where the WLCG's rules say that one lies
"""Where a token is looked for last."""

TOKEN = re.compile(r"[\x21-\x7e]{1,32768}", re.ASCII)


class TokenSource(ABC):
    """Where the bearer token for one RSE comes from."""

    def __init__(self, rse: str) -> None:
        self.rse = rse

    @abstractmethod
    def read(self) -> str:
        """Give the token, not yet run out.

        Raises
        ------
        AccessDenied
            If there is none, or something else.
        TokenExpired
            If it has run out and was not renewed.
        """

    def _checked(self, text: str, where: str) -> str:
        token = text.strip()
        if TOKEN.fullmatch(token) is None:
            raise AccessDenied(
                f"RSE {self.rse}: {where} does not hold one bearer token; write it anew.", rse=self.rse
            )
        return token

    def _not_expired(self, expiry: float | None, where: str) -> None:
        if expiry is not None and time.time() > expiry + LEEWAY_S:
            ago = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(min(expiry, 1e11)))
            raise TokenExpired(
                f"RSE {self.rse}: the token in {where} ran out at {ago}; renew it there, nothing else has to be told.",
                rse=self.rse,
            )


class TokenFile(TokenSource):
    """One file with one bearer token (b64token of RFC 6750, blanks around it ignored)."""

    def __init__(self, path: str, *, rse: str, only_own: bool = False) -> None:
        super().__init__(rse)
        self._path = Path(path)
        self._only_own = only_own
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._token = ""
        self._expiry: float | None = None

    @override
    def read(self) -> str:
        where = f"token file {self._path}"
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            with self._lock:
                if seen != self._seen:
                    self._check_owner(found)
                    content = self._path.read_bytes()[:40_000]
                    self._token = self._checked(content.decode("ascii", "replace"), where)
                    self._expiry = expiry_of(self._token)
                    self._seen = seen
                token, expiry = self._token, self._expiry
        except OSError as error:
            raise AccessDenied(
                f"RSE {self.rse}: {where} cannot be read ({error.strerror}); "
                "write the token there, or correct the RSE's credential reference.",
                rse=self.rse,
            ) from error
        self._not_expired(expiry, where)
        return token

    def _check_owner(self, found: os.stat_result) -> None:
        """In a folder where anybody writes, a file is believed if it is our own."""
        if self._only_own and (found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode)):
            raise AccessDenied(
                f"RSE {self.rse}: token file {self._path} is not ours; remove it, or set BEARER_TOKEN_FILE.",
                rse=self.rse,
            )


class DiscoveredToken(TokenSource):
    """The token that the WLCG's rules find (Bearer Token Discovery), looked for again each time."""

    def __init__(self, *, rse: str, environment: Mapping[str, str] = os.environ) -> None:
        super().__init__(rse)
        self._environment = environment
        self._files: dict[tuple[str, bool], TokenFile] = {}

    @override
    def read(self) -> str:
        value = self._environment.get("BEARER_TOKEN", "").strip()
        if value:
            token = self._checked(value, "BEARER_TOKEN")
            self._not_expired(expiry_of(token), "BEARER_TOKEN")
            return token
        named = self._environment.get("BEARER_TOKEN_FILE", "").strip()
        if named:
            return self._file(named, only_own=False).read()
        name = f"bt_u{os.geteuid()}"
        runtime = self._environment.get("XDG_RUNTIME_DIR", "").strip()
        if runtime and Path(runtime, name).exists():
            return self._file(str(Path(runtime, name)), only_own=True).read()
        if Path(SHARED_FOLDER, name).exists():
            return self._file(str(Path(SHARED_FOLDER, name)), only_own=True).read()
        raise AccessDenied(
            f"RSE {self.rse}: no bearer token is found; set BEARER_TOKEN or BEARER_TOKEN_FILE, or write it to "
            f"XDG_RUNTIME_DIR/{name} or {SHARED_FOLDER}/{name}.",
            rse=self.rse,
        )

    def _file(self, path: str, *, only_own: bool) -> TokenFile:
        key = (path, only_own)
        if key not in self._files:
            self._files[key] = TokenFile(path, rse=self.rse, only_own=only_own)
        return self._files[key]


def expiry_of(token: str) -> float | None:
    """When a JSON Web Token runs out, by its own word, in seconds since 1970; None for a token that does not say.

    Nothing is verified: it is the storage that has to believe the token.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expiry = claims.get("exp")
    except (ValueError, binascii.Error, AttributeError, RecursionError):
        return None
    return float(expiry) if isinstance(expiry, int | float) and not isinstance(expiry, bool) else None
