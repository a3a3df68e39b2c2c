"""The way of one file, and the counts of everything."""

from __future__ import annotations

import re
import uuid

import httpx2
import pytest
from sqlalchemy import insert, select, update

from arriero.registry.errors import NotAuthenticated, NotFound
from arriero.registry.models import ArrivalOutcome, NewButler
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import (
    accounts,
    butlers,
    contents,
    dids,
    locks,
    replicas,
    request_history,
    requests,
    rules,
    scopes,
)
from arriero.registry.states import DidType, LockState, ReplicaState, RequestState, RuleGrouping, RuleState
from arriero.registry.store.arrivals import record_arrivals
from support.catalogue import add_files, add_rse, add_scope
from support.database import counted_statements

NAME = "LSSTComCam/a b%2F.fits"


def add_rule(connection, file_id):
    """A rule on a container that holds a dataset that holds the file; return its id."""
    root = connection.scalar(select(accounts.c.id).where(accounts.c.name == "root"))
    scope_id = connection.scalar(select(scopes.c.id).where(scopes.c.name == "raw"))
    parents = []
    for name, kind in (("Dataset/night", DidType.DATASET), ("Container/all", DidType.CONTAINER)):
        values = {"scope_id": scope_id, "name": name, "type": kind, "account_id": root, "spread": 0}
        parents.append(connection.scalar(insert(dids).values(**values).returning(dids.c.id)))
    dataset, container = parents
    connection.execute(insert(contents).values(parent_id=dataset, child_id=file_id))
    connection.execute(insert(contents).values(parent_id=container, child_id=dataset))
    rule_id = connection.scalar(
        insert(rules)
        .values(
            uuid=uuid.UUID(int=42),
            did_id=container,
            account_id=root,
            rse_expression="IN2P3_RAW_DISK|LANCS_DISK",
            copies=2,
            grouping=RuleGrouping.DATASET,
            state=RuleState.STUCK,
            reason="1 of 2 is stuck",
            activity="User",
            priority=3,
        )
        .returning(rules.c.id)
    )
    assert rule_id is not None
    return rule_id


def add_copies(connection, rule_id, file_id, slac, in2p3, lancs):
    """One copy that was made and one that waits."""
    wanted = {"rule_id": rule_id, "file_id": file_id, "bytes": 2880}
    connection.execute(insert(locks).values(**wanted, rse_id=in2p3, state=LockState.OK))
    connection.execute(
        insert(locks).values(
            **wanted, rse_id=lancs, state=LockState.STUCK, code="no_space", reason="the disk is full"
        )
    )
    connection.execute(
        insert(replicas).values(
            file_id=file_id, rse_id=in2p3, bytes=2880, state=ReplicaState.AVAILABLE, verified_at=now()
        )
    )
    connection.execute(
        insert(request_history).values(
            request_id=7,
            file_id=file_id,
            source_id=slac,
            destination_id=in2p3,
            state=RequestState.DONE,
            attempt=1,
            mode="pull",
            bytes=2880,
            seconds=1.25,
            created_at=now(),
        )
    )
    connection.execute(
        insert(requests).values(
            file_id=file_id,
            destination_id=lancs,
            bytes=2880,
            activity="User",
            priority=3,
            state=RequestState.QUEUED,
            attempt=2,
            code="no_space",
            reason="507 Insufficient Storage",
            not_before=after(90),
        )
    )


@pytest.fixture
def told(registry):
    """A file that went all the way to a Butler at one RSE, and is still wanted at another."""
    database = registry.database
    add_scope(database, "raw")
    slac, in2p3, lancs = (
        add_rse(database, name) for name in ("SLAC_RAW_DISK", "IN2P3_RAW_DISK", "LANCS_DISK")
    )
    [file_id] = add_files(database, slac, [NAME])
    with database.transaction() as connection:
        add_copies(connection, add_rule(connection, file_id), file_id, slac, in2p3, lancs)
    root_client = registry.client()
    root_client.add_butler(
        NewButler(name="in2p3", uri="/repo", rses=[{"rse": "IN2P3_RAW_DISK"}], selections=[{"scope": "raw"}])
    )
    [file] = root_client.claim_arrivals("in2p3", "worker", 1, 0, 60)
    dataset_id = uuid.uuid4()
    root_client.report_arrivals(
        [ArrivalOutcome(id=file.id, fence=file.fence, state="ingested", dataset_id=dataset_id)]
    )
    return root_client.trace("raw", NAME), dataset_id


