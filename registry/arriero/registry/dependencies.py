"""What routes ask for: the process's context, who is calling, decoded names, and bodies of any content type.

The official client sends JSON without saying so, hence bodies are read as bytes and parsed by `parse`.
"""

from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_plus

from fastapi import Depends, Path, Request
from pydantic import AfterValidator, TypeAdapter, ValidationError

from arriero.registry.errors import InvalidInput
from arriero.registry.services.authentication import authenticate
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.names import holds_null_character

T = TypeVar("T")

MAX_JSON_DEPTH = 200
"""Lists and objects within each other in a body: what pydantic's reader of JSON goes down to."""


def get_context(request: Request) -> Context:
    """Give the services' context of this process."""
    context: Context = request.app.state.context
    return context


def get_actor(request: Request, context: Annotated[Context, Depends(get_context)]) -> Actor:
    """Tell who is calling, by ``X-Rucio-Auth-Token`` or ``Authorization: Bearer``.

    Raises
    ------
    NotAuthenticated
        Neither is there, or it does not hold.
    """
    return authenticate(context, sent_token(request), request_id=request.state.request_id)


def sent_token(request: Request) -> str | None:
    """Give the token that came with a request."""
    token = request.headers.get("x-rucio-auth-token")
    if token:
        return token
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else None


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
        return adapter.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if "recursion limit" in first["msg"]:
            raise InvalidInput(f"the body is nested more than {MAX_JSON_DEPTH} levels deep") from error
        raise InvalidInput(f"{_place(first)}{first['msg']}") from error


def _place(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: " if place else "the body cannot be read: "


ContextDep = Annotated[Context, Depends(get_context)]
ActorDep = Annotated[Actor, Depends(get_actor)]
BodyDep = Annotated[bytes, Depends(read_body)]
PathText = Annotated[str, Path(), AfterValidator(_decoded)]
"""A segment of the path, decoded. For a name declare the route as ``{name:path}``: it may hold bare slashes too."""
