"""The ledger in people's hands: retry, park, drop, wake, what may be held, and what is written down of it."""

from __future__ import annotations

import socket
import time
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from arriero.registry.arrival_words import ChangeArrivals
from arriero.registry.errors import InvalidInput, NotFound
from arriero.registry.models import ArrivalOutcome, NewButler, NewToken
from arriero.registry.schema.tables import arrivals, audit_log, replicas
from arriero.registry.states import ReplicaState
from arriero.registry.store.arrivals import record_arrivals
from arriero.scheduler.sweeps import sweep_arrivals
from support.catalogue import add_files, add_rse, add_scope

BUTLER = "in2p3"


@pytest.fixture
def agent(registry):
    add_scope(registry.database, "raw")
    rse_id = add_rse(registry.database, "IN2P3_RAW_DISK")
    client = registry.client()
    client.add_butler(
        NewButler(name=BUTLER, uri="/repo", rses=[{"rse": "IN2P3_RAW_DISK"}], selections=[{"scope": "raw"}])
    )
    token = client.create_token(NewToken(label="agent", lifetime_s=600, butlers=[BUTLER])).token
    land(registry, rse_id, [f"{word}.fits" for word in ("bad", "cut", "early", "fine", "gone")])
    return registry.client(token=token)


def land(registry, rse_id, names):
    ids = add_files(registry.database, rse_id, names)
    with registry.database.transaction() as connection:
        record_arrivals(
            connection, select(replicas.c.file_id, replicas.c.rse_id).where(replicas.c.file_id.in_(ids))
        )


def change(client, action, **chosen):
    return client.change_arrivals(ChangeArrivals(action=action, butler=BUTLER, **chosen))


def reported(agent):
    """Two have failed, one is parked, one is ingested, one is pending."""
    files = {file.name: file for file in agent.claim_arrivals(BUTLER, "w", 10, 0, 60)}

    def outcome(name, state, **more):
        return ArrivalOutcome(id=files[name].id, fence=files[name].fence, state=state, **more)

    said = [
        outcome("bad.fits", "failed", code="malformed_fits", reason="no END"),
        outcome("cut.fits", "failed", code="butler_refused", reason="no such type"),
        outcome("early.fits", "parked", code="missing_dimension", reason="no visit", waits_for="visit=1"),
        outcome("fine.fits", "ingested", dataset_id=uuid4()),
        outcome("gone.fits", "failed", code="butler_unavailable", reason="its database is away"),
    ]
    assert agent.report_arrivals(said) == []
    return files


def by_name(client):
    return {file.name.removesuffix(".fits"): file for file in client.butler_files(BUTLER)}


def test_people_change_what_is_not_ingested(registry, agent):
    reported(agent)
    files = by_name(agent)
    assert {name: file.state for name, file in files.items()} == {
        "bad": "failed",
        "cut": "failed",
        "early": "parked",
        "fine": "ingested",
        "gone": "pending",
    }
    assert (files["gone"].attempt, files["gone"].may_hold) == (0, True), "no attempt is burnt by an outage"
    assert [name for name, file in files.items() if file.may_hold] == ["gone"]
    assert change(agent, "retry", code="malformed_fits", dry_run=True) == 1
    assert by_name(agent)["bad"].state == "failed"
    assert change(agent, "retry", code="malformed_fits") == 1
    assert (by_name(agent)["bad"].state, by_name(agent)["bad"].attempt) == ("pending", 0)
    assert change(agent, "park", name="bad*", reason="asked the observers") == 1
    parked = by_name(agent)["bad"]
    assert (parked.state, parked.waits_for, parked.reason) == ("parked", "operator", "asked the observers")
    assert change(agent, "drop", ids=(files["cut"].id, files["fine"].id, files["gone"].id)) == 1, (
        "held ones stay"
    )
    assert change(agent, "drop", name="gone*", force=True) == 1
    assert {name for name, file in by_name(agent).items() if file.state == "released"} == {"cut", "gone"}
    assert change(agent, "retry", scope="raw") == 2, "what was let go comes back only when it is meant"
    assert change(agent, "retry", state="released") == 2
    with pytest.raises(InvalidInput, match="arriero arrival release"):
        change(agent, "drop", state="ingested")
    with pytest.raises(NotFound):
        registry.client().butler_status("none")
    status = agent.butler_status(BUTLER)
    assert status.states == {"ingested": 1, "pending": 4}
    assert (status.lag_files, status.last_ingest is not None) == (1, True)


def test_what_is_waited_for_is_known_and_woken(registry, agent):
    reported(agent)
    assert [(one.waits_for, one.files) for one in agent.prerequisites(BUTLER)] == [("visit=1", 1)]
    assert agent.claim_arrivals(BUTLER, "w", 10, 0, 60) == []
    assert agent.wake_arrivals(BUTLER, ["visit=2"]) == 0
    assert agent.wake_arrivals(BUTLER, ["visit=1", "visit=2"]) == 1
    assert [file.name for file in agent.claim_arrivals(BUTLER, "w", 10, 0, 60)] == ["early.fits"]


