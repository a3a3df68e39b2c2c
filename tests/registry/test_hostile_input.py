"""No call makes the service fail, whatever is sent: every route, every place of its body, path and query.

The administrator sends it: nothing is refused for want of a right before it is read.
"""

from __future__ import annotations

import copy
import http.client
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from support.access import ACCESS, Callers
from support.server import running_registry
from support.thorough import is_tried

NESTED: Any = 1
for _ in range(200):
    NESTED = [NESTED]

VALUES: dict[str, Any] = {
    "null": None,
    "boolean": True,
    "negative": -1,
    "huge": 10**30,
    "beyond 64 bits": 2**63,
    "fraction": 1.5,
    "empty": "",
    "null character": "a\x00b",
    "lines": "a\r\nX-Injected: 1",
    "outside the plane": "\U0001f52d\u202e\ufffe",
    "half a character": "\ud800",
    "long": "x" * 100_000,
    "sql": "'; DROP TABLE dids; --",
    "list": [],
    "nested": NESTED,
    "object": {"a\x00": {"$ne": None}},
}
"""What is put in the place of every value of a body."""

SEGMENTS = (
    "%00",
    "%ff%fe",
    "%ed%a0%80",
    "%",
    "%zz",
    "-1",
    "99999999999999999999",
    "x" * 5000,
    "%0d%0aX-I:1",
    "..",
)
"""What is put in the place of every variable part of a path and into the query."""

QUERIES = (
    "limit",
    "after",
    "state",
    "name",
    "filters",
    "type",
    "expression",
    "account",
    "copies",
    "key",
    "plugin",
)

BODIES = (
    b"",
    b"null",
    b"{",
    b"[]",
    b'"x"',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"NaN",
    b"1" * 50_000,
    b'{"dids": [' + b"{}," * 1000 + b"{}]}",
)
"""Bodies that are none."""


RULE = {
    "dids": [{"scope": "hers", "name": "d"}],
    "copies": 1,
    "rse_expression": "MINE",
    "weight": "tier",
    "lifetime": 60,
    "grouping": "ALL",
    "account": "owner",
    "source_replica_expression": "YOURS",
    "activity": "x",
    "notify": "N",
    "comment": "x",
    "delay_injection": 1,
    "priority": 3,
    "meta": {"k": 1},
}
FILE = {
    "scope": "hers",
    "name": "g",
    "bytes": 1,
    "adler32": "1",
    "md5": "0" * 32,
    "pfn": "file:///tmp/mine/g",
}
WHOLE: dict[tuple[str, str], Any] = {
    ("POST", "/rules"): RULE,
    ("PUT", "/rules/{rule_id}"): {
        "options": {
            "lifetime": 60,
            "priority": 3,
            "activity": "x",
            "comment": "x",
            "source_replica_expression": "YOURS",
            "locked": False,
            "state": "SUSPENDED",
        }
    },
    ("POST", "/dids"): [
        {
            "scope": "hers",
            "name": "whole",
            "type": "DATASET",
            "lifetime": 60,
            "meta": {"k": 1},
            "dids": [FILE],
            "rse": "MINE",
            "rules": [RULE],
        }
    ],
    ("POST", "/replicas"): {"rse": "MINE", "files": [{**FILE, "state": "A", "meta": {"k": 1}}]},
    ("POST", "/replicas/list"): {
        "dids": [{"scope": "hers", "name": "f"}],
        "schemes": ["davs"],
        "rse_expression": "*",
        "domain": "wan",
    },
    ("POST", "/dids/bulkmeta"): {"dids": [{"scope": "hers", "name": "d"}], "plugin": "JSON"},
    ("POST", "/dids/bulkfiles"): {"dids": [{"scope": "hers", "name": "d"}]},
    ("PUT", "/accounts/{account}"): {"email": "a@example.org", "role": "reader", "status": "ACTIVE"},
    ("POST", "/rses/{rse}"): {
        "deterministic": True,
        "rse_type": "DISK",
        "availability_read": True,
        "volatile": False,
    },
    ("POST", "/rses/{rse}/protocols/{scheme}"): {
        "hostname": "x.example.org",
        "port": 1,
        "prefix": "/p",
        "impl": "x",
        "domains": {"wan": {"read": 1}},
        "extended_attributes": {"k": 1},
    },
    ("POST", "/arrivals/report"): [
        {
            "id": 1,
            "fence": 0,
            "state": "parked",
            "dataset_id": "0" * 32,
            "code": "x",
            "reason": "x",
            "waits_for": "x",
        }
    ],
}
"""Bodies with everything that they may hold, where those of the table are short."""


class Sender:
    """Sends one call as it is written, over one connection."""

    def __init__(self, callers: Callers) -> None:
        self.callers = callers
        self._address = urlsplit(callers.url).netloc
        self._connection = http.client.HTTPConnection(self._address, timeout=30)

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        headers = {"X-Rucio-Auth-Token": str(self.callers.tokens["root"])}
        try:
            self._connection.request(method, path, body, headers)
            answered = self._connection.getresponse()
            content = answered.read()
        except (http.client.HTTPException, ConnectionError):
            # the server may refuse and close before it has read everything
            self._connection.close()
            return 0, {}, b""
        if answered.will_close:
            self._connection.close()
        return answered.status, {name.lower(): value for name, value in answered.getheaders()}, content

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def sender(request, services, tmp_path_factory) -> Iterator[Sender]:
    directory = tmp_path_factory.mktemp("hostile")
    with running_registry(services, request.param, directory, max_body_bytes=2_000_000) as running:
        made = Sender(Callers(running))
        yield made
        made.close()
        made.callers.close()


