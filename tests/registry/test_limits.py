"""Each limit on a call: a clear refusal that names it, before the work is done. Over real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import pytest

from arriero.registry.api import middleware
from arriero.registry.api.middleware import MAX_HEADER_BYTES, MAX_PATH_BYTES, MAX_QUERY_BYTES
from arriero.registry.dependencies import MAX_JSON_DEPTH
from support.access import ACCESS, Callers
from support.openapi import BY_DOCUMENTED, example, lists, operations, resolved, texts, with_value
from support.raw import Answer, Sender
from support.server import running_registry

BODY = 200_000
ITEMS = 20
PATIENCE_S = 0.3

HARMLESS = {
    ("/replicas/list", ("schemes",)),
    # of 100, whatever is set
    ("/butlers", ("instruments",)),
    ("/butlers/{name}/complete", ("exposures", 0, "visits")),
    # of 1000 texts, which one statement looks for
    ("/arrivals/report", (0, "provides")),
    ("/arrivals/wake", ("prerequisites",)),
    # read over where there are replicas
    ("/replicas/bad", ("pfns",)),
}
"""Lists that make no work for each of their items."""

CALLS = [operation for operation in operations() if (operation.method, operation.path) in BY_DOCUMENTED]


@dataclass
class Limited:
    """A registry with small limits."""

    callers: Callers
    sender: Sender

    def open(self) -> socket.socket:
        address = urlsplit(self.callers.url)
        return socket.create_connection((address.hostname, address.port), timeout=20)

    def head(self, line: str, **headers: str) -> bytes:
        said = {"Host": "x", "X-Rucio-Auth-Token": self.sender.token, **headers}
        return "".join([f"{line} HTTP/1.1\r\n", *(f"{k}: {v}\r\n" for k, v in said.items()), "\r\n"]).encode()


@pytest.fixture(scope="module")
def limited(services, tmp_path_factory) -> Iterator[Limited]:
    directory = tmp_path_factory.mktemp("limits")
    small = {"max_body_bytes": BODY, "max_bulk_items": ITEMS, "body_timeout_s": PATIENCE_S}
    with running_registry(services, "sqlite", directory, **small) as running:
        callers = Callers(running)
        sender = Sender(callers.url, callers.tokens["root"])
        yield Limited(callers, sender)
        sender.close()
        callers.close()


def refused(answered: Answer, status: int, code: str, *named: object) -> None:
    body = json.loads(answered.content)
    assert (answered.status, body["code"]) == (status, code), answered
    assert answered.headers["exceptionclass"] == body["ExceptionClass"]
    for one in named:
        assert str(one) in body["ExceptionMessage"], body
    assert answered.headers["x-content-type-options"] == "nosniff"
    assert len(answered.headers["x-request-id"]) >= 8


def everything(connection: socket.socket) -> bytes:
    read = b""
    while part := connection.recv(65536):
        read += part
    return read


@pytest.mark.parametrize("path", ["/rses/", "/nowhere/", "/dids/hers/"])
def test_the_length_of_a_path(limited, path):
    sent = path + "x" * (MAX_PATH_BYTES - len(path))
    assert limited.sender.send("GET", sent).status in {400, 404}
    refused(limited.sender.send("GET", sent + "x"), 414, "uri_too_long", MAX_PATH_BYTES)


def test_the_longest_name_of_a_did_fits_in_a_path(limited):
    name = "/".join(["\U0001f52d" * 48] * 5)
    body = json.dumps({"type": "DATASET"}).encode()
    assert limited.sender.send("POST", f"/dids/hers/{quote(name)}", body).status == 201
    assert json.loads(limited.sender.send("GET", f"/dids/hers/{quote(name)}/meta").content)["name"] == name


def test_the_length_of_a_query(limited):
    sent = "/rses?expression="
    sent += "x" * (MAX_QUERY_BYTES - len(sent) + len("/rses?"))
    assert limited.sender.send("GET", sent).status == 400
    refused(limited.sender.send("GET", sent + "x"), 414, "uri_too_long", MAX_QUERY_BYTES)


def test_the_size_of_the_headers(limited):
    many = {f"X-H{number}": "x" * 1000 for number in range(MAX_HEADER_BYTES // 1000 + 1)}
    with limited.open() as connection:
        connection.sendall(limited.head("GET /ping", Connection="close", **many))
        answered = everything(connection)
    # the server may have had enough before we have
    assert answered.split(b" ", 2)[1] in {b"400", b"431"}
    refused(limited.sender.send("GET", "/ping", None, many), 431, "headers_too_large", MAX_HEADER_BYTES)


def test_the_size_of_a_body(limited):
    refused(limited.sender.send("POST", "/dids", b" " * (BODY + 1)), 413, "too_large", BODY)


def test_what_is_refused_for_its_size_ends_the_connection(limited):
    with limited.open() as connection:
        connection.sendall(limited.head("POST /dids", **{"Content-Length": str(10 * BODY)}))
        answered = everything(connection)
    assert answered.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answered.lower()


@pytest.mark.parametrize(
    "opening", [b"[", b'{"meta":', b'{"a":[', b'[{"meta":{"k":'], ids=["list", "object", "both", "metadata"]
)
def test_the_depth_of_a_body(limited, opening):
    deep = opening * (MAX_JSON_DEPTH + 5)
    for path in ("/dids", "/replicas", "/dids/hers/d/meta"):
        refused(limited.sender.send("POST", path, deep), 400, "invalid_input")
    told = limited.sender.send("POST", "/dids/hers/d/meta", b'{"meta": {"k": ' + deep).content
    assert f"more than {MAX_JSON_DEPTH} levels deep".encode() in told


def test_the_number_of_items_of_every_list_that_makes_work(limited):
    """More items than one call may hold: a refusal, or a list that is read over; never work without a bound."""
    unbounded = []
    for operation in CALLS:
        if operation.body is None:
            continue
        base = ACCESS[operation.route][2]
        for place in lists(operation.body):
            below = resolved(operation.body)
            for step in place:
                below = resolved(below["items"] if isinstance(step, int) else below["properties"][step])
            item = example(below.get("items", {}))
            given = example(operation.body) if base is None else base
            for step in place:
                try:
                    given = given[step]
                except (KeyError, IndexError, TypeError):
                    given = []
            if isinstance(given, list) and given:
                item = given[0]
            many = [
                {**item, "name": f"{item.get('name', 'n')}-{number}"}
                if isinstance(item, dict)
                else f"x{number}"
                for number in range(ITEMS + 1)
            ]
            body = with_value(operation.body, example(operation.body) if base is None else base, place, many)
            answered = limited.sender.send(
                operation.method, limited.callers.path_of(operation.route), json.dumps(body).encode()
            )
            assert answered.status, (operation, place)
            if answered.status < 400 and (operation.path, place) not in HARMLESS:
                unbounded.append(f"{operation} {place}: {answered.status}")
    assert not unbounded, "\n".join(unbounded)


def dripped(connection: socket.socket) -> bytes:
    """Send a space at a time until there is an answer, and read it.

    Raises
    ------
    ConnectionResetError
        A space crossed the answer: what comes after the end makes TCP take back what was not read yet.
    """
    begun = time.monotonic()
    connection.settimeout(0.05)
    answered = b""
    while not answered:
        try:
            connection.sendall(b" ")
            answered = connection.recv(65536)
        except TimeoutError:
            assert time.monotonic() - begun < 15, "it is still waited for"
    connection.settimeout(20)
    return answered + everything(connection)


def test_a_body_that_drips_in_is_given_up(limited):
    for _ in range(5):
        with limited.open() as connection, suppress(ConnectionResetError):
            connection.sendall(limited.head("POST /dids", **{"Content-Length": "10000"}))
            answered = dripped(connection)
            break
    else:
        raise AssertionError("the connection was reset five times")
    assert answered.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answered.lower()
    assert b"too_slow" in answered
    assert f"{PATIENCE_S:g} s".encode() in answered


def test_a_large_body_has_the_time_that_it_needs(limited, monkeypatch):
    """The time grows with what has come: at this pace the whole takes longer than the patience for nothing."""
    monkeypatch.setattr(middleware, "_BYTES_A_SECOND", 1000)
    body = json.dumps([{"scope": "hers", "name": "slow", "type": "DATASET"}]).encode().ljust(5000)
    with limited.open() as connection:
        connection.sendall(
            limited.head("POST /dids", Connection="close", **{"Content-Length": str(len(body))})
        )
        tick = threading.Event()
        for start in range(0, len(body), 500):
            connection.sendall(body[start : start + 500])
            tick.wait(0.06)
        answered = everything(connection)
    assert answered.startswith(b"HTTP/1.1 201"), answered


def test_who_drips_holds_up_nobody(limited):
    """Each waits for its own body on the event loop, not in a thread of the pool."""
    waiting = [limited.open() for _ in range(60)]
    try:
        for connection in waiting:
            connection.sendall(limited.head("POST /dids", **{"Content-Length": "10"}))
        assert limited.sender.send("GET", "/scopes").status == 200
        for connection in waiting:
            assert everything(connection).startswith(b"HTTP/1.1 408")
    finally:
        for connection in waiting:
            connection.close()


HOSTILE_EXPRESSIONS = {
    "20,000 parentheses": "(" * 20_000,
    "10,000 terms": "|".join(["MINE"] * 10_000),
    "190 kB": "MINE" * 47_500,
    "deep": "(" * 500 + "MINE" + ")" * 500,
    "nothing": "|",
}


@pytest.mark.parametrize("what", HOSTILE_EXPRESSIONS)
def test_every_place_of_an_expression_refuses_it_as_one(limited, what):
    expression = HOSTILE_EXPRESSIONS[what]
    asked = 0
    for operation in CALLS:
        if operation.method == "DELETE":
            continue  # there it is the key of what is stored
        path = limited.callers.path_of(operation.route)
        base = ACCESS[operation.route][2]
        for name in operation.queries:
            if "expression" in name and len(expression) < MAX_QUERY_BYTES - 100:
                answered = limited.sender.send(
                    operation.method,
                    f"{path.partition('?')[0]}?{name}={quote(expression)}",
                    None if base is None else json.dumps(base).encode(),
                )
                check_expression(operation, name, answered)
                asked += 1
        for place in texts(operation.body) if operation.body is not None else ():
            if "expression" not in str(place[-1:]):
                continue
            given = example(operation.body) if base is None else base
            sent = with_value(operation.body, given, place, expression)
            answered = limited.sender.send(operation.method, path, json.dumps(sent).encode())
            check_expression(operation, place, answered)
            asked += 1
    assert asked >= 5


def check_expression(operation: object, place: object, answered: Answer) -> None:
    said = f"{operation} {place}: {answered.status} {answered.content[:300]!r}"
    if answered.headers["exceptionclass"] == "RuleReplaceFailed":
        return  # where a rule goes is looked at first
    assert 400 <= answered.status < 500, said
    # of the sources Rucio's class is another one
    classes = {"InvalidRSEExpression", "InvalidSourceReplicaExpression"}
    assert answered.headers["exceptionclass"] in classes, said
    message = answered.headers["exceptionmessage"]
    assert "olumn " in message or "characters" in message, said
    assert len(answered.content) < 2000, said
