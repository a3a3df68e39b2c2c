"""Every call of the OpenAPI document, with what schemathesis makes of it: nothing fails, and every answer is as promised.

`make fuzz` is the long form. The administrator that sends it is not one that a call can name, and so survives it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import select
from structlog.testing import capture_logs

from arriero.registry.schema.tables import accounts as account_table
from arriero.registry.services.authentication import issue_token
from arriero.registry.states import TokenKind
from support.access import PASSWORD, Callers
from support.openapi import document, operations
from support.routes.callers import BUTLER, RULE
from support.server import running_registry

EXAMPLES = int(os.environ.get("ARRIERO_TEST_FUZZ_EXAMPLES", "4"))
"""Cases of each call, of each kind: those that keep to the document, and those that do not."""

SEED = int(os.environ.get("ARRIERO_TEST_FUZZ_SEED", "3"))

NAMES = {
    "account": ("owner", "other", "reader", "agent"),
    "scope": ("hers",),
    "name": ("d", "e", "f", "g"),
    "rse": ("MINE", "YOURS"),
    "source": ("MINE",),
    "destination": ("YOURS",),
    "scheme": ("file", "davs"),
    "key": ("k",),
    "butler": (str(BUTLER["name"]),),
    "rse_expression": (str(RULE["rse_expression"]), "MINE|YOURS", "*"),
    "expression": ("MINE|YOURS",),
}
"""Names of what is there: with names out of the air most calls would end at 404."""

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

FUZZER = "fuzzer-4f1d"


@dataclass
class Fuzzed:
    """A registry, and two who send to it."""

    callers: Callers
    tokens: dict[str, str]
    session: requests.Session
    logged: list[Any]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def fuzzed(request, services, tmp_path_factory) -> Iterator[Fuzzed]:
    directory = tmp_path_factory.mktemp("fuzz")
    with running_registry(services, request.param, directory, max_body_bytes=1_000_000) as running:
        callers = Callers(running)
        issued = {}
        with running.database.transaction() as connection:
            for name, role in ((FUZZER, "admin"), (f"{FUZZER}-r", "reader")):
                account_id = connection.scalar(
                    account_table.insert()
                    .values(name=name, type="USER", role=role)
                    .returning(account_table.c.id)
                )
                issued[role] = issue_token(
                    connection, account_id=account_id, account=name, kind=TokenKind.SESSION, lifetime_s=36_000
                ).token
        # a traceback drawn for a terminal takes longer than the call
        with requests.Session() as session, capture_logs() as logged:
            yield Fuzzed(callers, issued, session, logged)
        callers.close()


def known_names(value: Any, key: str = "", *, choice: int) -> Any:
    """Put names of what is there in the place of every other text whose key tells what it names."""
    if isinstance(value, dict):
        return {k: known_names(v, k, choice=choice + i) for i, (k, v) in enumerate(value.items())}
    if isinstance(value, list):
        return [known_names(v, key, choice=choice + i) for i, v in enumerate(value)]
    if isinstance(value, str) and key in NAMES and choice % 3:
        return NAMES[key][choice % len(NAMES[key])]
    if key == "wait_s":
        return 0
    return value


def _schema() -> Any:
    schema = schemathesis.openapi.from_dict(document())

    def meant(_context: object, part: Any) -> Any:
        return known_names(part, choice=zlib.crc32(repr(part).encode()))

    for place in ("path_parameters", "query", "body"):
        schema.hook(f"map_{place}")(meant)
    return schema


SCHEMA = _schema()
SAFE = frozenset({"x-request-id", "x-content-type-options", "content-security-policy", "cache-control"})


def check(fuzzed: Fuzzed, who: str, case: Any) -> None:
    headers = {"X-Rucio-Auth-Token": fuzzed.tokens[who]}
    answered = case.call(
        base_url=fuzzed.callers.url,
        session=fuzzed.session,
        headers=headers,
        timeout=30,
        allow_redirects=False,
    )
    said = f"{case.as_curl_command()}: {answered.status_code} {answered.content[:300]!r}"
    if answered.status_code >= 500:
        assert answered.status_code == 501, said
        assert json.loads(answered.content)["code"] == "unsupported", said
    assert set(answered.headers) >= SAFE, said
    case.validate_response(answered, checks=CHECKS)


@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value
)
@pytest.mark.parametrize("operation", operations(), ids=str)
def test_no_call_fails_whatever_is_sent(fuzzed, operation, mode):
    described = SCHEMA[operation.path][operation.method]
    is_short = fuzzed.callers.running.database.is_postgresql and EXAMPLES <= 20
    who = ("admin", "admin", "reader")

    @seed(SEED)
    @settings(
        max_examples=max(1, EXAMPLES // 3 if is_short else EXAMPLES),
        database=None,
        deadline=None,
        phases=(Phase.generate,) if EXAMPLES <= 20 else (Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=described.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        check(fuzzed, who[zlib.crc32(repr((case.path_parameters, case.query)).encode()) % 3], case)

    # a call without parameters can only be sent rightly
    with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
        send()


def test_who_sent_it_is_still_there(fuzzed):
    for who, token in fuzzed.tokens.items():
        answered = requests.get(
            f"{fuzzed.callers.url}/accounts/whoami", headers={"X-Rucio-Auth-Token": token}, timeout=20
        )
        assert answered.json()["role"] == who
        assert token not in repr(fuzzed.logged)
    assert PASSWORD not in repr(fuzzed.logged)
    with fuzzed.callers.running.database.snapshot() as connection:
        assert (
            connection.scalar(select(account_table.c.role).where(account_table.c.name == FUZZER)) == "admin"
        )
