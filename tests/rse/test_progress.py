"""A transfer that goes on is told of, one that stands still or takes too long is ended, one taken back ends soon."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from arriero.rse.copy import Limits, copy_file
from arriero.rse.copy_order import Mode
from arriero.rse.errors import Cancelled, RSEError, Stalled, TookTooLong
from arriero.rse.paths import temporary_path
from arriero.rse.pool import ProtocolPool
from arriero.rse.progress import Watch
from arriero.rse.protocol import OtherSide
from servicelib.server import WebDavServer
from support.rse_badserver import MARKER, BadServer, Fault, bad_server
from support.rse_copies import CONTENT, left_behind, order, streamed
from support.rse_endpoints import endpoint_of
from support.services import Services


@pytest.fixture(autouse=True)
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask more often than in production whether to go on."""
    monkeypatch.setattr("arriero.rse.wire.ATTENTION_SECONDS", 0.02)
    monkeypatch.setattr("arriero.rse.copy_ways.LATE_SECONDS", 0.0)


@pytest.fixture
def silent() -> Iterator[BadServer]:
    """A destination that accepts connections and says nothing to any upload."""
    with bad_server(software="silent", copies=False) as server:
        server.before = lambda verb, path: server.ended.wait(60) if verb == "PUT" and "/f." in path else None
        yield server


class TestPulled:
    def test_markers_are_told_as_they_come(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        report = (MARKER % 10, MARKER % 10, MARKER % 5, MARKER % 70_000, b"success: Created")
        bad.faults[temporary_path(path, "r1-1")] = Fault(report=report, pulled=CONTENT)
        told: list[int] = []
        copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool, on_progress=told.append)
        assert told == [10, 70_000]

    def test_one_that_stands_still_is_ended_and_removed(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        fault = Fault(report=(MARKER % 5,), report_repeats=True, pulled=CONTENT[:5])
        bad.faults[temporary_path(path, "r1-1")] = fault
        with pytest.raises(Stalled, match=f"stands at 5 of {len(CONTENT)} bytes") as caught:
            copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool, limits=Limits(stall_s=0.2))
        assert (caught.value.retryable, caught.value.code, caught.value.rse) == (True, "stalled", "BAD_DISK")
        assert bad.files == {}

    def test_one_whose_storage_says_nothing_more_is_ended(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer, monkeypatch
    ) -> None:
        monkeypatch.setattr("arriero.rse.thirdparty.MARKER_SILENCE", 0.1)
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        fault = Fault(report=(MARKER % 5,), report_stalls=True, pulled=CONTENT)
        bad.faults[temporary_path(path, "r1-1")] = fault
        with pytest.raises(Stalled, match="says nothing for"):
            copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool)
        assert bad.files == {}

    def test_one_that_takes_too_long_is_ended_although_it_goes_on(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        fault = Fault(report=(MARKER % 0,), report_grows=True, pulled=CONTENT[:5])
        bad.faults[temporary_path(path, "r1-1")] = fault
        limits = Limits(least_s=0.3, bytes_per_s=1e9)
        with pytest.raises(TookTooLong, match="takes longer than 0 s") as caught:
            copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool, limits=limits)
        assert caught.value.retryable
        assert bad.files == {}

    def test_one_that_has_not_begun_is_taken_back_at_once(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        """XRootD says nothing before it has seen the source, which may take two minutes."""
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        begun = threading.Event()

        def hang(verb: str, asked: str) -> None:
            if verb == "COPY" and asked == temporary_path(path, "r1-1"):
                begun.set()
                bad.ended.wait(60)

        bad.before = hang
        with pytest.raises(Cancelled):
            copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool, cancelled=begun.is_set)

    def test_streams_are_asked_for(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool, limits=Limits(streams=4))
        [headers] = [
            headers for verb, asked, headers in bad.requests if verb == "COPY" and asked.startswith(path)
        ]
        assert headers["X-Number-Of-Streams"] == "4"
        copy_file(order(endpoint_of(slac), endpoint_of(in2p3), path), pool, limits=Limits(streams=4))
        assert (in2p3.data_dir / path).read_bytes() == CONTENT


