"""What holds for every call: paths, bodies, headers, errors, streams, and logging in."""

from __future__ import annotations

import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest
import requests
from requests.structures import CaseInsensitiveDict
from sqlalchemy import insert, select, update

from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import accounts, audit_log, identities, tokens
from arriero.registry.services import authentication
from support.server import PASSWORD, ROOT, running_registry

LOGIN = {"X-Rucio-Account": ROOT, "X-Rucio-Username": ROOT, "X-Rucio-Password": PASSWORD}


class Caller:
    """Sends calls as they are written, without a client's own ideas of paths."""

    def __init__(self, running) -> None:
        self.running = running
        self.url = running.url
        self.token = requests.get(f"{self.url}/auth/userpass", headers=LOGIN, timeout=10).headers[
            "X-Rucio-Auth-Token"
        ]

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str):
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        try:
            connection.request(method, path, body, {"X-Rucio-Auth-Token": self.token, **headers})
            response = connection.getresponse()
            return response.status, CaseInsensitiveDict(response.getheaders()), response.read()
        finally:
            connection.close()

    def send(self, method: str, path: str, body: object = None, **headers: str):
        data = None if body is None else json.dumps(body).encode()
        status, answered, content = self.raw(method, path, data, **headers)
        return status, answered, content


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def caller(request, services, tmp_path_factory):
    directory = tmp_path_factory.mktemp("http")
    with running_registry(services, request.param, directory, max_body_bytes=100_000) as running:
        made = Caller(running)
        assert made.send("POST", "/accounts/root/scopes/raw")[0] == 201
        yield made


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("a%2Fb.fits", "a/b.fits"),
        ("a/b/c.fits", "a/b/c.fits"),
        ("a+b", "a b"),
        ("a%2Bb", "a+b"),
        ("a%2520b", "a%20b"),
        ("100%25", "100%"),
        ("%C3%A9t%C3%A9", "été"),
        ("x%2Fdids", "x/dids"),
        ("q%3Fr%23s%3Ft", "q?r#s?t"),
        ("%E2%98%83;v=1", "☃;v=1"),
    ],
)
def test_names_come_through_as_they_were_quoted(caller, sent, name):
    status, _, content = caller.send("POST", f"/dids/raw/{sent}", {"type": "DATASET"})
    assert status == 201, content
    status, _, content = caller.send("GET", f"/dids/raw/{sent}")
    assert status == 200
    assert json.loads(content)["name"] == name
    status, _, content = caller.send("GET", f"/dids/raw/{sent}/dids")
    assert (status, content) == (200, b"")
    assert caller.send("PUT", f"/dids/raw/{sent}/status", {"open": False})[0] == 200


@pytest.mark.parametrize(
    "sent", ["..%2F..%2Fetc", "%2Fabsolute", "a%2F%2Fb", "nul%00", "%FF%FE", "a%5Cb", "a%0Ab", "%2E%2E%2Fx"]
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_hostile_names_are_refused(caller, method, sent):
    status, headers, content = caller.send(method, f"/dids/raw/{sent}", {"type": "DATASET"})
    assert status in {400, 404}, content
    assert headers["ExceptionClass"] in {"InvalidObject", "InputValidationError", "DataIdentifierNotFound"}
    assert "\n" not in headers["ExceptionMessage"]


def test_a_slash_at_the_end_changes_nothing(caller):
    assert caller.send("GET", "/scopes/")[0] == caller.send("GET", "/scopes")[0] == 200
    assert caller.send("GET", "/rses/?expression=*")[0] in {200, 400}


def test_every_answer_carries_the_headers_of_safety_and_its_request_id(caller):
    for path in ("/ping", "/dids/raw/missing", "/nowhere", "/config"):
        _, headers, _ = caller.raw("GET", path, **{"X-Request-ID": "my-request-1"})
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["x-request-id"] == "my-request-1"
    _, headers, _ = caller.raw("GET", "/ping", **{"X-Request-ID": "bad id\twith space"})
    assert len(headers["x-request-id"]) == 32


def test_errors_say_the_same_in_headers_and_body(caller):
    status, headers, content = caller.send("GET", "/dids/raw/mi%C3%9Fing")
    body = json.loads(content)
    assert status == 404
    assert headers["content-type"] == "application/json"
    assert headers["ExceptionClass"] == body["ExceptionClass"] == "DataIdentifierNotFound"
    assert "mißing" in body["ExceptionMessage"]
    assert headers["ExceptionMessage"].startswith("there is no DID raw:mi?ing")
    assert (body["code"], body["retryable"]) == ("not_found", False)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/lifetime_exceptions", 501, "unsupported"),
        ("/opendata/dids/raw/x", 501, "unsupported"),
        ("/heartbeats", 501, "unsupported"),
        ("/rses/X/no_such_thing_of_rucio", 501, "unsupported"),
        ("/nowhere", 404, "not_found"),
    ],
)
def test_what_is_not_there_yet_says_so(caller, path, status, code):
    answered, headers, content = caller.send("GET", path)
    assert (answered, json.loads(content)["code"]) == (status, code)
    assert headers["ExceptionMessage"]


