"""What happens to every request before FastAPI sees it, and to every answer after.

Names contain ``/``. The official client sends them through ``quote_plus``: ``%2F`` is part of a name, and ``+`` is a
space. Routing therefore works on the path as it was sent, and `arriero.registry.dependencies.PathText` decodes a
segment once it is known to be one.
"""

import re
import uuid
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arriero.registry.errors import TooLarge

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
    """Raw path, request id, body limit and security headers, in one pass.

    Parameters
    ----------
    max_body_bytes
        Largest body that is read; a longer one is refused as soon as it shows.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

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

        await self._app(scope, self._limited(receive, headers), send_with_headers)

    def _limited(self, receive: Receive, headers: dict[bytes, bytes]) -> Receive:
        declared = headers.get(b"content-length", b"0")
        too_long = declared.isdigit() and int(declared) > self._max_body_bytes
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            if too_long:
                raise self._refusal()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise self._refusal()
            return message

        return receive_within_limit

    def _refusal(self) -> TooLarge:
        return TooLarge(f"the body is larger than {self._max_body_bytes} bytes: send less in one call")


def _request_id(sent: bytes | None) -> str:
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return uuid.uuid4().hex


def _path_as_sent(scope: Scope) -> str:
    raw: Any = scope.get("raw_path")
    path: str = scope["path"] if raw is None else raw.decode("latin-1").partition("?")[0]
    return path.rstrip("/") or "/"
