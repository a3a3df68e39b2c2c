"""How an error looks on the wire: a status, Rucio's headers, and a body that says the same with our stable code.

For what refuses before there is a route (`arriero.registry.api.middleware`) and for what refuses after
(`arriero.registry.api.failures`). It must not know why.
"""

from fastapi.responses import Response

from arriero.registry.api.streams import json_response
from arriero.registry.errors import RegistryError

_MAX_HEADER_CHARACTERS = 1000

_BODY_LEFT_UNREAD = frozenset({408, 413})
"""After these the rest of the body may still come: it must not be taken for the next call."""


def refusal(status: int, rucio_class: str, message: str, *, code: str, retryable: bool) -> Response:
    """Answer with an error.

    Parameters
    ----------
    rucio_class
        What the official client raises.
    code
        Ours, stable.
    retryable
        Whether the same call may succeed later.
    """
    headers = {"ExceptionClass": rucio_class, "ExceptionMessage": _header_safe(message)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in _BODY_LEFT_UNREAD:
        headers["Connection"] = "close"
    body = {"ExceptionClass": rucio_class, "ExceptionMessage": message, "code": code, "retryable": retryable}
    return json_response(body, status, headers)


def refusal_of(error: RegistryError) -> Response:
    """Answer with an error of the registry."""
    return refusal(
        error.http_status,
        error.rucio_class,
        error.message,
        code=error.stable_code,
        retryable=error.retryable,
    )


def _header_safe(message: str) -> str:
    printable = "".join(c if " " <= c <= "~" else "?" if c.isprintable() else " " for c in message)
    # a blank at either end is no value of a header: the server would break the call off
    return printable[:_MAX_HEADER_CHARACTERS].strip()
