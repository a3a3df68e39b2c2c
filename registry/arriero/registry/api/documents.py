"""What a route reads, for the OpenAPI document.

Bodies are read as bytes and parsed by `arriero.registry.dependencies.parse`, whatever content type was sent, so FastAPI
does not see their shapes: each route that reads one says it with ``openapi_extra=sends(Model)``.
"""

from typing import Any

from pydantic import TypeAdapter

_REFERENCE = "#/components/schemas/{model}"

_definitions: dict[str, Any] = {}


def sends(model: Any) -> dict[str, Any]:
    """Describe the body of a route.

    Parameters
    ----------
    model
        A type that pydantic knows, or an adapter of one.

    Returns
    -------
    dict
        For ``openapi_extra``.
    """
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    schema = adapter.json_schema(ref_template=_REFERENCE)
    _definitions.update(schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def add_definitions(document: dict[str, Any]) -> None:
    """Put the shapes that bodies refer to into an OpenAPI document."""
    document.setdefault("components", {}).setdefault("schemas", {}).update(_definitions)
