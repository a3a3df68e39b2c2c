"""Claims, reports and what they change, on both databases."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence

import pytest
from sqlalchemy import select

from arriero.agent.notifications import transferred
from arriero.registry.schema.base import after
from arriero.registry.states import ReplicaState, RequestState, RuleState
from arriero.scheduler.claim import ClaimedRequest, claim_requests, extend_leases
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.reports import Report, Transfer, failure, released, success
from arriero.scheduler.settle import Settled, settle
from support.database import counted_statements
from support.rubin_messages import RECORDED
from support.scheduling import (
    Catalogue,
    arrivals,
    evaluations,
    events,
    locks,
    replicas,
    request_history,
    requests,
)

SIDECAR = {"rubin_butler": "raw_file", "rubin_sidecar": '{"id":"bad79e54","run":"LATISS/raw/all"}'}

COPIED = Transfer("third_party_pull", 0.5, "SLAC", "davs://slac/x", "davs://in2p3/x", "davs")


def claim(
    catalogue: Catalogue, owner: str = "w", *, limit: int = 100, lease_s: float = 30
) -> list[ClaimedRequest]:
    return catalogue.database.run(lambda tx: claim_requests(tx, owner, limit=limit, lease_s=lease_s))


def settled(catalogue: Catalogue, reports: Sequence[Report]) -> Settled:
    result = settle(catalogue.database, reports, stuck_retry_s=7200)
    catalogue.check_invariants()
    return result


def evaluate(catalogue: Catalogue) -> None:
    Evaluator(catalogue.context).run()


@pytest.fixture
def night(catalogue):
    """A dataset of 5 files at SLAC that a rule wants at IN2P3, evaluated."""

    class Night:
        slac = catalogue.rse("SLAC")
        in2p3 = catalogue.rse("IN2P3")
        files = catalogue.files(5, at=[slac])
        dataset = catalogue.collection("night", children=files)
        rule = catalogue.rule(dataset, "IN2P3")

    evaluate(catalogue)
    return Night()


def test_success_makes_replica_lock_rule_event_arrival_and_history(catalogue, night):
    catalogue.butler("embargo", night.in2p3)
    sidecar = {"id": "bad79e54", "run": "LATISS/raw/all"}
    catalogue.metadata(night.files[0], {"rubin_butler": "raw", "rubin_sidecar": sidecar, "other": 1})
    taken = claim(catalogue)
    assert [request.attempt for request in taken] == [1] * 5
    assert settled(catalogue, [success(request, COPIED) for request in taken[:4]]) == Settled(done=4)
    row = catalogue.rule_row(night.rule)
    assert (row.state, row.locks_ok, row.locks_replicating) == (RuleState.REPLICATING, 4, 1)
    assert settled(catalogue, [success(taken[4], COPIED)]).done == 1

    row = catalogue.rule_row(night.rule)
    assert (row.state, row.locks_ok, row.locks_replicating) == (RuleState.OK, 5, 0)
    assert catalogue.history(night.rule) == [("INJECT", "REPLICATING"), ("REPLICATING", "OK")]
    there = catalogue.rows(select(replicas).where(replicas.c.rse_id == night.in2p3))
    assert {row.state for row in there} == {ReplicaState.AVAILABLE}
    assert all(row.verified_at is not None for row in there)
    assert catalogue.count(requests) == 0
    past = catalogue.rows(select(request_history))
    assert {(row.state, row.mode, row.seconds) for row in past} == {
        (RequestState.DONE, "third_party_pull", 0.5)
    }
    assert catalogue.count(arrivals, rse_id=night.in2p3, state="pending") == 5
    assert catalogue.event_types() == ["transfer-done"] * 4 + ["rule-ok", "transfer-done"]
    first = catalogue.rows(select(events.c.payload, events.c.key).order_by(events.c.id))[0]
    assert first.payload["rubin_butler"] == "raw"
    assert first.payload["rubin_sidecar"] == sidecar
    assert "other" not in first.payload


def test_a_file_that_is_brought_again_is_ingested_again(catalogue, night):
    """What failed there, or waits for its replica; what is in the Butler, or was let go, stays."""
    butler = catalogue.butler("embargo", night.in2p3)
    before = [
        ("failed", "malformed_fits"),
        ("pending", "replica_not_available"),
        ("parked", "missing_dimension"),
        ("ingested", None),
        ("released", "dropped"),
    ]
    with catalogue.database.transaction() as tx:
        for file, (state, code) in zip(night.files, before, strict=True):
            values = {"butler_id": butler, "file_id": file, "rse_id": night.in2p3, "attempt": 8}
            said = {"code": code, "reason": code, "waits_for": "visit=1" if state == "parked" else None}
            tx.execute(arrivals.insert().values(**values, **said, state=state))
    catalogue.age(arrivals, -3600, "not_before")
    assert settled(catalogue, [success(request, COPIED) for request in claim(catalogue)]).done == 5
    rows = catalogue.rows(select(arrivals).order_by(arrivals.c.file_id))
    assert [(row.state, row.code) for row in rows] == [("pending", None), ("pending", None), *before[2:]]
    assert [row.attempt for row in rows] == [0, 0, 8, 8, 8]
    assert [row.fence for row in rows] == [1, 1, 0, 0, 0]


def test_transfer_done_has_the_keys_that_rubins_ingest_reads(catalogue, night):
    (request, *_) = claim(catalogue)
    catalogue.metadata(request.file_id, SIDECAR)
    settled(catalogue, [success(request, COPIED)])
    (event,) = catalogue.rows(select(events))
    recorded = RECORDED["payload"]
    payload = event.payload
    assert set(payload) == set(recorded), "as in the message that ctrl_ingestd's tests hold"
    for key, value in recorded.items():
        if payload[key] is not None and value is not None:
            assert isinstance(payload[key], int | float if isinstance(value, int) else type(value)), key
    message = json.loads(json.dumps({"event_type": event.event_type, "payload": payload}))
    read = transferred(message)
    assert read is not None
    assert (read.scope, read.rse, read.bytes, read.meta) == ("raw", "IN2P3", 1000, SIDECAR)
    assert (payload["scope"], payload["dataset"], payload["datasetScope"]) == ("raw", "night", "raw")
    assert (payload["src-rse"], payload["dst-rse"], payload["dst-url"]) == ("SLAC", "IN2P3", "davs://in2p3/x")
    assert payload["checksum-adler"] == "0a0b0c0d"
    assert payload["bytes"] == payload["file-size"] == 1000
    assert payload["transferred_at"] >= payload["started_at"] >= payload["created_at"]


def test_a_retryable_failure_goes_back_to_the_queue_and_waits(catalogue, night):
    taken = claim(catalogue)
    settings = catalogue.context.settings
    report = failure(taken[0], settings, "unavailable", "IN2P3 answers 503", retryable=True)
    assert settled(catalogue, [report]).retried == 1
    row = catalogue.one(select(requests).where(requests.c.id == taken[0].id))
    assert (row.state, row.attempt, row.code, row.reason) == (
        RequestState.QUEUED,
        1,
        "unavailable",
        "IN2P3 answers 503",
    )
    assert (row.lease_owner, row.lease_until) == (None, None)
    assert catalogue.rule_row(night.rule).state == RuleState.REPLICATING
    assert catalogue.event_types() == ["transfer-failed"]
    assert claim(catalogue) == []
    catalogue.age(requests, 3600, "not_before")
    (again,) = claim(catalogue)
    assert (again.id, again.attempt, again.fence) == (taken[0].id, 2, taken[0].fence + 1)


def test_a_permanent_failure_makes_locks_and_rules_stuck_and_is_tried_again_later(catalogue, night):
    sharing = catalogue.rule(night.dataset, "IN2P3|IN2P3")
    evaluate(catalogue)
    taken = claim(catalogue)
    settings = catalogue.context.settings
    bad = failure(taken[0], settings, "source_mismatch", "adler32 is 1, not 2", retryable=False)
    result = settled(catalogue, [bad, *(success(request, COPIED) for request in taken[1:])])
    assert (result.done, result.failed) == (4, 1)
    for rule in (night.rule, sharing):
        row = catalogue.rule_row(rule)
        assert (row.state, row.locks_ok, row.locks_stuck, row.code) == (
            RuleState.STUCK,
            4,
            1,
            "source_mismatch",
        )
        assert "adler32 is 1, not 2" in row.reason
        assert row.stuck_at is not None
    replica = catalogue.one(
        select(replicas).where(replicas.c.rse_id == night.in2p3, replicas.c.file_id == taken[0].file_id)
    )
    assert (replica.state, replica.code) == (ReplicaState.UNAVAILABLE, "source_mismatch")
    request = catalogue.one(select(requests))
    assert (request.state, request.code) == (RequestState.FAILED, "source_mismatch")
    lock = catalogue.rows(select(locks).where(locks.c.code.is_not(None)))
    assert {row.code for row in lock} == {"source_mismatch"}
    assert catalogue.count(evaluations) == 2

    evaluate(catalogue)
    assert claim(catalogue) == []
    # attaching wakes the rule, but not what has just failed
    catalogue.wake(night.rule)
    evaluate(catalogue)
    assert claim(catalogue) == []
    catalogue.age(evaluations, 1, "not_before", "retry_at")
    catalogue.age(replicas, 7300, "updated_at")
    evaluate(catalogue)
    row = catalogue.rule_row(night.rule)
    assert (row.state, row.locks_ok, row.locks_replicating, row.reason) == (RuleState.REPLICATING, 4, 1, None)
    (again,) = claim(catalogue)
    assert (again.id, again.attempt) == (taken[0].id, 1)
    settled(catalogue, [success(again, COPIED)])
    assert {catalogue.rule_row(rule).state for rule in (night.rule, sharing)} == {RuleState.OK}


def test_attempts_end(catalogue, night):
    attempts = catalogue.context.settings.transfer_max_attempts
    for attempt in range(1, attempts + 1):
        (request,) = claim(catalogue, limit=1)
        report = failure(request, catalogue.context.settings, "timed_out", "no answer", retryable=True)
        result = settled(catalogue, [report])
        assert (result.failed == 1) is (attempt == attempts)
        with catalogue.database.transaction() as tx:
            tx.execute(
                requests.update()
                .where(requests.c.id == request.id)
                # before all others of its lane
                .values(not_before=after(-3600.0))
            )
    row = catalogue.rule_row(night.rule)
    assert (row.state, row.locks_stuck) == (RuleState.STUCK, 1)
    assert f"given up after {attempts} attempts" in row.reason


def test_a_report_of_a_worker_that_was_given_up_is_discarded(catalogue, night):
    slow = claim(catalogue, "slow")
    catalogue.age(requests, 60, "lease_until")
    from arriero.scheduler.sweeps import sweep_requests

    assert sweep_requests(catalogue.context) == 5
    assert {row.code for row in catalogue.rows(select(requests))} == {"lease_expired"}
    catalogue.age(requests, 60, "not_before")
    quick = claim(catalogue, "quick")
    assert [request.fence for request in quick] == [request.fence + 1 for request in slow]
    assert settled(catalogue, [success(request, COPIED) for request in slow]) == Settled(discarded=5)
    assert catalogue.count(replicas, rse_id=night.in2p3, state=ReplicaState.AVAILABLE) == 0
    assert settled(catalogue, [success(request, COPIED) for request in quick]).done == 5
    again = [success(request, COPIED) for request in quick]
    assert settled(catalogue, again) == Settled(discarded=5)
    assert catalogue.event_types().count("transfer-done") == 5


def test_a_worker_that_gets_its_own_request_again_is_not_believed_about_the_first_time(catalogue, night):
    before = claim(catalogue, "w")
    settled(catalogue, [released(request, "stopped") for request in before])
    again = claim(catalogue, "w")
    assert [request.id for request in again] == [request.id for request in before]
    assert settled(catalogue, [success(request, COPIED) for request in before]) == Settled(discarded=5)
    assert settled(catalogue, [success(request, COPIED) for request in again]).done == 5


def test_a_request_that_is_given_back_costs_no_attempt(catalogue, night):
    taken = claim(catalogue)
    assert settled(catalogue, [released(request, "stopped") for request in taken]).released == 5
    assert [request.attempt for request in claim(catalogue)] == [1] * 5


def test_leases_are_extended_and_lost(catalogue, night):
    taken = claim(catalogue, "w", limit=2)
    ids = [request.id for request in taken]
    still = catalogue.database.run(lambda tx: extend_leases(tx, "w", ids, lease_s=60))
    assert still == {(request.id, request.fence) for request in taken}
    assert catalogue.database.run(lambda tx: extend_leases(tx, "other", ids, lease_s=60)) == frozenset()
    settled(catalogue, [success(taken[0], COPIED)])
    still = catalogue.database.run(lambda tx: extend_leases(tx, "w", ids, lease_s=60))
    assert still == {(taken[1].id, taken[1].fence)}


def test_urgent_requests_come_first(catalogue, night):
    urgent = catalogue.files(2, prefix="urgent", at=[night.slac])
    catalogue.rule(catalogue.collection("urgent", children=urgent), "IN2P3", priority=5)
    evaluate(catalogue)
    assert {request.file_id for request in claim(catalogue, limit=2)} == set(urgent)
    assert {request.file_id for request in claim(catalogue)} == set(night.files)


def test_workers_never_claim_the_same(catalogue):
    slac, in2p3 = catalogue.rse("SLAC"), catalogue.rse("IN2P3")
    files = catalogue.files(400, at=[slac])
    catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    evaluate(catalogue)
    taken: dict[str, list[int]] = {}

    def work(owner: str) -> None:
        mine = taken.setdefault(owner, [])
        empty = 0
        while empty < 3:
            batch = [request.id for request in claim(catalogue, owner, limit=17)]
            empty = 0 if batch else empty + 1
            mine.extend(batch)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = [request for mine in taken.values() for request in mine]
    assert len(every) == len(set(every)) == 400
    assert catalogue.count(requests, state=RequestState.SUBMITTED, destination_id=in2p3) == 400


def test_a_success_wakes_rules_that_have_waited_for_a_source(catalogue):
    first, second, third = (catalogue.rse(name) for name in ("FIRST", "SECOND", "THIRD"))
    files = catalogue.files(1, at=[first])
    night = catalogue.collection("night", children=files)
    waiting = catalogue.rule(night, "THIRD", source_replica_expression="SECOND")
    catalogue.rule(night, "SECOND")
    evaluate(catalogue)
    assert catalogue.rule_row(waiting).code == "no_source"
    (request,) = claim(catalogue)
    assert request.destination_id == second
    assert settled(catalogue, [success(request, COPIED)]).evaluations == 1
    evaluate(catalogue)
    (request,) = claim(catalogue)
    assert request.destination_id == third


def test_settling_takes_the_same_statements_for_one_file_and_for_a_hundred(catalogue, record_property):
    slac, _ = catalogue.rse("SLAC"), catalogue.rse("IN2P3")
    files = catalogue.files(1101, at=[slac])
    rule = catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
    evaluate(catalogue)
    counts = []
    for size in (1, 100):
        batch = [success(request, COPIED) for request in claim(catalogue, limit=size)]
        with counted_statements(catalogue.database) as statements:
            settle(catalogue.database, batch, stuck_retry_s=7200)
        counts.append(len(statements))
    assert counts[0] == counts[1]
    took = 0.0
    while batch := [success(request, COPIED) for request in claim(catalogue, limit=100)]:
        begun = time.monotonic()
        settle(catalogue.database, batch, stuck_retry_s=7200)
        took += time.monotonic() - begun
    record_property("settle", f"{counts[0]} statements, {1000 / took:.0f} files/s")
    print(f"{catalogue.database.engine.dialect.name}: {counts[0]} statements, {1000 / took:.0f} files/s")
    assert catalogue.rule_row(rule).state == RuleState.OK
    catalogue.check_invariants()


def test_rules_that_come_while_a_batch_is_settled_are_settled_too(catalogue, night):
    """Two threads: one settles, the other adds rules on the same files and evaluates them."""
    taken = claim(catalogue)
    faults: list[Exception] = []

    def add_rules() -> None:
        try:
            for number in range(6):
                catalogue.rule(night.dataset, "IN2P3" + "|IN2P3" * (number + 1))
                evaluate(catalogue)
        except Exception as error:  # noqa: BLE001 - shown by the test
            faults.append(error)

    other = threading.Thread(target=add_rules)
    other.start()
    for request in taken:
        settle(catalogue.database, [success(request, COPIED)], stuck_retry_s=7200)
    other.join()
    assert faults == []
    evaluate(catalogue)
    catalogue.check_invariants()
    from support.scheduling import rules

    found = catalogue.rows(select(rules.c.state, rules.c.locks_ok))
    assert {(row.state, row.locks_ok) for row in found} == {(RuleState.OK, 5)}
