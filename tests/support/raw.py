"""Sends calls as they are written, over one connection: no client's own ideas of paths, headers or bodies."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 when the server closed the connection before it had read everything."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """By names in lower case."""
    content: bytes = b""

    @property
    def is_failure(self) -> bool:
        """Whether the service failed; 501 is Rucio's word for what is not there."""
        return self.status >= 500 and self.status != 501


class Sender:
    """One connection to a registry."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.token = token
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        said = {} if self.token is None else {"X-Rucio-Auth-Token": self.token}
        try:
            self._connection.request(method, path, body, {**said, **(headers or {})})
            answered = self._connection.getresponse()
            content = answered.read()
        except (http.client.HTTPException, ConnectionError):
            self._connection.close()
            return Answer(0)
        if answered.will_close:
            self._connection.close()
        return Answer(
            answered.status, {name.lower(): value for name, value in answered.getheaders()}, content
        )

    def close(self) -> None:
        self._connection.close()
