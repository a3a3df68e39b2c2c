"""The OpenAPI document says of every call what it reads, who may make it, and what its errors look like."""

from __future__ import annotations

import pytest
import schemathesis
from pydantic import create_model

from arriero.registry.api import documents
from arriero.registry.api.documents import reads_a_body, sends, served
from support.access import ACCESS
from support.openapi import app, document, operations, variables

ROUTES = [route for route in served(app().routes) if route.include_in_schema]


def test_it_is_openapi_3_1():
    assert document()["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(document()).validate()


def test_every_reference_leads_somewhere():
    def look(value: object) -> None:
        if isinstance(value, dict):
            reference = value.get("$ref")
            if isinstance(reference, str):
                _, kind, group, name = reference.split("/")
                assert name in document()[kind][group], reference
            for below in value.values():
                look(below)
        elif isinstance(value, list):
            for below in value:
                look(below)

    look(document())


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{min(route.methods)} {route.path}")
def test_what_reads_a_body_says_its_shape(route):
    is_declared = "requestBody" in (route.openapi_extra or {})
    assert is_declared == reads_a_body(route), "declare it with openapi_extra=sends(MODEL)"


def test_every_call_is_named_once_and_its_parameters_are_typed():
    names = [operation.said["operationId"] for operation in operations()]
    assert len(names) == len(set(names))
    for operation in operations():
        assert operation.said.get("summary"), operation
        parameters = operation.said.get("parameters", [])
        in_path = {one["name"] for one in parameters if one["in"] == "path"}
        assert in_path == set(variables(operation.path)), operation
        for one in parameters:
            kinds = one["schema"].get("anyOf", [one["schema"]])
            assert all("type" in kind or "$ref" in kind or "const" in kind for kind in kinds), (
                operation,
                one,
            )


def test_every_call_says_how_it_fails_and_what_it_needs():
    error = document()["components"]["schemas"]["Error"]
    assert set(error["required"]) == {"ExceptionClass", "ExceptionMessage", "code", "retryable"}
    for operation in operations():
        responses = operation.said["responses"]
        assert responses["4XX"] == {"$ref": "#/components/responses/Error"}, operation
        assert [code for code in responses if code in {"200", "201", "202"}], operation
        assert "422" not in responses
        is_public = "nobody" in ACCESS[operation.route][0]
        if not operation.path.startswith("/auth/"):
            assert ("security" in operation.said) != is_public, operation
    assert set(document()["components"]["securitySchemes"]) == {"token", "bearer"}


def test_two_shapes_of_one_name_are_refused(monkeypatch):
    monkeypatch.setattr(documents, "_definitions", {})
    for kind in (int, int):
        sends(create_model("Outer", inner=create_model("Inner", size=kind)))
    with pytest.raises(ValueError, match="called Inner: rename one"):
        sends(create_model("Outer", inner=create_model("Inner", size=str)))
