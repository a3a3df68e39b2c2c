"""What FastAPI does not see of a route, for the OpenAPI document.

Bodies are read as bytes and parsed by `arriero.registry.dependencies.parse`, whatever content type was sent: each route
that reads one says its shape with ``openapi_extra=sends(Model)``. That a route answers with lines is
read from what its function is annotated to return. Errors look the same everywhere.
"""

from collections.abc import Iterator, Sequence
from typing import Any, get_type_hints

from fastapi.dependencies.models import Dependant
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from pydantic import BaseModel, Field, TypeAdapter
from starlette.routing import BaseRoute

from arriero.registry.api.streams import STREAM_TYPE
from arriero.registry.dependencies import get_actor, read_body

_REFERENCE = "#/components/schemas/{model}"

SECURITY: dict[str, Any] = {"security": [{"token": []}, {"bearer": []}]}
"""Of an operation that asks who is calling; for ``openapi_extra`` where that is not done by `get_actor`."""

_SCHEMES = {
    "token": {"type": "apiKey", "in": "header", "name": "X-Rucio-Auth-Token"},
    "bearer": {"type": "http", "scheme": "bearer"},
}

_definitions: dict[str, Any] = {}


class Error(BaseModel):
    """Why a call was refused or failed."""

    ExceptionClass: str = Field(description="Class that the official Rucio client raises.")
    ExceptionMessage: str = Field(description="What, why, and what to do next.")
    code: str = Field(description="Stable word for programs.")
    retryable: bool = Field(description="Whether the same call may succeed later.")


def sends(model: Any, *, required: bool = True) -> dict[str, Any]:
    """Describe the body of a route.

    Parameters
    ----------
    model
        A type that pydantic knows, or an adapter of one.
    required
        False where the route does without a body too.

    Returns
    -------
    dict
        For ``openapi_extra``.

    Raises
    ------
    ValueError
        Another shape has the name of one of those within it: one of the two has to be renamed.
    """
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    schema = adapter.json_schema(ref_template=_REFERENCE)
    for name, definition in schema.pop("$defs", {}).items():
        if _definitions.setdefault(name, definition) != definition:
            raise ValueError(f"two shapes of bodies are called {name}: rename one")
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def complete(document: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """Put into an OpenAPI document what FastAPI left out.

    Parameters
    ----------
    document
        As FastAPI made it; changed in place.
    routes
        Of the application that it describes.
    """
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas.update(_definitions)
    schemas["Error"] = Error.model_json_schema(ref_template=_REFERENCE)
    components["securitySchemes"] = _SCHEMES
    components["responses"] = {"Error": _error_answer()}
    for route in served(routes):
        if route.include_in_schema:
            for method in route.methods or ():
                operation = document["paths"][route.path_format][method.lower()]
                if _depends_on(route.dependant, get_actor):
                    operation.update(SECURITY)
                operation["responses"] = _answers(route)


def served(routes: Sequence[BaseRoute]) -> Iterator[RouteContext]:
    """Each route of ours, wherever it was included, with what its routers add to it."""
    return (route for route in iter_route_contexts(routes) if isinstance(route.original_route, APIRoute))


def reads_a_body(route: RouteContext) -> bool:
    """Whether the route takes the body that was sent."""
    return _depends_on(route.dependant, read_body)


def _answers(route: RouteContext) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done."}
    returned = get_type_hints(route.endpoint).get("return")
    if isinstance(returned, type) and issubclass(returned, StreamingResponse):
        answer = {"description": "One value a line.", "content": {STREAM_TYPE: {"schema": {}}}}
    error = {"$ref": "#/components/responses/Error"}
    others = {str(code): said for code, said in route.responses.items()}
    return {str(route.status_code or 200): answer, **others, "4XX": error, "501": error, "503": error}


def _error_answer() -> dict[str, Any]:
    text = {"required": True, "schema": {"type": "string"}}
    return {
        "description": "Refused (4xx); not in Arriero (501); not now (503).",
        "headers": {"ExceptionClass": text, "ExceptionMessage": text},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _depends_on(dependant: Dependant, function: object) -> bool:
    return dependant.call is function or any(_depends_on(below, function) for below in dependant.dependencies)
