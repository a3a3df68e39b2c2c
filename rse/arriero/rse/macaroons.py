"""Macaroons: tokens that a storage makes for one path, a few actions and a short time, when it is asked.

So whoever copies a file to or from it gets no more than that file (dCache, XRootD with its plugin, StoRM).
"""

from __future__ import annotations

import json
import time

from arriero.rse.davserver import DavServer
from arriero.rse.errors import RSEError, Unsupported
from arriero.rse.tokens import TOKEN

READING = "DOWNLOAD,LIST"
WRITING = "UPLOAD,LIST"

LEAST_SECONDS = 3600
"""Each is good for an hour, and longer only for a file that may take longer."""

REFUSAL_SECONDS = 600.0
"""How long a storage is not asked again that gives none."""

_NEVER = frozenset({400, 404, 405, 415, 501})


class MacaroonIssuer:
    """Asks one storage for macaroons."""

    def __init__(self, server: DavServer) -> None:
        self._server = server
        self._rse = server.endpoint.rse
        self._refused_until = 0.0

    def request(self, path: str, *, writes: bool, seconds: float) -> str:
        """Get a macaroon for one file.

        Parameters
        ----------
        path
            The file.
        writes
            Whether it is to be written; otherwise it is only read.
        seconds
            How long it has to be good.

        Raises
        ------
        Unsupported
            If this storage gives none.
        AccessDenied
            If it does not give one to us.
        """
        if time.monotonic() < self._refused_until:
            raise self._none("gave none a while ago")
        minutes = max(LEAST_SECONDS, int(seconds) + 59) // 60
        order = {
            "caveats": [f"activity:{WRITING if writes else READING}"],
            "validity": f"PT{minutes}M",
        }
        try:
            answer = self._server.request(
                "macaroon",
                self._server.url_path(path),
                path,
                data=json.dumps(order).encode(),
                headers={"Content-Type": "application/macaroon-request"},
            )
        except RSEError as error:
            if error.status not in _NEVER:
                raise
            self._refused_until = time.monotonic() + REFUSAL_SECONDS
            raise self._none(f"answers {error.status}") from error
        return self._token_in(answer.content)

    def _token_in(self, content: bytes) -> str:
        try:
            token = json.loads(content)["macaroon"]
        except (ValueError, KeyError, TypeError, RecursionError):
            token = ""
        if not isinstance(token, str) or TOKEN.fullmatch(token) is None:
            raise self._none("answers something else")
        return token

    def _none(self, why: str) -> Unsupported:
        return Unsupported(
            f"{self._rse}: asked for a macaroon, this storage {why}; "
            "take gives_macaroons from its credential reference, or have it switched on there.",
            rse=self._rse,
        )
