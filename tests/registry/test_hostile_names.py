"""Hostile names in every text of every call of the OpenAPI document: nothing fails, is executed, or is told.

The administrator sends them, so that nothing is refused for want of a right before it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from sqlalchemy import func, inspect, select
from structlog.testing import capture_logs

from arriero.registry.schema.tables import accounts, audit_log, identities, metadata
from support.access import ACCESS, PASSWORD, Callers
from support.hostile import BY_KIND, CANARY, NULL_CHARACTERS, NUMBERS, leaked, of_place
from support.openapi import (
    BY_DOCUMENTED,
    NEW_KEY,
    Operation,
    example,
    filled,
    operations,
    resolved,
    texts,
    with_value,
)
from support.raw import Answer, Sender
from support.server import PASSWORD as ROOT_PASSWORD
from support.server import running_registry
from support.thorough import SHARE

MARK = "put it here"

CALLS = sorted(
    (operation for operation in operations() if (operation.method, operation.path) in BY_DOCUMENTED),
    key=lambda operation: operation.method == "DELETE",
)
"""What takes things away comes last. A call that is not in the access matrix fails its own test."""


@dataclass
class Attacked:
    """A registry, who sends to it, and what was wrong with its answers."""

    callers: Callers
    sender: Sender
    logged: list[Any]
    faults: list[str] = field(default_factory=list)
    sent: int = 0

    @property
    def half(self) -> int:
        """Which half of the kinds is sent to this database; the other has the other."""
        return int(self.callers.running.database.is_postgresql)

    def attack(self, what: str, operation: Operation, path: str, body: bytes | None, *names: str) -> Answer:
        answered = self.sender.send(operation.method, path, body)
        self.sent += 1
        said = f"{operation} with {what}: {answered.status} {answered.content[:300]!r}"
        if answered.is_failure or answered.status == 0:
            self.faults.append(f"failed: {said} {self.logged[-1:]}")
        if {"x-injected", "set-cookie"} & set(answered.headers):
            self.faults.append(f"put into the headers: {said}")
        told = leaked(answered.content + answered.headers.get("exceptionmessage", "").encode(), *names)
        if told and answered.status >= 400:
            self.faults.append(f"told {told!r}: {said}")
        return answered


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def attacked(request, services, tmp_path_factory) -> Iterator[Attacked]:
    directory = tmp_path_factory.mktemp("attacked")
    CANARY.unlink(missing_ok=True)
    with running_registry(services, request.param, directory, max_body_bytes=2_000_000) as running:
        callers = Callers(running)
        sender = Sender(callers.url, callers.tokens["root"])
        with capture_logs() as logged:
            yield Attacked(callers, sender, logged)
        sender.close()
        callers.close()


@pytest.fixture
def faults(attacked) -> Iterator[list[str]]:
    """What was wrong with the answers of this test; nothing may be."""
    attacked.faults.clear()
    yield attacked.faults
    assert not attacked.faults, f"{len(attacked.faults)} faults\n" + "\n".join(attacked.faults[:40])


def body_of(operation: Operation) -> Any:
    """A body that means something."""
    assert operation.body is not None
    given = ACCESS[operation.route][2]
    return example(operation.body) if given is None else given


def test_in_every_text_of_every_body(attacked, faults):
    number = 0
    for operation in CALLS:
        if operation.body is None:
            continue
        path = attacked.callers.path_of(operation.route)
        for place in texts(operation.body):
            number += 1
            for kind, name in of_place(number, half=attacked.half):
                body = with_value(operation.body, body_of(operation), place, name)
                if place and place[-1] == NEW_KEY:
                    below = body
                    for step in place[:-1]:
                        below = below[step]
                    below[name] = below[NEW_KEY]
                attacked.attack(f"{kind} at {place}", operation, path, json.dumps(body).encode(), name)


def test_in_every_path_and_query(attacked, faults):
    number = 0
    for operation in CALLS:
        template = operation.route[1]
        path = attacked.callers.path_of(operation.route)
        body = ACCESS[operation.route][2]
        sent = None if body is None else json.dumps(body).encode()
        values = filled(template, path)
        for variable in values:
            number += 1
            for kind, name in of_place(number, half=attacked.half):
                if len(name) > 10_000:
                    continue
                hostile = template
                for each, value in values.items():
                    put = quote_plus(name) if each == variable else value
                    hostile = hostile.replace(f"{{{each}:path}}", put).replace(f"{{{each}}}", put)
                attacked.attack(f"{kind} as {variable}", operation, hostile, sent, name, quote_plus(name))
        for variable in operation.queries:
            number += 1
            for kind, name in of_place(number, half=attacked.half):
                hostile = f"{path.partition('?')[0]}?{quote(variable)}={quote(name, safe='')}"
                if len(hostile) < 10_000:
                    attacked.attack(
                        f"{kind} as ?{variable}", operation, hostile, sent, name, quote(name, safe="")
                    )


def scalars(schema: dict[str, Any], at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where a body may hold a number or a text."""
    schema = resolved(schema)
    if schema.get("type") == "object":
        for name, below in schema.get("properties", {}).items():
            yield from scalars(below, (*at, name))
        if schema.get("additionalProperties"):
            yield (*at, NEW_KEY)
    elif schema.get("type") == "array":
        yield from scalars(schema.get("items", {}), (*at, 0))
    else:
        yield at