class TestPushed:
    def test_one_that_stands_still_is_ended_and_removed(
        self, services: Services, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        bad.files[path] = CONTENT
        bad.faults[path] = Fault(report=(MARKER % 7,), report_repeats=True)
        with pytest.raises(Stalled, match="stands at 7 of"):
            copy_file(
                order(bad.endpoint(), endpoint_of(services.apache), path), pool, limits=Limits(stall_s=0.2)
            )
        assert left_behind(services.apache, folder) == []


class TestStreamed:
    def test_a_source_that_stops_coming(
        self, services: Services, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path, content = f"{folder}/f", bytes(3_000_000)
        bad.files[path], bad.faults[path] = content, Fault(stall=True)
        with pytest.raises(Stalled):
            copy_file(
                streamed(bad.endpoint(), endpoint_of(services.apache), path, content),
                pool,
                limits=Limits(stall_s=0.2),
            )
        assert left_behind(services.apache, folder) == []

    def test_a_destination_that_takes_nothing_more(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, silent: BadServer
    ) -> None:
        """What it has not taken lies in the buffers of the network: a file has to be larger than those."""
        path, content = f"{folder}/f", bytes(20_000_000)
        slac.write_file(path, content)
        with pytest.raises(Stalled, match="of 20000000 bytes"):
            copy_file(
                streamed(endpoint_of(slac), silent.endpoint(), path, content),
                pool,
                limits=Limits(stall_s=0.3),
            )

    def test_taken_back_while_nothing_moves(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, silent: BadServer
    ) -> None:
        path, content = f"{folder}/f", bytes(20_000_000)
        slac.write_file(path, content)
        moved: list[int] = []
        with pytest.raises(Cancelled):
            copy_file(
                streamed(endpoint_of(slac), silent.endpoint(), path, content),
                pool,
                on_progress=moved.append,
                cancelled=lambda: bool(moved),
            )

    def test_one_that_takes_too_long(
        self, slac: WebDavServer, services: Services, pool: ProtocolPool, folder: str
    ) -> None:
        path, content = f"{folder}/f", bytes(5_000_000)
        slac.write_file(path, content)
        limits = Limits(least_s=0.0, bytes_per_s=1e12)
        with pytest.raises(TookTooLong):
            copy_file(
                streamed(endpoint_of(slac), endpoint_of(services.apache), path, content), pool, limits=limits
            )
        assert left_behind(services.apache, folder) == []

    @pytest.mark.parametrize("way", ["third_party_pull", "streamed"])
    def test_verification_can_be_taken_back(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, way: Mode
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        with bad_server(software="Reads-Slowly/1", gives_digests=False) as slow:
            reading = threading.Event()

            def hang(verb: str, asked: str) -> None:
                if verb == "GET" and asked.startswith(path):
                    reading.set()
                    slow.faults[asked] = Fault(stall=True)

            slow.before = hang
            with pytest.raises(Cancelled):
                copy_file(
                    order(endpoint_of(slac), slow.endpoint(), path, ways=(way,)),
                    pool,
                    cancelled=reading.is_set,
                )
            assert slow.files == {}


class TestWatch:
    def watch(self, **limits: float) -> Watch:
        return Watch("X", "f", 1000, limits=Limits(**limits))

    def test_time_grows_with_the_size(self) -> None:
        limits = Limits()
        assert limits.total_s(0) == 600
        assert limits.total_s(500_000_000) == 1600

    def test_it_cannot_stand_still_before_it_has_begun_nor_while_it_rests(self) -> None:
        watch = self.watch(stall_s=-1.0)
        watch.check()
        watch.arrived(10)
        with pytest.raises(Stalled):
            watch.check()
        watch.rest()
        watch.check()
        watch.arrived(10)
        with pytest.raises(Stalled):
            watch.check()

    def test_only_more_bytes_are_progress(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]
        monkeypatch.setattr("arriero.rse.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
        watch = self.watch(stall_s=60)
        watch.arrived(10)
        clock[0] = 61.0
        watch.arrived(10)
        watch.arrived(3)
        with pytest.raises(RSEError, match="stands at 10 of 1000"):
            watch.check()
        watch.arrived(11)
        watch.check()


def test_a_pull_may_be_watched_by_nobody(
    slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
) -> None:
    slac.write_file(f"{folder}/f", CONTENT)
    protocol = pool.get(endpoint_of(in2p3))
    protocol.make_parents(f"{folder}/f")
    protocol.pull(OtherSide(endpoint_of(slac), f"{folder}/f"), f"{folder}/f")
    assert (in2p3.data_dir / folder / "f").read_bytes() == CONTENT
