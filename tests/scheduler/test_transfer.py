"""Runs of copies: with a mover that moves nothing, and between two real XRootD servers."""

from __future__ import annotations

import threading
import time
import zlib

import pytest
from sqlalchemy import select

from arriero.registry.schema.tables import rse_abilities
from arriero.registry.states import ReplicaState, RequestState, RuleState
from arriero.rse.errors import NotFound, TransferFailed
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.sweeps import sweep_requests
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.transfer import TransferRunner
from support.scheduling import Catalogue, dids, evaluations, replicas, request_history, requests


def runner(catalogue: Catalogue, mover: ScriptedMover | None = None, **settings) -> TransferRunner:
    changed = catalogue.context.settings.model_copy(update=settings)
    context = type(catalogue.context)(catalogue.database, changed, catalogue.bells)
    made = mover or ScriptedMover()
    return TransferRunner(context, make_mover=lambda: made)


def evaluate(catalogue: Catalogue) -> None:
    Evaluator(catalogue.context).run()


@pytest.fixture
def sites(catalogue):
    slac = catalogue.rse("SLAC", protocol={"prefix": "/raw"}, attributes={"lfn2pfn_algorithm": "identity"})
    in2p3 = catalogue.rse("IN2P3", protocol={"prefix": "/sps"})
    return slac, in2p3


def test_everything_that_is_due_is_copied_and_settled(catalogue, sites):
    slac, _ = sites
    files = catalogue.files(250, at=[slac])
    rule = catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    evaluate(catalogue)
    mover = ScriptedMover()
    summary = runner(catalogue, mover).run()
    assert (summary.claimed, summary.done) == (250, 250)
    assert catalogue.rule_row(rule).state == RuleState.OK
    assert catalogue.count(requests) == 0
    catalogue.check_invariants()
    order = mover.copied[0].order
    name = catalogue.one(select(dids.c.name).where(dids.c.id == mover.copied[0].request.file_id)).name
    assert order.source.url(order.source_path) == f"https://slac.example.org:1094/raw/raw/{name}"
    assert order.destination_path.startswith("raw/")
    assert order.destination_path.endswith(f"/{name}")
    assert order.destination_path != f"raw/{name}", "IN2P3 names no algorithm: the hash is the default"
    assert (order.adler32, order.bytes) == ("0a0b0c0d", 1000)
    assert len({copy.order.attempt_name for copy in mover.copied}) == 250


def test_the_nearest_source_is_read_and_another_one_after_a_failure(catalogue, sites):
    slac, in2p3 = sites
    near = catalogue.rse("NEAR")
    catalogue.distance(slac, in2p3, 5)
    catalogue.distance(near, in2p3, 1)
    files = catalogue.files(1, at=[slac, near])
    catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    evaluate(catalogue)
    tried: list[str] = []

    def script(copy):
        tried.append(copy.order.source.rse)
        return NotFound("it is not there") if copy.order.source.rse == "NEAR" else None

    first = runner(catalogue, ScriptedMover(script)).run()
    assert (first.retried, first.done) == (1, 0)
    request = catalogue.one(select(requests))
    assert (request.source_id, request.code) == (near, "not_found")
    catalogue.age(requests, 60, "not_before")
    assert runner(catalogue, ScriptedMover(script)).run().done == 1
    assert tried == ["NEAR", "SLAC"]


def test_without_a_readable_source_the_request_waits_with_the_reason(catalogue, sites):
    slac, _ = sites
    files = catalogue.files(1, at=[slac])
    rule = catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    evaluate(catalogue)
    catalogue.set_replica(files[0], slac, ReplicaState.TEMPORARY_UNAVAILABLE)
    assert runner(catalogue).run().retried == 1
    request = catalogue.one(select(requests))
    assert (request.state, request.code, request.attempt) == (RequestState.QUEUED, "no_source", 1)
    catalogue.age(requests, 60, "not_before")
    assert runner(catalogue, transfer_max_attempts=2).run().failed == 1
    row = catalogue.rule_row(rule)
    assert (row.state, row.code, row.locks_stuck) == (RuleState.STUCK, "no_source", 1)
    catalogue.set_replica(files[0], slac, ReplicaState.AVAILABLE)
    catalogue.wake(rule)
    evaluate(catalogue)
    assert runner(catalogue).run().done == 1
    assert catalogue.rule_row(rule).state == RuleState.OK
    catalogue.check_invariants()


