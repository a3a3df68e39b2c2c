"""The OpenAPI document of the registry, and every call that it promises: what tests of all routes are made from."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastapi import FastAPI

from arriero.registry.app import create_app
from arriero.registry.database import Database
from arriero.registry.ports import SilentDoorbell
from arriero.registry.services.context import Context
from arriero.registry.settings import Settings
from support.access import ACCESS

Path = tuple[str | int, ...]
"""Keys and indexes that lead to a value within a body."""

NEW_KEY = "key"
"""Stands for a key of an object that may have any."""


@cache
def app() -> FastAPI:
    """The application, of which nothing is asked but what it serves."""
    # nothing is ever read of this database
    return create_app(Context(Database("sqlite:///unread.db"), Settings(), SilentDoorbell()))


@cache
def document() -> dict[str, Any]:
    """The document as it is served."""
    made: dict[str, Any] = json.loads(json.dumps(app().openapi()))
    return made


@dataclass(frozen=True)
class Operation:
    """One call that the document promises."""

    method: str
    path: str
    said: dict[str, Any]

    @property
    def route(self) -> tuple[str, str]:
        """Key of the call in the access matrix."""
        return BY_DOCUMENTED[self.method, self.path]

    @property
    def queries(self) -> list[str]:
        return [one["name"] for one in self.said.get("parameters", ()) if one["in"] == "query"]

    @property
    def body(self) -> dict[str, Any] | None:
        """Schema of the body."""
        if "requestBody" not in self.said:
            return None
        schema: dict[str, Any] = self.said["requestBody"]["content"]["application/json"]["schema"]
        return schema

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def documented(route: tuple[str, str]) -> tuple[str, str]:
    """How the document calls a route."""
    return route[0], route[1].replace(":path}", "}")


BY_DOCUMENTED = {documented(route): route for route in ACCESS}


def operations() -> list[Operation]:
    """Every call of the document."""
    return [
        Operation(method.upper(), path, said)
        for path, item in document()["paths"].items()
        for method, said in item.items()
    ]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Follow references, and take the alternative that is not null."""
    while True:
        if "$ref" in schema:
            schema = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema:
            schema = next(one for one in schema["anyOf"] if one.get("type") != "null")
        else:
            return schema


def example(schema: dict[str, Any]) -> Any:
    """The least that satisfies a schema, as far as types go."""
    schema = resolved(schema)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {
                name: example(properties[name]) for name in schema.get("required", ()) if name in properties
            }
        case "array":
            if "prefixItems" in schema:
                return [example(one) for one in schema["prefixItems"]]
            return [example(schema["items"])] * schema.get("minItems", 0)
        case "integer" | "number":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "x"


def texts(schema: dict[str, Any], at: Path = ()) -> Iterator[Path]:
    """Where a body of this schema may hold a text: its fields, items of lists, values and names of free keys."""
    schema = resolved(schema)
    kind = schema.get("type")
    if kind == "object":
        for name, below in schema.get("properties", {}).items():
            yield from texts(below, (*at, name))
        if schema.get("additionalProperties", not schema.get("properties")):
            yield (*at, NEW_KEY)
    elif kind == "array":
        yield from texts(schema.get("items", {}), (*at, 0))
    elif kind in {"string", None}:
        yield at


def lists(schema: dict[str, Any], at: Path = ()) -> Iterator[Path]:
    """Where a body of this schema may hold a list."""
    schema = resolved(schema)
    if schema.get("type") == "object":
        for name, below in schema.get("properties", {}).items():
            yield from lists(below, (*at, name))
    elif schema.get("type") == "array":
        yield at
        yield from lists(schema.get("items", {}), (*at, 0))


def with_value(schema: dict[str, Any], body: Any, path: Path, value: Any) -> Any:
    """Copy a body with a value at a path, making what leads there as the schema wants it."""
    schema = resolved(schema)
    if not path:
        return value
    step, *rest = path
    if isinstance(step, int):
        made = copy.deepcopy(body) if isinstance(body, list) else []
        below = schema.get("items", {})
        if not made:
            made.append(example(below))
        made[step] = with_value(below, made[step], tuple(rest), value)
        return made
    made = copy.deepcopy(body) if isinstance(body, dict) else example(schema)
    properties = schema.get("properties", {})
    below = properties.get(step, {})
    made[step] = with_value(below, made[step] if step in made else example(below), tuple(rest), value)
    return made


def variables(path: str) -> list[str]:
    """Names of the variable parts of a path."""
    return re.findall(r"{(\w+)(?::path)?}", path)


def filled(template: str, example_path: str) -> dict[str, str]:
    """What the variable parts of a path are in an example of it."""
    pattern = re.sub(r"{(\w+):path}", r"(?P<\1>.+)", template)
    pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", pattern)
    found = re.fullmatch(pattern, example_path.partition("?")[0])
    assert found is not None, (template, example_path)
    return found.groupdict()