def faults_of(sender: Sender, calls: Iterator[tuple[str, str, str, bytes | None]]) -> list[str]:
    """Make calls; give those that the service failed at, or that carried something into the headers."""
    faults = []
    for what, method, path, body in calls:
        status, headers, content = sender.send(method, path, body)
        # 501 is Rucio's word for what is not there yet
        if (status >= 500 and status != 501) or "x-injected" in headers or "x-i" in headers:
            faults.append(f"{method} {path[:80]} with {what}: {status} {content[:200]!r}")
    return faults


def its_share(
    sender: Sender, calls: Iterator[tuple[str, str, str, bytes | None]]
) -> Iterator[tuple[str, str, str, bytes | None]]:
    """Give the calls that go to this database."""
    is_postgresql = sender.callers.running.database.is_postgresql
    return (call for call in calls if is_tried(call[:3], is_postgresql=is_postgresql))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a body has something that could be something else: every value, and lists and objects as a whole."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from places(below, (*path, key))


def replaced(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Copy a body with another value in one place."""
    if not path:
        return value
    made = copy.deepcopy(body)
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return made


ROUTES = [route for route in ACCESS if "whoami" not in route[1]]


def test_hostile_values_in_bodies(sender):
    def calls() -> Iterator[tuple[str, str, str, bytes | None]]:
        for route in ROUTES:
            body = WHOLE.get(route, ACCESS[route][2])
            if body is None:
                continue
            for place in places(body):
                for what, value in VALUES.items():
                    sent = json.dumps(replaced(body, place, value)).encode()
                    yield f"{what} at {place}", route[0], sender.callers.path_of(route), sent

    assert not (found := faults_of(sender, its_share(sender, calls()))), "\n".join(found)


def test_bodies_that_are_none(sender):
    def calls() -> Iterator[tuple[str, str, str, bytes | None]]:
        for method, path in ROUTES:
            if method != "GET":
                for body in BODIES:
                    yield f"body {body[:20]!r}", method, sender.callers.path_of((method, path)), body

    assert not (found := faults_of(sender, its_share(sender, calls()))), "\n".join(found)


def test_instants_beyond_the_calendar(sender):
    lists = {
        "/replicas/bad/states": ("younger_than", "older_than"),
        "/replicas/bad/summary": ("from_date", "to_date"),
        "/replicas/suspicious": ("younger_than",),
    }
    listed = {"dids": [{"scope": "hers", "name": "f"}]}
    declared = {"pfns": ["file:///tmp/mine/x"], "state": "TEMPORARY_UNAVAILABLE"}

    def calls(instant: str) -> Iterator[tuple[str, str, bytes | None]]:
        for path, names in lists.items():
            for name in names:
                yield "GET", f"{path}?{name}={quote(instant)}", None
        yield "POST", "/replicas/list", json.dumps({**listed, "updated_after": instant}).encode()
        yield "POST", "/replicas/bad/pfns", json.dumps({**declared, "expires_at": instant}).encode()

    for instant in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1e308"):
        answers = {call[1]: sender.send(*call)[0] for call in calls(instant)}
        assert set(answers.values()) == {400}, answers


def test_hostile_paths_and_queries(sender):
    def calls() -> Iterator[tuple[str, str, str, bytes | None]]:
        for method, template in ROUTES:
            body = ACCESS[method, template][2]
            sent = None if body is None else json.dumps(body).encode()
            for variable in re.findall(r"{\w+(?::path)?}", template):
                for segment in SEGMENTS:
                    rest = template.replace(variable, segment)
                    yield f"{segment[:20]} for {variable}", method, re.sub(r"{[^}]+}", "x", rest), sent
            if method == "GET":
                path = sender.callers.path_of((method, template))
                for segment in SEGMENTS:
                    query = "&".join(f"{name}={segment}" for name in QUERIES)
                    yield "a hostile query", method, f"{path}?{query}", None
                for name in QUERIES:
                    for segment in ("%00", "%ff%fe", "99999999999999999999"):
                        yield f"a hostile {name}", method, f"{path}?{name}={segment}", None

    assert not (found := faults_of(sender, its_share(sender, calls()))), "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        b"OPTIONS * HTTP/1.1",
        b"GET http://elsewhere.example.org/ping HTTP/1.1",
        b"GET // HTTP/1.1",
        b"GET /dids/raw/%00 HTTP/1.1",
        b"BREW /ping HTTP/1.1",
        b"GET /ping?%ff=%ff HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
    ],
)
def test_hostile_first_lines(sender, line):
    address = urlsplit(sender.callers.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        answered = b""
        while part := connection.recv(65536):
            answered += part
    status = int(answered.split(b" ", 2)[1])
    assert status < 500 or status == 501, answered[:500]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Rucio-Auth-Token": "\xff\xfe"},
        {"X-Rucio-Auth-Token": "x" * 30_000},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic \xe9"},
        {"X-Rucio-Username": "\xff", "X-Rucio-Password": "\xff", "X-Rucio-Account": "\xff"},
        {"Content-Length": "5", "Content-Type": "text/\xff"},
    ],
)
def test_hostile_headers(sender, headers):
    for path in ("/auth/userpass", "/auth/validate", "/scopes"):
        connection = http.client.HTTPConnection(urlsplit(sender.callers.url).netloc, timeout=20)
        connection.putrequest("GET", path)
        for name, value in headers.items():
            connection.putheader(name, value.encode("latin-1"))
        connection.endheaders(b"12345" if "Content-Length" in headers else None)
        assert connection.getresponse().status in {400, 401}
        connection.close()