def test_a_body_over_the_limit_is_refused_before_it_is_read(caller):
    status, headers, _ = caller.raw("POST", "/dids", b"[" + b" " * 100_001 + b"]")
    assert status == 413
    assert headers["ExceptionClass"] == "InputValidationError"


def test_a_body_without_an_end_is_cut_off(caller):
    address = urlsplit(caller.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(
            f"POST /dids HTTP/1.1\r\nHost: x\r\nX-Rucio-Auth-Token: {caller.token}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(200):
            try:
                connection.sendall(b"3e8\r\n" + b" " * 1000 + b"\r\n")
            except OSError:
                break
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[1]",
        b'{"type": 3}',
        b"\xff",
        b"[" * 50_000,
        b'{"type": "DATASET", "dids": [{}]}',
    ],
)
def test_bodies_that_cannot_be_read_are_refused_and_not_repeated(caller, body):
    status, headers, content = caller.raw("POST", "/dids/raw/x", body)
    assert status == 400, content
    assert headers["ExceptionClass"] == "InputValidationError"
    assert len(content) < 2000


def test_a_password_is_never_repeated(caller):
    body = {"identity": "bob", "authtype": "USERPASS", "password": ["SeCrEt-123"]}
    status, headers, content = caller.send("POST", "/accounts/root/identities", body)
    assert status == 400
    assert b"SeCrEt-123" not in content + str(headers).encode()


@pytest.fixture(scope="module")
def long_dataset(caller):
    """Path of the files of a dataset that is longer than one fetch."""
    caller.send("POST", "/dids/raw/stream_d", {"type": "DATASET"})
    caller.send("POST", "/rses/STREAM", {})
    files = [{"scope": "raw", "name": f"s/{i}", "bytes": i, "adler32": "1"} for i in range(1500)]
    for part in (files[:700], files[700:]):
        status, _, content = caller.send("POST", "/replicas", {"rse": "STREAM", "files": part})
        assert status == 201, content
        assert caller.send("POST", "/dids/raw/stream_d/dids", {"dids": part})[0] == 201
    return "/dids/raw/stream_d/files"


def test_a_stream_is_one_object_a_line(caller, long_dataset):
    _, headers, content = caller.send("GET", long_dataset)
    assert headers["content-type"] == "application/x-json-stream"
    lines = content.splitlines()
    assert len(lines) == 1500
    assert {json.loads(line)["name"] for line in lines} == {f"s/{i}" for i in range(1500)}


def test_a_reader_that_goes_away_leaves_no_transaction(caller, long_dataset):
    address = urlsplit(caller.url)
    for _ in range(30):
        with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
            connection.sendall(
                f"GET {long_dataset} HTTP/1.1\r\nHost: x\r\nX-Rucio-Auth-Token: {caller.token}\r\n\r\n".encode()
            )
            connection.recv(10)
    assert caller.send("GET", "/ready")[0] == 200
    assert len(caller.send("GET", long_dataset)[2].splitlines()) == 1500


def test_logging_in_gives_a_token_that_is_stored_as_its_hash_only(caller):
    status, headers, _ = caller.raw("GET", "/auth/userpass", None, **LOGIN)
    token = headers["x-rucio-auth-token"]
    assert status == 200
    assert headers["x-rucio-auth-account"] == ROOT
    assert headers["x-rucio-auth-token-expires"].endswith(" UTC")
    with caller.running.database.snapshot() as connection:
        stored = [row.token_hash for row in connection.execute(select(tokens))]
        hashes = [row.secret_hash for row in connection.execute(select(identities))]
    assert token not in stored
    assert authentication.hash_token(token) in stored
    assert all(one.startswith("$argon2id$") for one in hashes)
    for header in ({"X-Rucio-Auth-Token": token}, {"Authorization": f"Bearer {token}"}):
        answered = requests.get(f"{caller.url}/accounts/whoami", headers=header, timeout=10)
        assert answered.json()["account"] == ROOT
    assert caller.raw("GET", "/auth/validate", None, **{"X-Rucio-Auth-Token": token})[0] == 200


