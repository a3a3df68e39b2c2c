"""What an answer of a registry means: its JSON, its lines, or the error that it tells.

Pure but for reading the body. It must not send anything.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar

import httpx2

from arriero.registry.errors import (
    Busy,
    Conflict,
    HeadersTooLarge,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    RegistryError,
    TooLarge,
    TooSlow,
    Unsupported,
    UriTooLong,
)

STREAM_TYPE = "application/x-json-stream"
"""Content type of lists, one JSON value a line."""

_CLASSES: tuple[type[RegistryError], ...] = (
    NotFound,
    Conflict,
    InvalidInput,
    NotAuthenticated,
    NotAllowed,
    Busy,
    TooLarge,
    UriTooLong,
    HeadersTooLarge,
    TooSlow,
    Unsupported,
)
_BY_CODE: Mapping[str, type[RegistryError]] = {cls.code: cls for cls in _CLASSES}
_BY_STATUS: Mapping[int, type[RegistryError]] = {
    **{cls.http_status: cls for cls in _CLASSES},
    405: InvalidInput,
    406: InvalidInput,
    422: InvalidInput,
    429: Busy,
    502: Busy,
    504: Busy,
}


class Unreachable(Busy):
    """No answer came from the registry."""

    code: ClassVar[str] = "registry_unreachable"


class UnexpectedAnswer(RegistryError):
    """What answered does not speak as a registry."""

    code: ClassVar[str] = "unexpected_answer"


def unreachable(url: str, error: Exception) -> RegistryError:
    """Say why there was no answer, and what to do."""
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return InvalidInput(f"{url!r} is not the URL of a registry: set ARRIERO_URL to http(s)://HOST:PORT.")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Unreachable(
            f"The certificate of {url} is not trusted: set ARRIERO_CA_BUNDLE to the file of its authority."
        )
    return Unreachable(
        f"No answer from the registry at {url} ({type(error).__name__}): "
        "check ARRIERO_URL and that the service runs, then try again."
    )


def read_whole(response: httpx2.Response, url: str) -> None:
    """Read the body of an answer.

    Raises
    ------
    Unreachable
        It broke off.
    """
    try:
        response.read()
    except httpx2.TransportError as error:
        response.close()
        raise Unreachable(
            f"The answer of {url} broke off ({type(error).__name__}): look before repeating."
        ) from error


def decoded(response: httpx2.Response) -> Any:
    """JSON of an answer that has been read, None where it has none.

    Raises
    ------
    UnexpectedAnswer
        It is something else.
    """
    text = response.content
    if not text:
        return None
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind == STREAM_TYPE:
        return [json.loads(line) for line in text.split(b"\n") if line]
    try:
        return json.loads(text)
    except ValueError as error:
        if response.status_code == 201:  # Rucio's "Created" as plain text
            return None
        raise UnexpectedAnswer(
            f"{response.request.url.host} answered with {kind or 'something'} that is not JSON: "
            "is ARRIERO_URL a registry?"
        ) from error


def lines_of(response: httpx2.Response) -> Iterator[Any]:
    """Yield the JSON values of an NDJSON body; only a line feed ends one (names may hold U+2028 or U+0085)."""
    rest = b""
    for piece in response.iter_bytes():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line:
                yield json.loads(line)
    if rest:
        yield json.loads(rest)


def error_of(response: httpx2.Response) -> RegistryError:
    """Build the error that the registry meant, from the code in its body, Rucio's headers, or the status alone."""
    body: Any = None
    with suppress(ValueError, httpx2.ResponseNotRead):
        body = json.loads(response.content)
    told: dict[str, Any] = body if isinstance(body, dict) else {}
    nested = told.get("error")
    if isinstance(nested, dict):
        told = {**told, **nested}
    code = told.get("code")
    rucio_class = told.get("ExceptionClass") or response.headers.get("ExceptionClass")
    message = told.get("message") or told.get("ExceptionMessage") or response.headers.get("ExceptionMessage")
    status = response.status_code
    if not message and (code or rucio_class) is None:
        return (
            UnexpectedAnswer(
                f"{response.request.url.host} answered {status} to {response.request.method} "
                f"{response.request.url.path}: is ARRIERO_URL a registry?"
            )
            if status not in _BY_STATUS
            else _BY_STATUS[status](f"The registry answered {status}.")
        )
    cls = _BY_CODE.get(str(code)) or _BY_STATUS.get(status, RegistryError)
    return cls(
        str(message or f"The registry answered {status}."),
        rucio_class=str(rucio_class) if rucio_class else None,
        code=str(code) if code else None,
    )