def test_a_trace_tells_every_step_in_order(told):
    trace, dataset_id = told
    assert (trace.scope, trace.name, trace.type, trace.bytes) == ("raw", NAME, DidType.FILE, 2880)
    [rule] = trace.rules
    assert (rule.id, rule.name, rule.state, rule.reason) == (
        f"{42:032x}",
        "Container/all",
        "STUCK",
        "1 of 2 is stuck",
    )
    assert {(lock.rse, lock.state, lock.code) for lock in trace.locks} == {
        ("IN2P3_RAW_DISK", "OK", None),
        ("LANCS_DISK", "STUCK", "no_space"),
    }
    ended, queued = trace.requests
    assert (ended.source, ended.destination, ended.mode, ended.seconds) == (
        "SLAC_RAW_DISK",
        "IN2P3_RAW_DISK",
        "pull",
        1.25,
    )
    assert (queued.destination, queued.state, queued.reason) == (
        "LANCS_DISK",
        "QUEUED",
        "507 Insufficient Storage",
    )
    assert {replica.rse: replica.verified_at is not None for replica in trace.replicas} == {
        "SLAC_RAW_DISK": False,
        "IN2P3_RAW_DISK": True,
    }
    [arrival] = trace.arrivals
    assert (arrival.state, arrival.dataset_id) == ("ingested", dataset_id)
    steps = [step.step for step in trace.steps]
    assert steps[0] == "registered"
    assert steps[-1] == "ingested"
    assert steps.index("rule") < min(steps.index("attempt"), steps.index("verified"))
    assert max(steps.index("attempt"), steps.index("verified")) < steps.index("arrival")
    assert [step.at for step in trace.steps] == sorted(step.at for step in trace.steps)
    assert all(0 <= step.age_s < 60 for step in trace.steps)
    details = {(step.step, step.where): step for step in trace.steps}
    assert "the disk is full" in details["lock", "LANCS_DISK"].detail
    assert details["attempt", "IN2P3_RAW_DISK"].took_s == 1.25
    assert re.search(r"next in (8\d|90) s", details["request", "LANCS_DISK"].detail)
    assert str(dataset_id) in details["ingested", "in2p3"].detail


def test_a_trace_takes_as_many_statements_whatever_the_number_of_rules(registry, told):
    client = registry.client()
    client.trace("raw", NAME)
    with counted_statements(registry.database) as few:
        client.trace("raw", NAME)
    with registry.database.transaction() as connection:
        row = dict(connection.execute(select(rules)).mappings().one())
        for number in range(20):
            same = {key: value for key, value in row.items() if key != "id"}
            connection.execute(
                insert(rules).values(**{**same, "uuid": uuid.uuid4(), "rse_expression": f"R{number}"})
            )
    with counted_statements(registry.database) as many:
        assert len(client.trace("raw", NAME).rules) == 21
    assert len(few) == len(many)


def test_a_name_that_does_not_exist(registry):
    with pytest.raises(NotFound, match="raw:none") as missing:
        registry.client().trace("raw", "none")
    assert (missing.value.stable_code, missing.value.rucio_class) == (
        "did_not_found",
        "DataIdentifierNotFound",
    )


def test_counts_are_those_of_the_rows(registry, told):
    counts = registry.client().counts()
    assert counts.dids == {"FILE": 1, "DATASET": 1, "CONTAINER": 1}
    assert counts.rules == {"STUCK": 1}
    assert counts.requests == {"QUEUED": 1}
    assert {(row.rse, row.state.value, row.files, row.bytes) for row in counts.replicas} == {
        ("SLAC_RAW_DISK", "AVAILABLE", 1, 2880),
        ("IN2P3_RAW_DISK", "AVAILABLE", 1, 2880),
    }
    assert [(row.butler, row.state.value, row.files) for row in counts.arrivals] == [("in2p3", "ingested", 1)]
    with pytest.raises(NotAuthenticated):
        registry.client(token="none").counts()


def test_the_dashboard_shows_these_counts_without_javascript(registry, told):
    answer = httpx2.get(f"{registry.url}/ui")
    page, policy = answer.text, answer.headers["Content-Security-Policy"]
    assert 'data-key="IN2P3_RAW_DISK AVAILABLE">1<' in page
    assert 'data-key="in2p3 ingested">1<' in page
    assert 'data-key="STUCK">1<' in page
    assert "2.8 KiB" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page), "nothing is loaded from elsewhere"
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    style = httpx2.get(f"{registry.url}/ui/static/style.css")
    assert style.headers["Content-Type"].startswith("text/css")
    paused = httpx2.get(f"{registry.url}/ui?paused=true").text
    assert "http-equiv" in page
    assert "http-equiv" not in paused


def test_the_dashboard_escapes_what_it_shows(registry, told):
    with registry.database.transaction() as connection:
        connection.execute(update(butlers).values(name="<script>alert(1)</script>"))
    page = httpx2.get(f"{registry.url}/ui").text
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_files_outside_the_dashboards_are_not_served(registry):
    for name in ("pages.py", "..%2Fpages.py", "%2e%2e/pages.py"):
        assert httpx2.get(f"{registry.url}/ui/static/{name}").status_code == 404


def test_an_arrival_is_recorded_once(registry, told):
    with registry.database.transaction() as connection:
        record_arrivals(connection, select(replicas.c.file_id, replicas.c.rse_id))
    assert len(registry.client().trace("raw", NAME).arrivals) == 1
