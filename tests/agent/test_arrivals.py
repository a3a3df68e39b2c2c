"""The worker loop against a catalogue in memory that keeps leases and fences as the real one does."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID, uuid5

import pytest
from structlog.testing import capture_logs

from arriero.agent.arrivals import ArrivalQueue, Backoff, IngestWorker, Writer
from arriero.agent.ingest.models import ArrivalFile, ButlerInfo, Outcome, OutcomeState
from arriero.registry.client import RegistryClient
from support.butler import arrivals

NAMESPACE = UUID(int=1)


class Away(Exception):
    retryable = True


class Forbidden(Exception):
    retryable = False


class Catalogue:
    """Arrivals with leases and fences; `trouble` is raised by the calls that it names."""

    def __init__(self, files: Sequence[ArrivalFile]) -> None:
        self.lock = threading.Lock()
        self.files = {file.id: file for file in files}
        self.pending = [file.id for file in files]
        self.leases: dict[int, float] = {}
        self.done: dict[int, Outcome] = {}
        self.trouble: dict[str, Exception] = {}
        self.calls: Counter[str] = Counter()
        self.rejected: list[int] = []
        self.extended: list[int] = []

    def call(self, name: str) -> None:
        with self.lock:
            self.calls[name] += 1
            if error := self.trouble.get(name):
                raise error

    def claim_arrivals(self, butler, worker, limit, wait_s, lease_s) -> list[ArrivalFile]:  # noqa: ARG002
        self.call("claim")
        assert (butler, worker) == ("ccms1", "w1")
        with self.lock:
            now = time.monotonic()
            for id_ in [id_ for id_, until in self.leases.items() if until < now]:
                del self.leases[id_]
                self.pending.append(id_)
            claimed, self.pending = self.pending[:limit], self.pending[limit:]
            for id_ in claimed:
                self.files[id_] = self.files[id_].model_copy(update={"fence": self.files[id_].fence + 1})
                self.leases[id_] = now + lease_s
            return [self.files[id_] for id_ in claimed]

    def report_arrivals(self, outcomes: Sequence[Outcome]) -> list[int]:
        self.call("report")
        with self.lock:
            rejected = [
                o.id for o in outcomes if self.files[o.id].fence != o.fence or o.id not in self.leases
            ]
            for outcome in outcomes:
                if outcome.id not in rejected:
                    self.done[outcome.id] = outcome
                    del self.leases[outcome.id]
            self.rejected += rejected
            return rejected

    def extend_arrivals(self, ids_and_fences, lease_s) -> list[int]:
        self.call("extend")
        with self.lock:
            lost = [
                id_
                for id_, fence in ids_and_fences
                if self.files[id_].fence != fence or id_ not in self.leases
            ]
            for id_, _ in ids_and_fences:
                if id_ not in lost:
                    self.leases[id_] = time.monotonic() + lease_s
                    self.extended.append(id_)
            return lost

    def butler(self, name: str) -> ButlerInfo:
        return ButlerInfo(name=name, uri="file:///repo", instruments=["LSSTComCam"])

    def take_over(self, *ids: int) -> None:
        """Let another worker have claimed these."""
        with self.lock:
            for id_ in ids:
                self.files[id_] = self.files[id_].model_copy(update={"fence": self.files[id_].fence + 1})


class Memory:
    """A writer that remembers."""

    def __init__(self, act: Callable[[Sequence[ArrivalFile]], list[Outcome]] | None = None) -> None:
        self.batches: list[list[int]] = []
        self.held: list[list[int]] = []
        self.act = act

    def ingest(self, files: Sequence[ArrivalFile]) -> list[Outcome]:
        self.batches.append([file.id for file in files])
        return self.act(files) if self.act else [Outcome.ingested(f, uuid5(NAMESPACE, f.name)) for f in files]

    def holds(self, outcomes: Sequence[Outcome]) -> set[UUID]:
        self.held.append([outcome.id for outcome in outcomes])
        return {o.dataset_id for o in outcomes if o.dataset_id}


def files(count: int) -> list[ArrivalFile]:
    return [
        ArrivalFile(id=n, fence=0, scope="raw", name=f"f{n}", rse="X", uri=f"file:///f{n}", bytes=1)
        for n in range(1, count + 1)
    ]


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


def test_an_idle_worker_does_not_hammer_and_stops_at_once():
    catalogue = Catalogue([])
    with running(catalogue, Memory(), wait_s=10.0):
        time.sleep(0.7)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1
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
    catalogue, writer = Catalogue(files(8)), Memory()
    catalogue.trouble["report"] = ConnectionResetError("gone")
    with running(catalogue, writer):
        until(lambda: catalogue.calls["report"] > 3, "several reports")
        assert writer.batches == [[1, 2, 3, 4]], "nothing new is claimed before what was done is said"
        catalogue.trouble.clear()
        until(lambda: len(catalogue.done) == 8, "eight reports")
    assert writer.batches == [[1, 2, 3, 4], [5, 6, 7, 8]]


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


def test_a_stop_lets_the_batch_in_hand_end():
    entered, release = threading.Event(), threading.Event()

    def act(batch):
        entered.set()
        release.wait(15)
        return [Outcome.ingested(f, uuid5(NAMESPACE, f.name)) for f in batch]

    catalogue = Catalogue(files(8))
    with running(catalogue, Memory(act)) as stop:
        entered.wait(15)
        stop.set()
        release.set()
    assert set(catalogue.done) == {1, 2, 3, 4}


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
    assert writer.transactions == 2
