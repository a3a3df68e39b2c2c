"""An answer does not tell who there is, and every answer carries the headers of safety."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from arriero.registry.api.middleware import MAX_HEADER_BYTES, MAX_PATH_BYTES
from support.raw import Answer, Sender
from support.server import PASSWORD, ROOT, running_registry

RIGHT = {"X-Rucio-Account": ROOT, "X-Rucio-Username": ROOT, "X-Rucio-Password": PASSWORD}

WRONG = {
    "password": {**RIGHT, "X-Rucio-Password": "wrong"},
    "user": {**RIGHT, "X-Rucio-Username": "nobody"},
    "account": {**RIGHT, "X-Rucio-Account": "nobody"},
    "everything": {"X-Rucio-Account": "a", "X-Rucio-Username": "b", "X-Rucio-Password": "c"},
    "no password": {**RIGHT, "X-Rucio-Password": ""},
    "an account that does not log in": {**RIGHT, "X-Rucio-Account": "silent"},
    "a hostile user": {**RIGHT, "X-Rucio-Username": "' OR '1'='1"},
}

OWN = {"date", "x-request-id"}
"""Headers that differ from call to call."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def stranger(request, services, tmp_path_factory) -> Iterator[Sender]:
    directory = tmp_path_factory.mktemp("stranger")
    with running_registry(services, request.param, directory, max_body_bytes=10_000) as running:
        sender = Sender(running.url)
        sender.token = sender.send("GET", "/auth/userpass", None, RIGHT).headers["x-rucio-auth-token"]
        assert sender.send("POST", "/accounts/silent", json.dumps({"type": "USER"}).encode()).status == 201
        yield sender
        sender.close()


def seen(answered: Answer) -> tuple[int, dict[str, str], bytes]:
    return answered.status, {k: v for k, v in answered.headers.items() if k not in OWN}, answered.content


def test_every_wrong_login_looks_the_same(stranger):
    answers = {
        what: seen(stranger.send("GET", "/auth/userpass", None, {**said, "X-Rucio-Auth-Token": ""}))
        for what, said in WRONG.items()
    }
    first = answers["password"]
    assert first[0] == 401
    for what, answered in answers.items():
        assert answered == first, what


@pytest.mark.parametrize(
    "token", ["x" * 40, "arriero_" + "x" * 43, "eyJhbGciOiJub25lIn0.e30.", "' OR '1'='1"]
)
def test_every_wrong_token_looks_the_same(stranger, token):
    path = "/accounts/whoami"
    as_header = stranger.send("GET", path, None, {"X-Rucio-Auth-Token": token})
    as_bearer = stranger.send(
        "GET", path, None, {"X-Rucio-Auth-Token": "", "Authorization": f"Bearer {token}"}
    )
    assert seen(as_header) == seen(as_bearer)
    assert (as_header.status, as_header.headers["www-authenticate"]) == (401, "Bearer")
    assert token.encode() not in as_header.content


def test_who_is_not_logged_in_learns_nothing_of_what_there_is(stranger):
    nobody = {"X-Rucio-Auth-Token": ""}
    for there, missing in (
        ("/accounts/root", "/accounts/nobody"),
        ("/accounts/silent/scopes", "/accounts/nobody/scopes"),
        ("/accounts/root/identities", "/accounts/nobody/identities"),
    ):
        assert seen(stranger.send("GET", there, None, nobody)) == seen(
            stranger.send("GET", missing, None, nobody)
        )


def test_a_token_in_the_url_is_not_looked_at(stranger):
    for name in ("token", "access_token", "X-Rucio-Auth-Token", "auth_token"):
        path = f"/accounts/whoami?{name}={stranger.token}"
        assert stranger.send("GET", path, None, {"X-Rucio-Auth-Token": ""}).status == 401


REFUSALS = {
    200: ("GET", "/ping", None, {}),
    400: ("POST", "/dids", b"{", {}),
    401: ("GET", "/scopes", None, {"X-Rucio-Auth-Token": "x"}),
    404: ("GET", "/accounts/nobody", None, {}),
    413: ("POST", "/dids", b" " * 20_000, {}),
    414: ("GET", "/" + "x" * MAX_PATH_BYTES, None, {}),
    431: ("GET", "/ping", None, {f"X-H{i}": "x" * 1000 for i in range(MAX_HEADER_BYTES // 1000 + 1)}),
    501: ("GET", "/dirac/nothing", None, {}),
}


@pytest.mark.parametrize("status", REFUSALS)
def test_every_answer_carries_the_headers_of_safety(stranger, status):
    answered = stranger.send(*REFUSALS[status])
    assert answered.status == status, answered
    assert answered.headers["x-content-type-options"] == "nosniff"
    assert answered.headers["x-frame-options"] == "DENY"
    assert answered.headers["referrer-policy"] == "no-referrer"
    assert answered.headers["cache-control"] == "no-store"
    assert "default-src 'self'" in answered.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answered.headers
    assert len(answered.headers["x-request-id"]) == 32
