"""What opens one RSE: found where its endpoint refers to, given for one request, kept nowhere.

Nothing here shows a secret: neither a `repr` nor an error has one.
"""

from __future__ import annotations

import base64
from pathlib import Path

from arriero.rse.errors import AccessDenied, Unsupported
from arriero.rse.tokens import DiscoveredToken, TokenFile, TokenSource
from arriero.rse.types import Endpoint


class Credentials:
    """What opens one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._rse = endpoint.rse
        self._token: TokenSource | None = None
        self._password: Path | None = None
        if endpoint.token_file is not None:
            self._token = TokenFile(endpoint.token_file, rse=endpoint.rse)
        elif endpoint.finds_token:
            self._token = DiscoveredToken(rse=endpoint.rse)
        elif endpoint.password_file is not None:
            self._password = Path(endpoint.password_file)
        self._has_certificate = endpoint.certificate_file is not None

    @property
    def are_needed(self) -> bool:
        """Whether there are any."""
        return self._token is not None or self._password is not None or self._has_certificate

    def authorization(self) -> str | None:
        """Give the value of `Authorization` for a request now; None where a certificate or nothing is needed.

        Raises
        ------
        AccessDenied
            If it cannot be found.
        TokenExpired
            If it has run out.
        """
        if self._token is not None:
            return f"Bearer {self._token.read()}"
        if self._password is not None:
            return f"Basic {self._encoded_password(self._password)}"
        return None

    def to_hand_on(self) -> str | None:
        """Give what another storage may be handed; None where nothing is needed.

        Raises
        ------
        Unsupported
            If they are a password or a certificate, which are for us alone.
        AccessDenied, TokenExpired
            As `authorization`.
        """
        if self._token is not None:
            return self.authorization()
        if self.are_needed:
            kind = "a password" if self._password is not None else "a certificate"
            raise Unsupported(
                f"{self._rse}: its credentials are {kind}, which is not handed on to another storage; "
                "give it a token, or have it give macaroons.",
                rse=self._rse,
            )
        return None

    def _encoded_password(self, path: Path) -> str:
        try:
            text = path.read_bytes()[:4_096].decode("utf-8", "replace").strip("\r\n")
        except OSError as error:
            raise AccessDenied(
                f"RSE {self._rse}: password file {path} cannot be read ({error.strerror}); "
                "write user:password there, or correct the RSE's credential reference.",
                rse=self._rse,
            ) from error
        if ":" not in text or not text.isprintable():
            raise AccessDenied(
                f"RSE {self._rse}: password file {path} does not hold user:password; write it anew.",
                rse=self._rse,
            )
        return base64.b64encode(text.encode()).decode("ascii")
