"""One HTTP conversation with a registry: who we are, what is tried again, and what an error is called.

The only module of the client that knows HTTP. It must not know what the calls mean. Thread-safe.
"""

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote_plus

import httpx2
import structlog

from arriero.registry.calls.answers import (
    STREAM_TYPE,
    UnexpectedAnswer,
    Unreachable,
    decoded,
    error_of,
    lines_of,
    read_whole,
    unreachable,
)
from arriero.registry.errors import InvalidInput, NotAuthenticated

log = structlog.get_logger(__name__)

TOKEN_HEADER = "X-Rucio-Auth-Token"  # noqa: S105 - the name of a header
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_AWAY = frozenset({502, 503, 504})
_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.25
_KEEPALIVE_S = 2.0
"""Shorter than uvicorn's 5 s: a POST must not go out on a connection that the server is closing."""


class Transport:
    """Requests to one registry.

    Parameters
    ----------
    url
        Base URL of the registry.
    token
        A token that is ready for use.
    token_file
        File that holds the token; read again when the registry refuses the one in use, so that it can be renewed.
    account, username, password
        For a login with a password; done at the first call that needs it, and again when the session has ended.
    ca_bundle
        File with the certificate authorities to trust; the system's when None.
    timeout
        Longest silence of the registry, seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        token_file: Path | None = None,
        account: str | None = None,
        username: str | None = None,
        password: str | None = None,
        ca_bundle: Path | None = None,
        timeout: float = 60,
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._token_file = token_file
        self._account = account
        self._username = username
        self._password = password
        self._login_lock = threading.Lock()
        self._timeout = timeout
        self._http = httpx2.Client(
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 10)),
            verify=_trust(self.url, ca_bundle),
            limits=httpx2.Limits(keepalive_expiry=_KEEPALIVE_S),
            headers={"User-Agent": "arriero"},
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- for the modules beside this one --

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool | None = None,
        anonymous: bool = False,
        wait_s: float = 0,
    ) -> Any:
        """Make a call; return the decoded JSON of its answer, None when there is none.

        Parameters
        ----------
        method, path
            The path is quoted already, with `segments`.
        body
            Sent as JSON.
        params
            Query; those that are None are left out.
        idempotent
            Whether the call may be repeated when it is not known whether it arrived; by default, from the method.
        anonymous
            Without a token.
        wait_s
            How long the registry may keep silent on top of the usual, seconds.
        """
        response = self._send(
            method, path, body, params, idempotent=idempotent, anonymous=anonymous, wait_s=wait_s
        )
        try:
            return decoded(response)
        finally:
            response.close()

    def _stream(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, Any] | None = None,
        wait_s: float = 0,
    ) -> Iterator[Any]:
        """Make a call that answers with a list; yield its items as they come. The call begins with the first."""
        response = self._send(method, path, body, params, idempotent=True, stream=True, wait_s=wait_s)
        try:
            kind = response.headers.get("content-type", "").partition(";")[0]
            if kind == STREAM_TYPE:
                yield from lines_of(response)
                return
            response.read()
            items = decoded(response)
        except httpx2.TransportError as error:
            raise Unreachable(
                f"The answer of {self.url} broke off ({type(error).__name__}): run the command again."
            ) from error
        finally:
            response.close()
        yield from items if isinstance(items, list) else [] if items is None else [items]

    # -- how --

    def _send(
        self,
        method: str,
        path: str,
        body: object,
        params: Mapping[str, Any] | None,
        *,
        idempotent: bool | None = None,
        anonymous: bool = False,
        stream: bool = False,
        wait_s: float = 0,
    ) -> httpx2.Response:
        repeatable = method in _IDEMPOTENT if idempotent is None else idempotent
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        query = {key: value for key, value in (params or {}).items() if value is not None}
        token = None if anonymous else self._current_token()
        for _ in range(2):
            request = self._http.build_request(
                method,
                f"{self.url}{path}",
                content=content,
                params=query or None,
                headers=self._headers(token, content),
                timeout=httpx2.Timeout(self._timeout + wait_s, connect=min(self._timeout, 10)),
            )
            response = self._exchange(request, repeatable=repeatable)
            if response.status_code == 401 and not anonymous and (renewed := self._renewed_token(token)):
                response.close()
                token = renewed
                continue
            break
        if response.is_success:
            if not stream:
                read_whole(response, self.url)
            return response
        try:
            with suppress(httpx2.TransportError):
                response.read()
            raise error_of(response)
        finally:
            response.close()

    def _exchange(self, request: httpx2.Request, *, repeatable: bool) -> httpx2.Response:
        """Send, and send again where nothing can have happened twice."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = self._http.send(request, stream=True)
            except (httpx2.TransportError, httpx2.InvalidURL) as error:
                never_sent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                if attempt == _ATTEMPTS or not (repeatable or never_sent):
                    raise unreachable(self.url, error) from error
                cause = type(error).__name__
            else:
                if response.status_code not in _AWAY or not repeatable or attempt == _ATTEMPTS:
                    return response
                response.close()
                cause = str(response.status_code)
            log.debug("call repeated", method=request.method, cause=cause, attempt=attempt)
            time.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        raise AssertionError("unreachable")

    @staticmethod
    def _headers(token: str | None, content: bytes | None) -> dict[str, str]:
        headers = {"Accept": f"{STREAM_TYPE}, application/json"}
        if token is not None:
            headers[TOKEN_HEADER] = token
        if content is not None:
            headers["Content-Type"] = "application/json"
        return headers

    def _current_token(self) -> str:
        if self._token is None:
            with self._login_lock:
                if self._token is None:
                    self._token = self._fresh_token()
        return self._token

    def _renewed_token(self, refused: str | None) -> str | None:
        """Return a token other than the one that was refused, None when there is no way to one."""
        with self._login_lock:
            if self._token != refused:
                return self._token
            if self._token_file is None and self._password is None:
                return None
            fresh = self._fresh_token()
            self._token = fresh
            return fresh if fresh != refused else None

    def _fresh_token(self) -> str:
        if self._token_file is not None:
            try:
                return self._token_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise NotAuthenticated(
                    f"The token file {self._token_file} cannot be read ({error.strerror}); make a token with "
                    "'arriero token create'."
                ) from error
        if self._username is None or self._password is None:
            raise NotAuthenticated(
                "No credentials: set ARRIERO_TOKEN_FILE, or ARRIERO_USERNAME and ARRIERO_PASSWORD_FILE."
            )
        return self._login(self._username, self._password)

    def _login(self, username: str, password: str) -> str:
        headers = {"X-Rucio-Username": username, "X-Rucio-Password": password}
        if self._account is not None:
            headers["X-Rucio-Account"] = self._account
        request = self._http.build_request("GET", f"{self.url}/auth/userpass", headers=headers)
        response = self._exchange(request, repeatable=True)
        try:
            with suppress(httpx2.TransportError):
                response.read()
            if not response.is_success:
                raise error_of(response)
        finally:
            response.close()
        token = response.headers.get(TOKEN_HEADER)
        if not token:
            raise UnexpectedAnswer(f"{self.url} gave no token at login: is ARRIERO_URL a registry?")
        return str(token)


def segments(*parts: str) -> str:
    """Path of a call: each part is one segment, quoted as Rucio's clients do (``/`` is ``%2F``, a space is ``+``)."""
    return "".join(f"/{_quoted(part)}" for part in parts)


def _quoted(part: str) -> str:
    # dots alone would be folded away by whatever lies between
    return part.replace(".", "%2E") if part in {".", ".."} else quote_plus(part)


def _trust(url: str, ca_bundle: Path | None) -> Any:
    import ssl

    if ca_bundle is None:
        # without TLS there is nobody to trust: reading the system's certificates takes longer than a call
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if url.startswith("http:") else True
    try:
        return ssl.create_default_context(
            cafile=None if ca_bundle.is_dir() else str(ca_bundle),
            capath=str(ca_bundle) if ca_bundle.is_dir() else None,
        )
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"The CA bundle {ca_bundle} cannot be used ({error}): check ARRIERO_CA_BUNDLE."
        ) from error