def test_every_change_is_written_down(registry, agent):
    with registry.database.transaction() as connection:
        connection.execute(update(replicas).values(state=ReplicaState.UNAVAILABLE))
    assert agent.claim_arrivals(BUTLER, "w", 10, 0, 60) == []
    assert details(registry, "arrival_claim") == [{"files": 0, "worker": "w", "put_off": 5}]
    with registry.database.transaction() as connection:
        connection.execute(update(replicas).values(state=ReplicaState.AVAILABLE))
        connection.execute(update(arrivals).values(not_before=arrivals.c.created_at))
    files = agent.claim_arrivals(BUTLER, "w", 10, 0, 60)
    assert agent.extend_arrivals([(file.id, file.fence) for file in files], 60) == []
    assert details(registry, "arrival_report") == [{"extended": 5}]


def details(registry, action):
    with registry.database.snapshot() as connection:
        return list(connection.scalars(select(audit_log.c.detail).where(audit_log.c.action == action)))


def test_nothing_is_leased_to_an_agent_that_was_killed_while_it_waited(registry, agent):
    files = agent.claim_arrivals(BUTLER, "w", 10, 0, 60)
    host, port = registry.url.removeprefix("http://").split(":")
    body = b'{"butler": "in2p3", "worker": "killed", "wait_s": 20}'
    token = registry.client().create_token(NewToken(label="two", lifetime_s=60, butlers=[BUTLER])).token
    waiting = socket.create_connection((host, int(port)))
    waiting.sendall(
        b"POST /arrivals/claim HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        + f"X-Rucio-Auth-Token: {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    time.sleep(0.4)
    waiting.close()
    # at the moment at which it is gone, everything is due again
    released = [
        ArrivalOutcome(id=f.id, fence=f.fence, state="failed", code="x", reason="y", retryable=True)
        for f in files
    ]
    agent.report_arrivals(released)
    with registry.database.transaction() as connection:
        connection.execute(update(arrivals).values(not_before=arrivals.c.created_at))
    time.sleep(0.8)
    assert {file.state for file in by_name(agent).values()} == {"pending"}


def test_what_is_written_too_late_is_held_all_the_same(registry, agent):
    late = {file.name: file for file in agent.claim_arrivals(BUTLER, "w", 10, 0, 60)}
    with registry.database.transaction() as connection:
        connection.execute(update(arrivals).values(lease_until=arrivals.c.created_at))
    assert sweep_arrivals(registry.context) == 5
    assert change(agent, "drop", name="bad*", force=True) == 1
    assert not by_name(agent)["bad"].may_hold
    file = late["bad.fits"]
    said = ArrivalOutcome(id=file.id, fence=file.fence, state="ingested", dataset_id=uuid4())
    assert agent.report_arrivals([said]) == [file.id]
    found = by_name(agent)["bad"]
    assert (found.state, found.may_hold) == ("released", True), "its replica is not deleted"


def test_metadata_that_come_after_a_file_have_it_looked_at_anew(agent, registry):
    client = registry.client()
    reported(agent)
    change(agent, "park", name="cut.fits", reason="wait for Anna")
    with registry.database.snapshot() as connection:
        rse_id = connection.scalar(select(arrivals.c.rse_id).limit(1))
    land(registry, rse_id, ["held.fits"])
    [held] = agent.claim_arrivals(BUTLER, "w", 10, 0, 60)
    assert held.name == "held.fits"
    client.set_metadata_bulk("raw", "bad.fits", {"colour": "red"})
    assert state(client, "bad.fits") == ("failed", 1)

    client.add_did("raw", "night", "DATASET")
    client.attach_dids("raw", "night", [{"scope": "raw", "name": name} for name in ("bad.fits", "cut.fits")])
    everything = {"meta": {"rubin_butler": "raw_file"}, "recursive": True}
    client._call("POST", "/dids/raw/night/meta", body=everything)
    for name in ("early.fits", "fine.fits", "held.fits"):
        client.set_metadata_bulk("raw", name, {"rubin_sidecar": "{}"})
    assert state(client, "bad.fits") == ("pending", 0)
    assert state(client, "early.fits") == ("pending", 0)
    assert state(client, "fine.fits") == ("ingested", 1), "what is in the Butler stays"
    assert state(client, "cut.fits")[0] == "parked", "somebody wants it to wait"
    late = ArrivalOutcome(id=held.id, fence=held.fence, state="failed", code="unrecognised_file", reason="?")
    assert agent.report_arrivals([late]) == [held.id], "what was made of it by the old metadata"
    assert state(client, "held.fits") == ("pending", 0)
    again = {file.name: file.meta for file in agent.claim_arrivals(BUTLER, "w", 10, 0, 60)}
    assert again["bad.fits"] == {"colour": "red", "rubin_butler": "raw_file"}


def state(client, name):
    [one] = client.list_arrivals(name=name)
    return one.state, one.attempt
