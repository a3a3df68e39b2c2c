"""What routes ask for: the process's context, who is calling, decoded names, and bodies of any content type.

The official client sends JSON without saying so, hence bodies are read as bytes and parsed by `parse`.
"""

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_plus

from fastapi import Depends, Path, Request
from pydantic import AfterValidator, TypeAdapter, ValidationError

from arriero.registry.errors import InvalidInput, NoCredential, NotAuthenticated
from arriero.registry.services.authentication import authenticate
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.names import holds_null_character
from arriero.registry.services.x509_subjects import owner_of, subject_of
from arriero.registry.settings import Settings

T = TypeVar("T")

_FLATTENED = bytes.maketrans(b"123456789E", b"000000000e")

_SUSPICIOUS = tuple(
    re.compile(pattern)
    for pattern in (rb"0000000000000000000+[,.\s\]}e]", rb"e000+[,\s\]}]", rb"e\+000+[,\s\]}]")
)
"""Numbers of 19 digits and exponents of three, in a body whose digits are all written as 0."""

MAX_JSON_DEPTH = 200
"""Lists and objects within each other in a body: what pydantic's reader of JSON goes down to."""


def get_context(request: Request) -> Context:
    """Give the services' context of this process."""
    context: Context = request.app.state.context
    return context


def get_actor(request: Request, context: Annotated[Context, Depends(get_context)]) -> Actor:
    """Tell who is calling, by ``X-Rucio-Auth-Token`` or ``Authorization: Bearer``; as whom, by ``X-Rucio-Account``.

    Raises
    ------
    NotAuthenticated
        Neither is there, or it does not hold.
    """
    return authenticate(
        context,
        sent_token(request),
        account=request.headers.get("x-rucio-account") or None,
        request_id=request.state.request_id,
    )


def sent_token(request: Request) -> str | None:
    """Give the token that came with a request."""
    token = request.headers.get("x-rucio-auth-token")
    if token:
        return token
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else None


def verified_subject(request: Request, settings: Settings, *, of_owner: bool) -> str:
    """Give the subject of the caller's certificate, if a proxy that is trusted has verified it and says so.

    Parameters
    ----------
    of_owner
        Of a grid proxy certificate give the subject that it stands for.

    Raises
    ------
    NoCredential
        The headers are not there, or come from somebody who is not trusted to send them.
    NotAuthenticated
        The certificate was not verified, or its subject cannot be read.
    """
    if not _is_from(request, settings.x509_proxies):
        raise NoCredential("certificates are read by the proxies of x509_proxies only: call by way of one")
    subject = _only(request, settings.x509_subject_header)
    verified = _only(request, settings.x509_verify_header)
    if subject in {"", "(null)"} or verified in {"", "NONE"}:
        raise NoCredential("there is no client certificate: send one to the proxy")
    if verified != "SUCCESS":
        raise NotAuthenticated("the proxy could not verify the client certificate")
    try:
        whose = subject_of(subject)
        if not of_owner:
            return whose
        issuer = _only(request, settings.x509_issuer_header)
        return owner_of(whose, subject_of(issuer)) if issuer else whose
    except InvalidInput as error:
        raise NotAuthenticated(f"the certificate's subject cannot be read: {error.message}") from error


def _is_from(request: Request, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        peer = ip_address(request.client.host if request.client is not None else "")
    except ValueError:
        return False
    if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
        peer = peer.ipv4_mapped
    return any(peer in network for network in networks)


def _only(request: Request, name: str) -> str:
    """Value of a header; one that came twice may be the caller's own, which the proxy let through."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise NotAuthenticated(f"header {name} came more than once: the proxy has to replace it")
    return values[0] if values else ""


def refuse_null_characters(request: Request) -> None:
    """Refuse a query with a null character: PostgreSQL takes none in a text.

    Raises
    ------
    InvalidInput
        There is one.
    """
    if b"%00" in request.scope["query_string"]:
        raise InvalidInput("the query holds a null character")


async def read_body(request: Request) -> bytes:
    """Read the whole body, within the limit that the middleware sets."""
    return await request.body()


def _decoded(segment: str) -> str:
    try:
        text = unquote_plus(segment, errors="strict")
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8 after decoding") from error
    if "\x00" in text:
        raise ValueError("contains a null character")
    return text


def _in_utc(instant: datetime) -> datetime:
    try:
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is before the year 1 or after the year 9999") from error


def parse(model: type[T] | TypeAdapter[T], body: bytes) -> T:
    """Read a body as JSON of a shape.

    Parameters
    ----------
    model
        A type that pydantic knows, or an adapter made beforehand (cheaper).

    Raises
    ------
    InvalidInput
        Names the first place that is wrong, and never repeats what was sent.
    """
    if holds_null_character(body):
        raise InvalidInput("the body holds a null character, which no text of the catalogue can")
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    try:
        read = adapter.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if "recursion limit" in first["msg"]:
            raise InvalidInput(f"the body is nested more than {MAX_JSON_DEPTH} levels deep") from error
        raise InvalidInput(f"{_place(first)}{first['msg']}") from error
    if _may_hold_a_wrong_number(body):
        json.loads(body, parse_int=_integer, parse_float=_fraction, parse_constant=_fraction)
    return read


def _may_hold_a_wrong_number(body: bytes) -> bool:
    """Whether to look closely. What any JSON may be would take such a number in, and could not give it out again."""
    if b"NaN" in body or b"Infinity" in body:
        return True
    # each with a beginning that is fixed: an expression that has to try every digit takes longer than reading the body
    flat = body.translate(_FLATTENED)
    return any(pattern.search(flat) is not None for pattern in _SUSPICIOUS)


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise InvalidInput("the body holds a whole number of more than 64 bits")
    return int(text)


def _fraction(text: str) -> float:
    if not math.isfinite(float(text)):
        raise InvalidInput("the body holds a number that is none (NaN), or not finite")
    return float(text)


def _place(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: " if place else "the body cannot be read: "


ContextDep = Annotated[Context, Depends(get_context)]
ActorDep = Annotated[Actor, Depends(get_actor)]
BodyDep = Annotated[bytes, Depends(read_body)]
PathText = Annotated[str, Path(), AfterValidator(_decoded)]
"""A segment of the path, decoded. For a name declare the route as ``{name:path}``: it may hold bare slashes too."""
Instant = Annotated[datetime, AfterValidator(_in_utc)]
"""An instant, in UTC; also sent as seconds since 1970. Where it has no zone it is of UTC."""
