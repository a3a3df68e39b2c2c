"""What may happen to bytes between two storages (D1 to D10 of the list of threats): a test each, with real bytes."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arriero.rse.checksum import canonical_adler32
from arriero.rse.copy import copy_file
from arriero.rse.copy_order import WAYS, Mode
from arriero.rse.errors import (
    ChecksumMismatch,
    NoSpace,
    NotFound,
    RSEError,
    SizeMismatch,
    TransferFailed,
)
from arriero.rse.failures import classify
from arriero.rse.paths import temporary_path
from arriero.rse.pool import ProtocolPool
from arriero.rse.tpc import MarkerParser
from servicelib.server import WebDavServer
from servicelib.xrootd import XRootD
from support.rse_badserver import MARKER, BadServer, Fault, bad_server
from support.rse_copies import CONTENT, adler32, left_behind, order, streamed
from support.rse_endpoints import endpoint_of
from support.rse_small_disk import xrootd_on_small_disk
from support.services import Services


class TestD1Truncation:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("lost", [1, len(CONTENT) - 1, len(CONTENT)])
    def test_a_storage_that_keeps_less_and_says_that_all_is_well(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, way: Mode, lost: int
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        with bad_server(software="lossy", gives_digests=False) as lossy:
            lossy.faults[temporary_path(path, "r1-1")] = Fault(lose_bytes=lost)
            with pytest.raises(
                SizeMismatch, match=f"{len(CONTENT) - lost} of {len(CONTENT)} bytes"
            ) as caught:
                copy_file(order(endpoint_of(slac), lossy.endpoint(), path, ways=(way,)), pool)
            assert caught.value.retryable
            assert lossy.files == {}


class TestD2Corruption:
    @pytest.mark.parametrize("destination", ["xrootd_in2p3", "apache"])
    def test_one_bit_in_one_of_ten_files(
        self, services: Services, pool: ProtocolPool, folder: str, bad: BadServer, destination: str
    ) -> None:
        server = services.webdav(destination)
        paths = [f"{folder}/{number}" for number in range(20)]
        spoilt = {paths[3]: 17, paths[13]: len(CONTENT) - 1}
        for path in paths:
            bad.files[path] = CONTENT

        def flip(verb: str, path: str) -> None:
            first = bad.verbs(path).count("GET") == 1
            bad.faults[path] = Fault(flip_bit_at=spoilt.get(path) if verb == "GET" and first else None)

        bad.before = flip
        failed = []
        for path in paths:
            try:
                copy_file(streamed(bad.endpoint(), endpoint_of(server), path), pool)
            except ChecksumMismatch:  # and not SourceMismatch: the source was read again, and is right
                failed.append(path)
        assert failed == sorted(spoilt, key=paths.index)
        for path in failed:
            copy_file(streamed(bad.endpoint(), endpoint_of(server), path, attempt="r1-2"), pool)
        assert left_behind(server, folder) == sorted(paths)
        assert all((server.data_dir / path).read_bytes() == CONTENT for path in paths)


class TestD5Checksums:
    @pytest.mark.parametrize("told", ["{0:x}", "{0:X}", "0x{0:08x}", "{0:08X}"])
    @pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 40, b"leading zeros"])
    def test_servers_that_write_them_otherwise(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer, told: str, content: bytes
    ) -> None:
        path = f"{folder}/f"
        value = told.format(int(adler32(content), 16))
        in2p3.write_file(path, content)
        bad.faults[temporary_path(path, "r1-1")] = Fault(digest=value)
        task = replace(order(endpoint_of(in2p3), bad.endpoint(), path, content), adler32=value.upper())
        assert copy_file(task, pool).adler32 == adler32(content)

    @given(st.binary(max_size=50))
    def test_small_files_have_one_form(self, content: bytes) -> None:
        number = int(adler32(content), 16)
        for text in (f"{number:x}", f"{number:X}", f"{number:08x}", f" 0x{number:x} "):
            assert canonical_adler32(text) == adler32(content)


class TestD6And7Reports:
    @pytest.mark.parametrize("way", ["third_party_pull", "third_party_push"])
    def test_d6_failure_after_201(
        self,
        services: Services,
        slac: WebDavServer,
        pool: ProtocolPool,
        folder: str,
        bad: BadServer,
        way: Mode,
    ) -> None:
        path = f"{folder}/f"
        fault = Fault(report=(MARKER % 50, b"failure: ", b"the disk\n", b"success: Created"), pulled=CONTENT)
        slac.write_file(path, CONTENT)
        bad.files[path] = CONTENT
        bad.faults[path] = bad.faults[temporary_path(path, "r1-1")] = fault
        pull = order(endpoint_of(slac), bad.endpoint(), f"{folder}/f", ways=(way,))
        push = order(bad.endpoint(), endpoint_of(services.apache), path, ways=(way,))
        with pytest.raises(TransferFailed, match="the disk success: Created"):
            copy_file(pull if way == "third_party_pull" else push, pool)
        assert set(bad.files) <= {path}
        assert left_behind(services.apache, folder) == []

    @pytest.mark.parametrize("report", [(), (MARKER % 5,), (MARKER % len(CONTENT), b"success: Cre")])
    def test_d7_the_connection_drops_after_completion(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer, report: tuple[bytes, ...]
    ) -> None:
        """What is there is verified like any copy, and adopted: it is not copied again."""
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        bad.faults[temporary_path(path, "r1-1")] = Fault(report=report, report_is_cut=True, pulled=CONTENT)
        result = copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool)
        assert (result.mode, bad.files) == ("third_party_pull", {path: CONTENT})
        bad.files.clear()
        damaged = Fault(report=report, report_is_cut=True, pulled=CONTENT[:-1] + b"x")
        bad.faults[temporary_path(path, "r1-1")] = damaged
        with pytest.raises(ChecksumMismatch):
            copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool)
        assert bad.files == {}

    @given(st.binary(max_size=400))
    def test_no_report_whatever_is_taken_for_more_than_it_is(self, body: bytes) -> None:
        parser = MarkerParser()
        parser.feed(body)
        if parser.finish().succeeded:
            assert b"success" in body.lower()


class TestD8Vanished:
    @pytest.mark.parametrize("way", ["third_party_pull", "streamed"])
    def test_a_source_that_is_removed_during_the_run(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str, way: Mode
    ) -> None:
        """It is held against the source, at once and by the right name: the next source is tried."""
        for number in range(6):
            slac.write_file(f"{folder}/{number}", CONTENT)
        failures = []
        for number in range(6):
            if number == 3:
                for left in (3, 4):
                    (slac.data_dir / folder / str(left)).unlink()
            task = order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/{number}", ways=(way,))
            try:
                copy_file(task, pool)
            except NotFound as error:
                failures.append(classify(error, task))
        assert [failure.against_source for failure in failures] == [True, True]
        assert {failure.kind for failure in failures} == {"source_missing"}
        assert left_behind(in2p3, folder) == [f"{folder}/{number}" for number in (0, 1, 2, 5)]


class TestD10FullDisk:
    def test_what_is_there_can_be_read_and_removed_and_room_is_used_again(
        self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        content = bytes(3_000_000)
        for name in "fgh":
            slac.write_file(f"{folder}/{name}", content)
        with xrootd_on_small_disk(services.directory, folder, 4 << 20) as small:
            there = endpoint_of(small)
            copy_file(order(endpoint_of(slac), there, f"{folder}/f", content), pool)
            for way in WAYS:
                with pytest.raises((NoSpace, TransferFailed)) as caught:
                    copy_file(order(endpoint_of(slac), there, f"{folder}/g", content, ways=(way,)), pool)
                assert caught.value.retryable
                assert [entry.name for entry in pool.get(there).list_directory(folder)] == ["f"]
            assert b"".join(pool.get(there).read(f"{folder}/f")) == content
            assert pool.get(there).delete(f"{folder}/f")
            assert copy_file(order(endpoint_of(slac), there, f"{folder}/h", content), pool)


class TestServersThatDie:
    @pytest.fixture
    def mortal(self, services: Services, folder: str) -> Iterator[XRootD]:
        server = XRootD(services.directory, folder, authority=services.xrootd_slac.authority)
        server.start()
        try:
            yield server
        finally:
            server.stop()

    @contextmanager
    def during_the_copy(self, bad: BadServer, do: Generator[None]) -> Iterator[None]:
        """Do something when the destination begins to fetch."""

        def act(verb: str, path: str) -> None:
            agent = bad.requests[-1][2].get("User-Agent", "")
            if verb == "GET" and "arriero" not in agent:
                bad.before = None
                next(do)

        bad.before = act
        yield
        bad.before = None

    def test_killed_and_started_again(
        self, mortal: XRootD, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        bad.files[path] = CONTENT
        task = order(bad.endpoint(), endpoint_of(mortal), path)

        def kill() -> Generator[None]:
            mortal.kill()
            yield

        with self.during_the_copy(bad, kill()), pytest.raises(RSEError) as caught:
            copy_file(task, pool)
        assert caught.value.retryable
        assert any("r1-1.part was left behind" in note for note in caught.value.__notes__)
        mortal.start()
        again = replace(task, attempt_name="r1-2", earlier_attempts=("r1-1",))
        assert copy_file(again, pool).bytes == len(CONTENT)
        assert left_behind(mortal, folder) == [path]
        assert (mortal.data_dir / path).read_bytes() == CONTENT

    def test_frozen_and_woken_again(
        self, mortal: XRootD, pool: ProtocolPool, folder: str, bad: BadServer, monkeypatch
    ) -> None:
        """What it does of the old attempt when it wakes is done to the name of that attempt, and removed."""
        # long enough for a slow machine: what does not answer before it is frozen is passed by
        monkeypatch.setattr("arriero.rse.transport.READ_TIMEOUT", 1.5)
        monkeypatch.setattr("arriero.rse.thirdparty.MARKER_SILENCE", 1.5)
        path = f"{folder}/f"
        bad.files[path] = CONTENT
        task = order(bad.endpoint(), endpoint_of(mortal), path)
        identity = mortal._daemon.identity()
        assert identity is not None

        def freeze() -> Generator[None]:
            os.kill(identity.pid, signal.SIGSTOP)
            yield

        try:
            with self.during_the_copy(bad, freeze()), pytest.raises(RSEError) as caught:
                copy_file(task, pool)
        finally:
            os.kill(identity.pid, signal.SIGCONT)
        assert caught.value.retryable
        monkeypatch.undo()
        again = replace(task, attempt_name="r1-2", earlier_attempts=("r1-1",))
        copy_file(again, pool)
        assert (mortal.data_dir / path).read_bytes() == CONTENT
        assert set(left_behind(mortal, folder)) <= {path, temporary_path(path, "r1-1")}
