"""The worker loop against a catalogue in memory that keeps leases and fences as the real one does."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid5

import pytest
from structlog.testing import capture_logs

from arriero.agent.arrivals import ArrivalQueue, IngestWorker, Writer
from arriero.agent.backoff import Backoff
from arriero.agent.ingest.errors import FirstFailure
from arriero.agent.ingest.models import Outcome, OutcomeState
from arriero.registry.client import RegistryClient
from support.arrivals_in_memory import NAMESPACE, Away, Catalogue, Forbidden, Memory, files
from support.butler import arrivals


@contextmanager
def running(catalogue: ArrivalQueue, writer: Writer, **options) -> Iterator[threading.Event]:
    stop = threading.Event()
    options = {"batch": 4, "lease_s": 30.0, "wait_s": 0.01, "backoff": Backoff(0.01, 0.05)} | options
    worker = IngestWorker(catalogue, writer, "ccms1", "w1", **options)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(timeout=20)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, f"not within 15 s: {what}"
        time.sleep(0.005)


def test_the_registry_client_is_a_queue():
    for name in ("claim_arrivals", "report_arrivals", "extend_arrivals", "butler"):
        wanted = getattr(ArrivalQueue, name).__annotations__
        assert wanted.keys() <= getattr(RegistryClient, name).__annotations__.keys(), name


def test_everything_is_claimed_ingested_and_reported():
    catalogue, writer = Catalogue(files(10)), Memory()
    with running(catalogue, writer):
        until(lambda: len(catalogue.done) == 10, "ten reports")
    assert [len(batch) for batch in writer.batches] == [4, 4, 2]
    assert catalogue.calls["report"] == 3
    assert {o.state for o in catalogue.done.values()} == {OutcomeState.INGESTED}
    assert not catalogue.rejected


def test_a_full_queue_is_taken_in_ever_larger_batches_each_in_calls_of_what_one_may_name():
    catalogue, release = Catalogue(files(3000)), threading.Event()

    def act(batch):
        if len(batch) > 1000:
            release.wait(15)
        return [Outcome.ingested(f, uuid5(NAMESPACE, f.name)) for f in batch]

    writer = Memory(act)
    with running(catalogue, writer, batch=1300, lease_s=0.3):
        until(lambda: Counter(catalogue.extended)[2800] >= 2, "two extensions of the last")
        release.set()
        until(lambda: len(catalogue.done) == 3000, "all reports")
    assert [len(batch) for batch in writer.batches] == [500, 1000, 1300, 200]
    assert catalogue.largest == 1000
    assert not catalogue.rejected


def test_what_is_claimed_is_ingested_although_the_catalogue_goes_away():
    catalogue, writer = Catalogue(files(3000)), Memory()
    catalogue.trouble_after["claim"] = (3, Away("no route"))
    with running(catalogue, writer, batch=1500):
        until(lambda: len(writer.batches) == 3, "three batches")
        catalogue.trouble_after.clear()
        until(lambda: len(catalogue.done) == 3000, "all reports")
    assert [len(batch) for batch in writer.batches] == [500, 1000, 1000, 500]


def test_an_idle_worker_does_not_hammer_and_stops_at_once():
    catalogue = Catalogue([])
    with running(catalogue, Memory(), wait_s=10.0):
        time.sleep(0.7)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert catalogue.calls["claim"] <= 3


def test_a_catalogue_away_at_the_claim_is_asked_again():
    catalogue, writer = Catalogue(files(3)), Memory()
    catalogue.trouble["claim"] = Away("no route")
    with running(catalogue, writer):
        until(lambda: catalogue.calls["claim"] > 3, "several claims")
        assert not writer.batches
        catalogue.trouble.clear()
        until(lambda: len(catalogue.done) == 3, "three reports")


def test_a_catalogue_away_at_the_report_hears_it_later():
    catalogue, writer = Catalogue(files(12)), Memory()
    catalogue.trouble["report"] = ConnectionResetError("gone")
    with running(catalogue, writer):
        until(lambda: catalogue.calls["report"] > 3, "several reports")
        assert writer.batches == [[1, 2, 3, 4], [5, 6, 7, 8]], "what was claimed ahead is ingested"
        assert len(catalogue.pending) == 4, "nothing new is claimed before what was done is said"
        catalogue.trouble.clear()
        until(lambda: len(catalogue.done) == 12, "twelve reports")
    assert writer.batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


def test_leases_are_kept_while_a_batch_takes_long():
    release = threading.Event()

    def act(batch):
        release.wait(15)
        return [Outcome.ingested(f, uuid5(NAMESPACE, f.name)) for f in batch]

    catalogue = Catalogue(files(2))
    with running(catalogue, Memory(act), lease_s=0.3):
        until(lambda: Counter(catalogue.extended)[1] >= 4, "four extensions, longer than a lease")
        release.set()
        until(lambda: len(catalogue.done) == 2, "two reports")
        time.sleep(0.3)
        extended = len(catalogue.extended)
        time.sleep(0.3)
    assert len(catalogue.extended) == extended, "what is reported is held no longer"


class Slow(Catalogue):
    """One whose answer to a report takes longer than a lease."""

    def report_arrivals(self, outcomes: Sequence[Outcome]) -> list[int]:
        rejected = super().report_arrivals(outcomes)
        time.sleep(0.6)
        return rejected


def test_what_is_just_being_settled_is_not_lost():
    catalogue = Slow(files(3))
    with capture_logs() as logs, running(catalogue, Memory(), lease_s=0.3):
        until(
            lambda: catalogue.calls["claim"] >= 2 and len(catalogue.done) == 3,
            "a report, and a claim after it",
        )
    assert [entry for entry in logs if entry["event"] == "leases lost"] == []


def test_leases_of_a_batch_that_was_not_ingested_run_out():
    attempts = []

    def act(batch):
        attempts.append([f.id for f in batch])
        if len(attempts) == 1:
            raise Away("the repository")
        return [Outcome.ingested(f, uuid5(NAMESPACE, f.name)) for f in batch]

    catalogue = Catalogue(files(2))
    with running(catalogue, Memory(act), lease_s=0.3):
        until(lambda: len(catalogue.done) == 2, "two reports, once the leases have run out")
    assert attempts == [[1, 2], [1, 2]]


def test_leases_are_kept_through_an_outage_of_the_catalogue():
    catalogue, writer = Catalogue(files(1)), Memory()
    catalogue.trouble.update(report=Away("no route"), extend=Away("no route"))
    with running(catalogue, writer, lease_s=0.6):
        until(lambda: catalogue.calls["extend"] >= 2, "attempts to extend")
        catalogue.trouble.pop("extend")
        until(lambda: bool(catalogue.extended), "an extension")
        catalogue.trouble.clear()
        until(lambda: len(catalogue.done) == 1, "the report")


def test_a_rejected_report_is_reconciled_and_costs_the_others_nothing():
    catalogue = Catalogue(files(4))

    def act(batch):
        catalogue.take_over(2, 3)
        failed = Outcome.failed(batch[2], "malformed_fits", "no END card")
        return [Outcome.ingested(f, uuid5(NAMESPACE, f.name)) for f in (*batch[:2], batch[3])] + [failed]

    writer = Memory(act)
    with capture_logs() as logs, running(catalogue, writer):
        until(lambda: len(catalogue.done) == 2, "two reports")
    assert set(catalogue.done) == {1, 4}
    assert writer.held == [[2]], "only what was ingested can be in the Butler"
    (said,) = [entry for entry in logs if entry["event"] == "reports rejected"]
    assert said["arrivals"] == [2, 3]
    assert said["datasets_held"] == [str(uuid5(NAMESPACE, "f2"))]


def test_a_lost_lease_is_said_and_no_longer_extended():
    catalogue = Catalogue(files(2))
    lost = threading.Event()

    def act(batch):
        if not lost.is_set():
            catalogue.take_over(1)
        lost.wait(15)
        return [Outcome.ingested(f, uuid5(NAMESPACE, f.name)) for f in batch]

    with capture_logs() as logs, running(catalogue, Memory(act), lease_s=0.3):
        until(lambda: Counter(catalogue.extended)[2] >= 3, "extensions of the other")
        lost.set()
        until(lambda: catalogue.done.keys() == {1, 2}, "both reports, one of them of a second claim")
    assert catalogue.rejected == [1]
    assert [entry["arrivals"] for entry in logs if entry["event"] == "leases lost"] == [[1]]


def test_a_butler_that_is_away_is_not_walked_through_the_queue():
    def act(batch):
        return [Outcome.failed(f, "butler_unavailable", "down", retryable=True) for f in batch]

    catalogue, writer = Catalogue(files(400)), Memory(act)
    with running(catalogue, writer, batch=1, backoff=Backoff(0.2, 5.0)):
        time.sleep(1.0)
    assert len(writer.batches) <= 5
    assert all(outcome.retryable for outcome in catalogue.done.values())


@pytest.mark.parametrize("call", ["claim", "report"])
def test_what_waiting_does_not_mend_ends_the_worker(call):
    catalogue = Catalogue(files(1))
    catalogue.trouble[call] = Forbidden("token revoked")
    worker = IngestWorker(catalogue, Memory(), "ccms1", "w1", wait_s=0.01)
    with pytest.raises(Forbidden):
        worker.run(threading.Event())
    assert not [thread for thread in threading.enumerate() if thread.name == "leases"]


def test_an_agent_that_fails_fast_reports_and_ends():
    catalogue = Catalogue(files(8))

    def act(batch):
        wrong = [Outcome.failed(f, "malformed_fits", "no END card") for f in batch if f.id == 2]
        late = [Outcome.failed(f, "file_missing", "later", retryable=True) for f in batch if f.id == 1]
        fine = [Outcome.ingested(f, uuid5(NAMESPACE, f.name)) for f in batch if f.id > 2]
        return late + wrong + fine

    worker = IngestWorker(catalogue, Memory(act), "ccms1", "w1", batch=4, wait_s=0.01, fail_fast=True)
    with pytest.raises(FirstFailure, match="f2: no END card"):
        worker.run(threading.Event())
    assert set(catalogue.done) == {1, 2, 3, 4}, "reported, and nothing more claimed"


def test_a_stop_lets_the_batch_in_hand_end():
    entered, release = threading.Event(), threading.Event()

    def act(batch):
        entered.set()
        release.wait(15)
        return [Outcome.ingested(f, uuid5(NAMESPACE, f.name)) for f in batch]

    catalogue = Catalogue(files(12))
    with running(catalogue, Memory(act)) as stop:
        entered.wait(15)
        until(lambda: len(catalogue.pending) == 4, "a batch claimed ahead")
        stop.set()
        release.set()
    assert set(catalogue.done) == set(range(1, 9)), "what was claimed is reported, and nothing more claimed"


def test_a_stop_while_the_catalogue_is_away_leaves_the_rest_to_the_leases():
    catalogue, writer = Catalogue(files(1)), Memory()
    catalogue.trouble["report"] = Away("no route")
    with capture_logs() as logs, running(catalogue, writer):
        until(lambda: catalogue.calls["report"] > 1, "reports")
    assert not catalogue.done
    assert [entry["arrivals"] for entry in logs if entry["event"] == "left unreported"] == [1]


def test_with_a_real_butler(sqlite_repository, new_writer, night):
    landed = [file.model_copy(update={"fence": 0}) for file in arrivals(*night)]
    writer = new_writer(sqlite_repository)
    catalogue = Catalogue(landed)
    with running(catalogue, writer, batch=20):
        until(lambda: len(catalogue.done) == 36, "36 reports")
    again = Catalogue(landed)  # as if no report had ever come through
    with running(again, writer, batch=20):
        until(lambda: len(again.done) == 36, "36 reports")
    assert {i: o.dataset_id for i, o in catalogue.done.items()} == {
        i: o.dataset_id for i, o in again.done.items()
    }
    assert writer.transactions == 3, "two, and one in vain for what was believed to be new"
