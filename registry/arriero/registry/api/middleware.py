"""What happens to every request before FastAPI sees it, and to every answer after.

Names contain ``/``. The official client sends them through ``quote_plus``: ``%2F`` is part of a name, and ``+`` is a
space. Routing therefore works on the path as it was sent, and `arriero.registry.dependencies.PathText` decodes a
segment once it is known to be one.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arriero.registry.api.refusals import refusal_of
from arriero.registry.errors import HeadersTooLarge, RegistryError, TooLarge, TooSlow, UriTooLong

MAX_PATH_BYTES = 8192
"""As sent: the longest name of a DID, percent-encoded, fits with what stands before and after it."""

MAX_QUERY_BYTES = 8192
"""As sent."""

MAX_HEADER_BYTES = 32_768
"""Names and values of all headers together."""

_BYTES_A_SECOND = 64 * 1024
"""Slowest pace of a body that is worth waiting for."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")

_CONTENT_POLICY = (
    b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'"
)

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", _CONTENT_POLICY),
)

_OWN_CACHING = ("/ui/static/",)
"""Paths that say themselves how long they may be kept."""


def headers_of_every_answer(request_id: str) -> list[tuple[bytes, bytes]]:
    """Headers of safety, and the id under which the log has the call."""
    return [*_SECURITY_HEADERS, (b"x-request-id", request_id.encode())]


class RequestMiddleware:
    """Raw path, request id, limits and security headers, in one pass.

    Parameters
    ----------
    max_body_bytes
        Largest body that is read; a longer one is refused as soon as it shows.
    body_timeout_s
        How long a body may take to come, seconds, with a second more for each 64 KiB that have come.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, body_timeout_s: float) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        path = _path_as_sent(scope)
        # in place: what catches unexpected failures stands outside of this and wants to name them
        scope.setdefault("state", {})["request_id"] = request_id
        scope = {**scope, "path": path}
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        extra = headers_of_every_answer(request_id)
        if not path.startswith(_OWN_CACHING):
            extra.append((b"cache-control", b"no-store"))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [header for header in extra if header[0] not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        if (refused := _oversized(scope, path)) is not None:
            await refusal_of(refused)(scope, receive, send_with_headers)
            return
        await self._app(scope, self._limited(receive, headers), send_with_headers)

    def _limited(self, receive: Receive, headers: Mapping[bytes, bytes]) -> Receive:
        declared = headers.get(b"content-length", b"0")
        too_long = declared.isdigit() and int(declared) > self._max_body_bytes
        waited_s = 0.0
        received = 0
        is_whole = False

        async def receive_within_limits() -> Message:
            nonlocal waited_s, received, is_whole
            if too_long:
                raise self._too_large()
            if is_whole:
                # from here on it only tells when the caller goes away
                return await receive()
            begun = time.monotonic()
            try:
                async with asyncio.timeout(self._body_timeout_s + received / _BYTES_A_SECOND - waited_s):
                    message = await receive()
            except TimeoutError as error:
                raise self._too_slow() from error
            # the time that we take ourselves between two pieces is not the caller's
            waited_s += time.monotonic() - begun
            received += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if received > self._max_body_bytes:
                raise self._too_large()
            return message

        return receive_within_limits

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is larger than {self._max_body_bytes} bytes: send less in one call")

    def _too_slow(self) -> TooSlow:
        return TooSlow(
            f"the body did not come within {self._body_timeout_s:g} s, and a second more for each "
            f"{_BYTES_A_SECOND} bytes: send it faster, or less in one call"
        )


def _oversized(scope: Scope, path: str) -> RegistryError | None:
    if len(path) > MAX_PATH_BYTES:
        return UriTooLong(f"the path is longer than {MAX_PATH_BYTES} bytes: no name is")
    if len(scope["query_string"]) > MAX_QUERY_BYTES:
        return UriTooLong(f"the query is longer than {MAX_QUERY_BYTES} bytes: ask for less in one call")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return HeadersTooLarge(f"the headers hold more than {MAX_HEADER_BYTES} bytes")
    return None


def _request_id(sent: bytes | None) -> str:
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return uuid.uuid4().hex


def _path_as_sent(scope: Scope) -> str:
    raw: Any = scope.get("raw_path")
    path: str = scope["path"] if raw is None else raw.decode("latin-1").partition("?")[0]
    return path.rstrip("/") or "/"