def test_an_rse_without_a_protocol_to_write_with_fails_at_once(catalogue, sites):
    slac, _ = sites
    catalogue.rse("READONLY", protocol={"domains": {"wan": {"read": 1}}})
    files = catalogue.files(1, at=[slac])
    rule = catalogue.rule(catalogue.collection("night", children=files), "READONLY")
    evaluate(catalogue)
    assert runner(catalogue).run().failed == 1
    row = catalogue.rule_row(rule)
    assert row.code == "no_protocol"
    assert "READONLY" in row.reason


def test_an_rse_that_came_after_the_last_run_is_copied_to(catalogue, sites):
    slac, _ = sites
    files = catalogue.files(1, at=[slac])
    night = catalogue.collection("night", children=files)
    catalogue.rule(night, "IN2P3")
    evaluate(catalogue)
    worker = runner(catalogue)
    assert worker.run().done == 1
    catalogue.rse("LATER")
    catalogue.rule(night, "LATER")
    evaluate(catalogue)
    assert worker.run().done == 1


def test_leases_are_held_while_a_copy_takes_long(catalogue, sites):
    slac, _ = sites
    files = catalogue.files(3, at=[slac])
    catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    evaluate(catalogue)
    mover = ScriptedMover(hold=True)
    run = runner(catalogue, mover, transfer_lease_s=0.6)
    thread = threading.Thread(target=run.run)
    thread.start()
    for _ in range(4):
        time.sleep(0.5)
        assert sweep_requests(catalogue.context) == 0
    mover.release()
    thread.join()
    assert catalogue.count(request_history, state=RequestState.DONE) == 3


def test_work_whose_lease_was_lost_is_ended_and_does_not_count(catalogue, sites):
    slac, _ = sites
    files = catalogue.files(2, at=[slac])
    catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    evaluate(catalogue)
    mover = ScriptedMover(hold=True)
    run = runner(catalogue, mover, transfer_lease_s=0.6)
    summaries = []
    thread = threading.Thread(target=lambda: summaries.append(run.run()))
    thread.start()
    while not catalogue.count(requests, state=RequestState.SUBMITTED):
        time.sleep(0.02)
    catalogue.age(requests, 60, "lease_until")
    assert sweep_requests(catalogue.context) == 2
    catalogue.age(requests, -3600, "not_before")
    thread.join(20)
    assert (summaries[0].done, summaries[0].discarded) == (0, 2)
    assert mover.copied == []
    assert {row.state for row in catalogue.rows(select(requests))} == {RequestState.QUEUED}


def test_a_stopped_run_gives_its_requests_back(catalogue, sites):
    slac, _ = sites
    files = catalogue.files(5, at=[slac])
    catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    evaluate(catalogue)
    stopped = threading.Event()
    mover = ScriptedMover(hold=True)
    run = TransferRunner(catalogue.context, make_mover=lambda: mover, stopping=stopped.is_set)
    thread = threading.Thread(target=run.run)
    thread.start()
    while not catalogue.count(requests, state=RequestState.SUBMITTED):
        time.sleep(0.02)
    stopped.set()
    thread.join(20)
    assert not thread.is_alive()
    found = catalogue.rows(select(requests))
    assert {(row.state, row.attempt, row.lease_owner) for row in found} == {(RequestState.QUEUED, 0, None)}
    catalogue.check_invariants()


def test_one_failing_rse_holds_up_no_other(catalogue, sites):
    slac, in2p3 = sites
    broken = catalogue.rse("BROKEN")
    files = catalogue.files(20, at=[slac])
    night = catalogue.collection("night", children=files)
    good, bad = catalogue.rule(night, "IN2P3"), catalogue.rule(night, "BROKEN")
    evaluate(catalogue)

    def script(copy):
        fails = copy.order.destination.rse == "BROKEN"
        return TransferFailed("connection reset") if fails else None

    for _ in range(6):
        runner(catalogue, ScriptedMover(script)).run()
        catalogue.age(requests, 3600, "not_before")
    assert catalogue.rule_row(good).state == RuleState.OK
    row = catalogue.rule_row(bad)
    assert (row.state, row.locks_stuck, row.code) == (RuleState.STUCK, 20, "transfer_failed")
    assert "connection reset" in row.reason
    assert catalogue.count(replicas, rse_id=in2p3, state=ReplicaState.AVAILABLE) == 20
    assert catalogue.count(replicas, rse_id=broken, state=ReplicaState.UNAVAILABLE) == 20
    assert catalogue.count(evaluations) == 1
    catalogue.check_invariants()


