"""Every call of the OpenAPI document, by everybody: nobody, a reader, an owner, another, a site, root.

A call that is not in the table of `support.access` fails the test: access to it has to be decided. Nor is there a way
around the decision: by another method, spelling of the path, header, or by a token that does not hold any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from arriero.registry.api.documents import served
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import accounts as account_table
from arriero.registry.schema.tables import audit_log, tokens
from arriero.registry.services.authentication import issue_token
from arriero.registry.states import TokenKind
from support.access import ACCESS, Callers
from support.openapi import app, documented, operations
from support.raw import Sender
from support.routes.callers import CALLERS, FILE, RULE
from support.server import running_registry
from support.thorough import is_tried

PAGES = {("GET", "/docs"), ("GET", "/metrics"), ("GET", "/ui"), ("GET", "/ui/static/{name}")}
"""What people, and Prometheus, look at; not calls of the document."""

DOCUMENTED = {(operation.method, operation.path): operation.said["responses"] for operation in operations()}

WAYS_AROUND = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def callers(request, services, tmp_path_factory) -> Iterator[Callers]:
    directory = tmp_path_factory.mktemp("access")
    with running_registry(services, request.param, directory) as running:
        made = Callers(running)
        yield made
        made.close()


def test_access_to_every_call_of_the_document_is_decided():
    calls = {(operation.method, operation.path) for operation in operations()}
    assert calls == {documented(route) for route in set(ACCESS) - PAGES}


def test_every_route_is_in_the_document_or_a_page():
    routes = {(method, route.path) for route in served(app().routes) for method in route.methods}
    assert routes == set(ACCESS)


@pytest.mark.parametrize("route", ACCESS, ids=lambda route: f"{route[0]} {route[1]}")
def test_who_may_call_what(callers, route):
    allowed, _, body = ACCESS[route]
    for who in CALLERS:
        with callers.running.database.transaction() as connection:
            connection.execute(delete(audit_log))
        answered = callers.call(who, route[0], callers.path_of(route), body)
        with callers.running.database.snapshot() as connection:
            denials = connection.execute(select(audit_log).where(audit_log.c.allowed.is_(False))).all()
        said = (who, answered.status_code, answered.text)
        if who in allowed:
            assert answered.status_code not in {401, 403, 500, 501, 503}, said
            assert denials == [], said
            if answered.status_code < 400 and route not in PAGES:
                assert str(answered.status_code) in DOCUMENTED[documented(route)], said
            continue
        if who == "nobody" or not allowed:
            # who says nothing of himself is no event: a flood of such calls must not fill the audit
            assert (answered.status_code, denials) == (401, []), said
            continue
        assert answered.status_code == 403, said
        [denial] = denials
        assert denial.account == who
        assert denial.request_id == answered.headers["X-Request-ID"]
        assert answered.headers["ExceptionClass"] == "AccessDenied"
        assert answered.json()["code"] == "not_allowed"


def test_a_site_agent_registers_at_its_own_rse_only(callers):
    callers.call("root", "POST", "/accounts/agent/scopes/site")
    new = {"scope": "site", "name": "watched", "bytes": 1, "adler32": "1"}
    assert callers.call("agent", "POST", "/replicas", {"rse": "MINE", "files": [new]}).status_code == 201
    existing = {"rse": "YOURS", "files": [FILE]}
    assert callers.call("agent", "POST", "/replicas", existing).status_code == 403
    stranger = {"rse": "MINE", "files": [{**FILE, "name": "not there yet"}]}
    assert callers.call("agent", "POST", "/replicas", stranger).status_code == 403


def test_nobody_makes_rules_for_another_account(callers):
    body = {**RULE, "account": "owner", "rse_expression": "MINE|YOURS"}
    assert callers.call("other", "POST", "/rules", body).status_code == 403
    assert callers.call("root", "POST", "/rules", body).status_code == 201


def test_the_standing_token_of_an_administrator_is_no_administrator(callers):
    with callers.running.database.transaction() as connection:
        root_id = connection.scalar(select(account_table.c.id).where(account_table.c.name == "root"))
        issued = issue_token(
            connection, account_id=root_id, account="root", kind=TokenKind.AGENT, lifetime_s=600
        )
    callers.tokens["standing"] = issued.token
    assert callers.call("standing", "POST", "/rses/EVIL", {}).status_code == 403
    assert callers.call("standing", "POST", "/replicas", {"rse": "MINE", "files": [FILE]}).status_code == 403
    with callers.running.database.transaction() as connection:
        connection.execute(delete(tokens).where(tokens.c.id == issued.token_id))


@pytest.fixture
def closing() -> Iterator[Callable[[Sender], Sender]]:
    """Closes what it is given when the test ends."""
    with ExitStack() as stack:
        yield lambda sender: (stack.callback(sender.close), sender)[1]


@pytest.fixture(scope="module")
def strangers(callers) -> Iterator[dict[str, Sender]]:
    """Who sends as it is written, and has no right to change anything."""
    made = {who: Sender(callers.url, callers.tokens[who]) for who in ("nobody", "reader")}
    yield made
    for sender in made.values():
        sender.close()


def _tried(callers: Callers) -> dict[tuple[str, str], tuple[Any, ...]]:
    """The routes that are tried on this database: all are the same service."""
    is_postgresql = callers.running.database.is_postgresql
    return {route: said for route, said in ACCESS.items() if is_tried(route, is_postgresql=is_postgresql)}


def _body(route: tuple[str, str]) -> bytes | None:
    body = ACCESS[route][2]
    return None if body is None else json.dumps(body).encode()


def _audited(callers: Callers) -> list[object]:
    with callers.running.database.snapshot() as connection:
        return list(connection.execute(select(audit_log).where(audit_log.c.allowed)))


def test_no_spelling_of_a_path_gets_around_a_refusal(callers, strangers):
    before = _audited(callers)
    faults = []
    for route, (allowed, _, _) in _tried(callers).items():
        method, path = route[0], callers.path_of(route)
        way, _, query = path.partition("?")
        first, _, rest = way.lstrip("/").partition("/")
        spellings = (
            f"{way}/",
            f"/{way}",
            f"//{first}//{rest}",
            f"/ping/..{way}",
            f"/ping/%2e%2e{way}",
            f"/ping%2f..{way}",
            f"{way}%2f",
            f"{way};x=1",
            f"http://elsewhere.example.org{way}",
            way.replace(first, first.upper(), 1),
            way.replace(first, f"%{ord(first[0]):02x}{first[1:]}", 1),
        )
        for who in ("nobody", "reader"):
            if who in allowed:
                continue
            for spelling in spellings:
                answered = strangers[who].send(method, f"{spelling}?{query}", _body(route))
                if answered.status < 400 or answered.is_failure:
                    faults.append(f"{who}: {method} {spelling}: {answered.status} {answered.content[:200]!r}")
    assert not faults, "\n".join(faults)
    assert _audited(callers) == before


def test_no_other_method_gets_around_a_refusal(callers, strangers):
    before = _audited(callers)
    known = {(method, path) for method, path in ACCESS}
    faults = []
    for route, (allowed, _, _) in _tried(callers).items():
        for who in ("nobody", "reader"):
            for method in ("HEAD", "OPTIONS", "TRACE", "PATCH", "GET", "POST", "PUT", "DELETE"):
                if (method, route[1]) in known or who in allowed:
                    continue
                answered = strangers[who].send(method, callers.path_of(route), _body(route))
                # another route may take the path and mean something else by it; it then refuses by itself
                if answered.status not in {400, 401, 403, 404, 501}:
                    faults.append(f"{who}: {method} {route[1]}: {answered.status}")
    assert not faults, "\n".join(faults)
    assert _audited(callers) == before


@pytest.mark.parametrize("header", WAYS_AROUND)
def test_no_header_makes_another_call_of_a_call(callers, strangers, header):
    before = _audited(callers)
    for route, (allowed, _, _) in _tried(callers).items():
        if "reader" in allowed:
            continue
        reader = strangers["reader"]
        path = callers.path_of(route)
        said = {header: route[0], "X-Original-URL": path, "X-Rewrite-URL": path, "X-Rucio-Account": "root"}
        assert reader.send("GET", "/ping", None, said).content.startswith(b'{"version"')
        answered = reader.send(route[0], path, _body(route), {header: "GET", "X-Rucio-Account": "root"})
        assert answered.status in {401, 403}, (route, answered)
    whoami = strangers["reader"].send("GET", "/accounts/whoami", None, {"X-Rucio-Account": "root"})
    assert whoami.status == 401 or json.loads(whoami.content)["account"] == "reader"
    assert _audited(callers) == before


@pytest.mark.parametrize("how", ["unknown", "expired", "revoked", "suspended", "deleted"])
def test_a_token_that_does_not_hold_opens_nothing(callers, closing, how):
    database = callers.running.database
    with database.transaction() as connection:
        account_id = connection.scalar(
            account_table.insert()
            .values(name=f"was-{how}", type="USER", role="admin")
            .returning(account_table.c.id)
        )
        issued = issue_token(
            connection, account_id=account_id, account=f"was-{how}", kind=TokenKind.SESSION, lifetime_s=600
        )
        values = {"expired": {"expires_at": after(-1)}, "revoked": {"revoked_at": now()}}.get(how)
        if values:
            connection.execute(update(tokens).where(tokens.c.id == issued.token_id).values(**values))
    sender = closing(Sender(callers.url, issued.token if how != "unknown" else f"{issued.token}x"))
    if how not in {"unknown", "expired", "revoked"}:
        assert sender.send("GET", "/accounts/whoami").status == 200
        column = account_table.c.suspended_at if how == "suspended" else account_table.c.deleted_at
        with database.transaction() as connection:
            connection.execute(
                update(account_table).where(account_table.c.id == account_id).values({column: now()})
            )
    before = _audited(callers)
    for route, (allowed, _, _) in _tried(callers).items():
        if "nobody" not in allowed:
            answered = sender.send(route[0], callers.path_of(route), _body(route))
            assert (answered.status, answered.headers.get("exceptionclass")) == (401, "CannotAuthenticate"), (
                route
            )
    assert _audited(callers) == before
