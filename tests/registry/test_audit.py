"""Every call that changes something leaves one row in the audit for each action, in the transaction of the change.

Made from the access matrix: a call is one that changes something unless it is a GET or readers may make it too. Where the
matrix's own call would find nothing to do, `support.acting` has one that does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from arriero.registry.errors import Busy
from arriero.registry.schema.tables import audit_log, metadata
from arriero.registry.services.authorisation import Action
from arriero.registry.store import audit as audit_store
from support.access import ACCESS, Callers
from support.acting import acting_calls
from support.raw import Answer, Sender
from support.server import running_registry

CHANGING = [
    route
    for route, (allowed, _, _) in ACCESS.items()
    if route[0] != "GET" and allowed and "reader" not in allowed
]

SECRETS = re.compile(r"long enough|a long password|correct horse|argon2|arriero_[\w-]{20}")


class Auditor:
    """The administrator, and what the audit has of each call."""

    def __init__(self, callers: Callers) -> None:
        self.callers = callers
        self.database = callers.running.database
        self.sender = Sender(callers.url, callers.tokens["root"])
        self.acting = acting_calls(callers)

    def call(self, route: tuple[str, str], request_id: str) -> Answer:
        path, body = self.acting.get(route) or (self.callers.path_of(route), ACCESS[route][2])
        return self.sender.send(
            route[0],
            path,
            None if body is None else json.dumps(body).encode(),
            {"X-Request-ID": request_id},
        )

    def rows(self, *conditions: object) -> list[object]:
        with self.database.snapshot() as connection:
            return list(connection.execute(select(audit_log).where(*conditions)))

    def contents(self) -> dict[str, list[str]]:
        """Every row of every table."""
        with self.database.snapshot() as connection:
            return {
                table.name: sorted(map(repr, connection.execute(select(table))))
                for table in metadata.sorted_tables
            }


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def auditor(request, services, tmp_path_factory) -> Iterator[Auditor]:
    directory = tmp_path_factory.mktemp("audit")
    with running_registry(services, request.param, directory) as running:
        made = Auditor(Callers(running))
        yield made
        made.sender.close()
        made.callers.close()


def test_what_cannot_be_written_down_is_not_done(auditor, monkeypatch):
    def fail(*_args: object, **_values: object) -> None:
        raise Busy("the disk of the audit is full")

    before = auditor.contents()
    with monkeypatch.context() as patch:
        patch.setattr(audit_store, "append", fail)
        done = [route for route in CHANGING if auditor.call(route, "unwritten").status < 400]
    after = auditor.contents()
    changed = sorted(name for name in before if before[name] != after[name])
    assert changed == []
    # a call that finds nothing to do is no change: nothing is written of it
    assert len(done) < len(CHANGING) / 5, done


def test_each_change_is_written_down_once(auditor):
    faults = []
    idle = []
    after = auditor.contents()
    for number, route in enumerate(CHANGING):
        request_id = f"change-{number:04d}"
        answered = auditor.call(route, request_id)
        before, after = after, auditor.contents()
        is_changed = any(before[name] != after[name] for name in before if name != "audit_log")
        rows = auditor.rows(audit_log.c.request_id == request_id)
        said = f"{route}: {answered.status} {answered.content[:100]!r}: {[tuple(row) for row in rows]}"
        if answered.status >= 400:
            if rows or is_changed:
                faults.append(f"refused, but written or done: {said}")
        elif is_changed and (not rows or len({row.action for row in rows}) != len(rows)):
            faults.append(f"done, but not written once for each action: {said}")
        if not is_changed:
            idle.append(said)
        for row in rows:
            if (
                (row.account, row.allowed) != ("root", True)
                or row.action not in set(Action)
                or not row.object
            ):
                faults.append(f"written wrongly: {said}")
    assert not faults, "\n".join(faults)
    # of the others the call finds nothing to change: it proves nothing here
    assert len(idle) < len(CHANGING) / 4, "\n".join(idle)


def test_a_refused_call_is_written_as_refused_only(auditor):
    for number, route in enumerate(CHANGING):
        if "other" in ACCESS[route][0]:
            continue
        request_id = f"denial-{number:04d}"
        answered = auditor.callers.session.request(
            route[0],
            auditor.callers.url + auditor.callers.path_of(route),
            json=ACCESS[route][2],
            headers={"X-Rucio-Auth-Token": auditor.callers.tokens["other"], "X-Request-ID": request_id},
            timeout=20,
        )
        [row] = auditor.rows(audit_log.c.request_id == request_id)
        assert (answered.status_code, row.account, row.allowed) == (403, "other", False), route
        assert row.action in set(Action)
        assert row.object


def test_no_secret_is_in_the_audit(auditor):
    for row in auditor.rows():
        assert not SECRETS.search(repr(row)), row
    with auditor.database.snapshot() as connection:
        assert connection.scalar(select(func.count()).select_from(audit_log)) > len(CHANGING)