def test_numbers_and_texts_that_are_none(attacked, faults):
    number = 0
    for operation in CALLS:
        if operation.body is None:
            continue
        path = attacked.callers.path_of(operation.route)
        for place in scalars(operation.body):
            number += 1
            body = json.dumps(with_value(operation.body, body_of(operation), place, MARK)).encode()
            for raw in (
                *(NUMBERS[(number + i) % len(NUMBERS)] for i in range(1 if SHARE > 1 else 3)),
                *(NULL_CHARACTERS[(number + i) % len(NULL_CHARACTERS)] for i in range(1 if SHARE > 1 else 2)),
            ):
                attacked.attack(
                    f"{raw[:20]!r} at {place}", operation, path, body.replace(b'"put it here"', raw)
                )


def test_keys_that_come_twice(attacked, faults):
    for operation in CALLS:
        if operation.body is None:
            continue
        body = json.dumps(body_of(operation))
        if body.startswith("{") and len(body) > 2:
            doubled = f"{body[:-1]},{body[1:]}".encode()
            attacked.attack("every key twice", operation, attacked.callers.path_of(operation.route), doubled)


def test_what_was_written_can_be_read(attacked, faults):
    """A value that was taken in and cannot be given out again would fail here."""
    for operation in CALLS:
        if operation.method == "GET":
            attacked.attack("nothing", operation, attacked.callers.path_of(operation.route), None)
    lists = (
        "/rules",
        "/rses",
        "/accounts",
        "/tokens",
        "/arrivals",
        "/dids/hers/dids/search?type=all",
        "/butlers",
    )
    for path in lists:
        operation = Operation("GET", path, {})
        answered = attacked.attack("nothing", operation, path, None)
        assert answered.status == 200, answered


def test_nothing_was_executed(attacked):
    assert attacked.sent > 1000
    assert not CANARY.exists()
    database = attacked.callers.running.database
    assert set(metadata.tables) <= set(inspect(database.engine).get_table_names())
    with database.snapshot() as connection:
        assert connection.scalar(select(accounts.c.role).where(accounts.c.name == "root")) == "admin"
        assert connection.scalar(select(func.count()).select_from(identities)) > 0
    for path in ("/ui", "/docs"):
        page = attacked.sender.send("GET", path).content
        assert b"<script" not in page
        assert b"<img" not in page
        assert b"<svg" not in page


def test_no_secret_was_written_down(attacked):
    secrets = [token for token in attacked.callers.tokens.values() if token] + [PASSWORD, ROOT_PASSWORD]
    with attacked.callers.running.database.snapshot() as connection:
        written = repr(connection.execute(select(audit_log)).all()) + repr(attacked.logged)
    assert len(written) > 10_000
    for secret in secrets:
        assert secret not in written
    assert "argon2" not in written


def test_every_kind_is_there():
    assert min(map(len, BY_KIND.values())) >= 5