@pytest.mark.parametrize(
    "wrong", [{"X-Rucio-Password": "no"}, {"X-Rucio-Username": "nobody"}, {"X-Rucio-Account": "nobody"}]
)
def test_nobody_learns_which_part_of_a_login_was_wrong(caller, wrong):
    answered = requests.get(f"{caller.url}/auth/userpass", headers={**LOGIN, **wrong}, timeout=10)
    assert answered.status_code == 401
    assert answered.json()["ExceptionMessage"] == (
        "cannot authenticate with this account, user name and password: check all three"
    )
    assert "X-Rucio-Auth-Token" not in answered.headers


@pytest.mark.parametrize("how", ["unknown", "expired", "revoked", "suspended"])
def test_a_token_that_does_not_hold_is_refused_and_audited(caller, how):
    database = caller.running.database
    with database.transaction() as connection:
        account_id = connection.scalar(select(accounts.c.id).where(accounts.c.name == "mallory"))
        if account_id is None:
            account_id = connection.scalar(
                insert(accounts).values(name="mallory", type="USER", role="reader").returning(accounts.c.id)
            )
        issued = authentication.issue_token(
            connection, account_id=account_id, account="mallory", kind="session", lifetime_s=600
        )
        if how == "expired":
            connection.execute(
                update(tokens).where(tokens.c.id == issued.token_id).values(expires_at=after(-1))
            )
        if how == "revoked":
            connection.execute(update(tokens).where(tokens.c.id == issued.token_id).values(revoked_at=now()))
        suspended = now() if how == "suspended" else None
        connection.execute(update(accounts).where(accounts.c.id == account_id).values(suspended_at=suspended))
    token = "arriero_unknown" if how == "unknown" else issued.token
    headers = {"X-Rucio-Auth-Token": token}
    answered = requests.get(
        f"{caller.url}/scopes", headers={**headers, "X-Request-ID": f"audit-{how}-1"}, timeout=10
    )
    assert answered.status_code == 401
    assert answered.headers["ExceptionClass"] == "CannotAuthenticate"
    with database.snapshot() as connection:
        [row] = connection.execute(select(audit_log).where(audit_log.c.request_id == f"audit-{how}-1"))
    assert (row.action, row.allowed, row.object) == ("authenticate", False, "GET /scopes")


@pytest.mark.parametrize("path", ["/scopes", "/auth/validate", "/auth/userpass"])
def test_who_sends_no_credential_is_refused_and_not_written_down(caller, path):
    answered = requests.get(f"{caller.url}{path}", headers={"X-Request-ID": "audit-none-1"}, timeout=10)
    assert answered.status_code == 401
    assert answered.headers["WWW-Authenticate"] == "Bearer"
    with caller.running.database.snapshot() as connection:
        query = select(audit_log).where(audit_log.c.request_id == "audit-none-1")
        assert connection.execute(query).all() == []


def test_a_wrong_password_is_written_down(caller):
    wrong = {**LOGIN, "X-Rucio-Password": "no", "X-Request-ID": "audit-login-1"}
    assert requests.get(f"{caller.url}/auth/userpass", headers=wrong, timeout=10).status_code == 401
    with caller.running.database.snapshot() as connection:
        [row] = connection.execute(select(audit_log).where(audit_log.c.request_id == "audit-login-1"))
    assert (row.allowed, row.object) == (False, "GET /auth/userpass")


def test_a_backslash_before_the_escape_of_a_null_character_makes_it_text(caller):
    escaped = rb'{"meta": {"k": "a\\u0000"}}'
    assert caller.send("POST", "/dids/raw/escaped", {"type": "DATASET"})[0] == 201
    assert caller.raw("POST", "/dids/raw/escaped/meta", escaped)[0] == 201
    assert json.loads(caller.send("GET", "/dids/raw/escaped/meta")[2])["k"] == "a\\u0000"
    status, _, content = caller.raw("POST", "/dids/raw/escaped/meta", rb'{"meta": {"k": "\\\u0000"}}')
    assert (status, b"null character" in content) == (400, True)


def test_an_unexpected_failure_names_the_call_and_tells_nothing_else(caller, monkeypatch):
    def fail(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("the secret is 42")

    monkeypatch.setattr("arriero.registry.services.accounts.list_scopes", fail)
    status, headers, content = caller.send("GET", "/scopes", **{"X-Request-ID": "broken-call-1"})
    assert status == 500
    assert json.loads(content)["code"] == "internal_error"
    assert b"broken-call-1" in content
    assert b"42" not in content
    assert headers["X-Request-ID"] == "broken-call-1"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["ExceptionClass"] == "RucioException"


def test_the_reference_loads_nothing_from_elsewhere(caller):
    status, headers, content = caller.raw("GET", "/docs")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert b"/replicas/list" in content
    assert b"http://" not in content
    assert b"https://" not in content
    assert b"<script" not in content
    assert json.loads(caller.raw("GET", "/openapi.json")[2])["openapi"].startswith("3.")