def assert_spares_the_next_one_the_trial(catalogue, context, destination, in2p3):
    """What a process has found out of a storage is known to the next one, until it is old."""
    kept = catalogue.one(select(rse_abilities).where(rse_abilities.c.rse_id == destination))
    assert kept.origin == f"https://127.0.0.1:{in2p3.port}"
    assert kept.abilities["third_party_pull"]
    assert kept.abilities["server"].startswith("xrootd")
    pool = ProtocolPool()
    TransferRunner(context, pool=pool).run()
    told = Endpoint("IN2P3", "davs", "127.0.0.1", in2p3.port, in2p3.prefix, str(in2p3.ca_bundle))
    assert pool.learnt() == {}
    proved = pool.get(told).proved
    assert proved is not None
    assert proved.as_dict() == kept.abilities
    catalogue.age(rse_abilities, 4000, "probed_at")
    later = ProtocolPool()
    TransferRunner(context, pool=later).run()
    assert later.get(told).proved is None, "what is old is found out anew"


def test_copies_between_two_real_servers(catalogue, services, tmp_path):
    """Bytes arrive verified under their final names; a wrong checksum in the catalogue never becomes AVAILABLE."""
    slac, in2p3 = services.xrootd_slac, services.xrootd_in2p3
    settings = tmp_path / "credentials.yaml"
    lines = [
        f"{name}: {{ca_bundle: {server.ca_bundle}}}" for name, server in (("SLAC", slac), ("IN2P3", in2p3))
    ]
    settings.write_text("\n".join(lines))

    def add(name, server):
        protocol = {"scheme": "davs", "hostname": "127.0.0.1", "port": server.port, "prefix": server.prefix}
        return catalogue.rse(name, protocol=protocol, attributes={"lfn2pfn_algorithm": "identity"})

    source, destination = add("SLAC", slac), add("IN2P3", in2p3)
    folder = f"raw/{tmp_path.name}"
    contents = {f"{tmp_path.name}/f{number}": bytes([number]) * (1000 + number) for number in range(12)}
    files = []
    with catalogue.database.transaction() as tx:
        for name, content in contents.items():
            slac.write_file(f"raw/{name}", content)
            values = {
                "scope_id": catalogue.scope_id,
                "name": name,
                "type": "FILE",
                "account_id": catalogue.account_id,
                "spread": 0,
                "bytes": len(content),
                "adler32": f"{zlib.adler32(content):08x}",
            }
            files.append(catalogue._insert(tx, dids, **values))
        tx.execute(dids.update().where(dids.c.id == files[-1]).values(adler32="00000001"))
    for file, content in zip(files, contents.values(), strict=True):
        catalogue.replicas([file], source, size=len(content))
    rule = catalogue.rule(catalogue.collection(f"night-{tmp_path.name}", children=files), "IN2P3")
    evaluate(catalogue)
    changed = catalogue.context.settings.model_copy(update={"credentials_file": settings})
    context = type(catalogue.context)(catalogue.database, changed, catalogue.bells)
    summary = TransferRunner(context).run()
    assert (summary.done, summary.failed) == (11, 1), [
        (row.code, row.reason) for row in catalogue.rows(select(requests))
    ]
    row = catalogue.rule_row(rule)
    assert (row.state, row.locks_ok, row.locks_stuck, row.code) == (RuleState.STUCK, 11, 1, "source_mismatch")
    modes = {row.mode for row in catalogue.rows(select(request_history).where(request_history.c.mode != ""))}
    assert modes == {"third_party_pull"}
    found = {path.name: path.read_bytes() for path in (in2p3.data_dir / folder).iterdir()}
    assert found == {name.rpartition("/")[2]: content for name, content in list(contents.items())[:-1]}
    assert catalogue.count(replicas, rse_id=destination, state=ReplicaState.AVAILABLE) == 11
    catalogue.check_invariants()
    assert_spares_the_next_one_the_trial(catalogue, context, destination, in2p3)
