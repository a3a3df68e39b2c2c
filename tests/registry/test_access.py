"""Every route that is served, by everybody: nobody, a reader, an owner, another, a site, root.

A route that is not in the table of `support.access` fails the test: access to it has to be decided.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute
from sqlalchemy import delete, select

from arriero.registry.app import ROUTERS
from arriero.registry.schema.tables import accounts as account_table
from arriero.registry.schema.tables import audit_log, tokens
from arriero.registry.services.authentication import issue_token
from arriero.registry.states import TokenKind
from support.access import ACCESS, Callers
from support.routes.callers import CALLERS, FILE, RULE
from support.server import running_registry


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def callers(request, services, tmp_path_factory) -> Iterator[Callers]:
    directory = tmp_path_factory.mktemp("access")
    with running_registry(services, request.param, directory) as running:
        made = Callers(running)
        yield made
        made.close()


def test_access_to_every_route_is_decided():
    routes = {
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
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
