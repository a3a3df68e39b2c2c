"""Copies between real servers, and between servers that misbehave."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from arriero.rse.copy import copy_file
from arriero.rse.errors import (
    Cancelled,
    InvalidName,
    SourceMismatch,
    TransferFailed,
)
from arriero.rse.paths import temporary_path
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint
from servicelib.server import WebDavServer
from support.rse_badserver import BadServer, Fault, bad_server
from support.rse_copies import CONTENT, adler32, left_behind, order, streamed
from support.rse_endpoints import endpoint_of, https_endpoint_of
from support.services import Services


class TestThirdParty:
    @pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
    def test_destination_pulls_and_no_byte_passes_here(
        self,
        slac: WebDavServer,
        in2p3: WebDavServer,
        pool: ProtocolPool,
        folder: str,
        secure: bool,
        monkeypatch,
    ) -> None:
        path = f"{folder}/raw/exposure.fits"
        slac.write_file(path, CONTENT)
        endpoint = https_endpoint_of if secure else endpoint_of
        task = order(endpoint(slac), endpoint(in2p3), path)

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("bytes passed through the worker")

        monkeypatch.setattr("arriero.rse.webdav.WebDavProtocol.read", refuse)
        monkeypatch.setattr("arriero.rse.webdav.WebDavProtocol.write", refuse)
        result = copy_file(task, pool)
        assert (result.mode, result.bytes, result.adler32) == (
            "third_party_pull",
            len(CONTENT),
            adler32(CONTENT),
        )
        assert (in2p3.data_dir / path).read_bytes() == CONTENT
        assert left_behind(in2p3, folder) == [path]
        assert left_behind(slac, folder) == [path]
        local = f"local=/rucio/{temporary_path(path, 'r1-1')},"
        pulls = [line for line in in2p3.log_path.read_text().splitlines() if "event=TRANSFER_SUCCESS" in line]
        assert any(local in line and f"bytes_transferred={len(CONTENT)}," in line for line in pulls)

    def test_progress_is_told(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        content = bytes(20_000_000)
        slac.write_file(f"{folder}/f", content)
        told: list[int] = []
        copy_file(
            order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/f", content),
            pool,
            on_progress=told.append,
        )
        assert told == sorted(told)
        assert told
        assert told[-1] <= len(content)

    @pytest.mark.parametrize(
        "name",
        [
            "with space",
            "per%20cent",
            "%2e%2e",
            "ha#sh",
            "pl+us&amp;",
            "ünïcödé é",
            "…",
            "x" * 250,
            "é" * 125,
            "-rf",
        ],
    )
    def test_hostile_names(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str, name: str
    ) -> None:
        path = f"{folder}/{name}/{name}"
        slac.write_file(path, CONTENT)
        assert copy_file(order(endpoint_of(slac), endpoint_of(in2p3), path), pool).mode == "third_party_pull"
        assert left_behind(in2p3, folder) == [path]
        assert (in2p3.data_dir / path).read_bytes() == CONTENT
        assert copy_file(order(endpoint_of(slac), endpoint_of(in2p3), path), pool).mode == "adopted"

    @pytest.mark.parametrize(
        "name", ["../../escape", "a/../../../etc/passwd", "/etc/passwd", "a//b", "a\r\nX: y"]
    )
    def test_names_that_leave_the_prefix_are_refused(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str, name: str
    ) -> None:
        with pytest.raises(InvalidName):
            copy_file(order(endpoint_of(slac), endpoint_of(in2p3), name), pool)
        good = order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/f")
        slac.write_file(f"{folder}/f", CONTENT)
        with pytest.raises(InvalidName):
            copy_file(replace(good, source_path=name), pool)

    def test_name_that_the_destination_cannot_hold(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "what?").write_bytes(CONTENT)
        source = Endpoint("LOCAL", "file", "", 0, str(tmp_path))
        with pytest.raises(InvalidName, match=r"'\?'"):
            copy_file(order(source, endpoint_of(in2p3), f"{folder}/what?"), pool)
        assert left_behind(in2p3, folder) == []

    def test_tokens_reach_the_source_through_the_destination(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer, tmp_path: Path
    ) -> None:
        token = tmp_path / "token"
        token.write_text("first-token\n")
        bad.files[f"{folder}/f"] = CONTENT
        source = bad.endpoint(token_file=str(token))
        copy_file(order(source, endpoint_of(in2p3), f"{folder}/f"), pool)
        seen = {headers.get("Authorization") for verb, _, headers in bad.requests if verb == "GET"}
        assert seen == {"Bearer first-token"}
        token.write_text("renewed-token")
        bad.files[f"{folder}/g"] = CONTENT
        copy_file(order(source, endpoint_of(in2p3), f"{folder}/g"), pool)
        assert bad.requests[-1][2].get("Authorization") == "Bearer renewed-token"

    def test_many_threads_share_a_pool(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        contents = {f"{folder}/{number % 5}/f{number}": bytes([number]) * 10_000 for number in range(80)}
        for path, content in contents.items():
            slac.write_file(path, content)
        failures: list[BaseException] = []

        def work(paths: list[str]) -> None:
            try:
                for path in paths:
                    copy_file(order(endpoint_of(slac), endpoint_of(in2p3), path, contents[path]), pool)
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        paths = sorted(contents)
        threads = [threading.Thread(target=work, args=(paths[start::8],)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert left_behind(in2p3, folder) == paths
        assert all((in2p3.data_dir / path).read_bytes() == content for path, content in contents.items())


class TestStreamed:
    @pytest.mark.parametrize("server", ["apache", "wsgidav"])
    def test_to_a_server_that_does_not_pull(
        self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str, server: str
    ) -> None:
        destination = services.webdav(server)
        for content in (CONTENT, b"", bytes(3_000_000)):
            path = f"{folder}/a b/{len(content)}"
            slac.write_file(path, content)
            result = copy_file(streamed(endpoint_of(slac), endpoint_of(destination), path, content), pool)
            assert (result.mode, result.mode_reason) == ("streamed", "asked for")
            assert (destination.data_dir / path).read_bytes() == content
            again = copy_file(order(endpoint_of(slac), endpoint_of(destination), path, content), pool)
            assert again.mode == "adopted"
        assert len(left_behind(destination, folder)) == 3

    def test_apache_to_xrootd_is_pulled(
        self, services: Services, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        services.apache.write_file(f"{folder}/f", CONTENT)
        result = copy_file(order(endpoint_of(services.apache), endpoint_of(in2p3), f"{folder}/f"), pool)
        assert result.mode == "third_party_pull"
        assert (in2p3.data_dir / folder / "f").read_bytes() == CONTENT

    def test_file_to_xrootd_and_back(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        path = f"{folder}/f"
        (tmp_path / "here" / folder).mkdir(parents=True)
        (tmp_path / "here" / path).write_bytes(CONTENT)
        (tmp_path / "there").mkdir()
        here = Endpoint("HERE", "file", "", 0, str(tmp_path / "here"))
        there = Endpoint("THERE", "file", "", 0, str(tmp_path / "there"))
        md5 = hashlib.md5(CONTENT).hexdigest()
        told: list[int] = []
        with_md5 = replace(order(here, endpoint_of(in2p3), path), md5=md5, adler32=None)
        result = copy_file(with_md5, pool, on_progress=told.append)
        assert (result.mode, result.adler32) == ("streamed", adler32(CONTENT))
        assert told[-1] == len(CONTENT)
        assert copy_file(order(endpoint_of(in2p3), there, path), pool).mode == "streamed"
        assert (tmp_path / "there" / path).read_bytes() == CONTENT
        assert [p.name for p in (tmp_path / "there" / folder).iterdir()] == ["f"]

    def test_wrong_md5_of_a_streamed_and_of_a_pulled_file(
        self, slac: WebDavServer, in2p3: WebDavServer, services: Services, pool: ProtocolPool, folder: str
    ) -> None:
        slac.write_file(f"{folder}/f", CONTENT)
        for destination in (in2p3, services.apache):
            task = order(endpoint_of(slac), endpoint_of(destination), f"{folder}/f")
            assert copy_file(replace(task, md5="0" * 32), pool).adler32 == task.adler32, (
                "one checksum is enough"
            )
            pool.get(task.destination).delete(task.destination_path)
            task = replace(task, adler32=None, md5="0" * 32)
            with pytest.raises(SourceMismatch, match="md5"):
                copy_file(task, pool)
            assert left_behind(destination, folder) == []


class TestInterruption:
    def test_cancelled_while_streaming(
        self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        path, content = f"{folder}/f", bytes(8_000_000)
        slac.write_file(path, content)
        arrived: list[int] = []
        with pytest.raises(Cancelled):
            copy_file(
                streamed(endpoint_of(slac), endpoint_of(services.apache), path, content),
                pool,
                on_progress=arrived.append,
                cancelled=lambda: len(arrived) >= 2,
            )
        assert len(arrived) == 2
        assert left_behind(services.apache, folder) == []

    def test_cancelled_while_the_destination_pulls(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        marker = b"Perf Marker\nStripe Index: 0\nStripe Bytes Transferred: 5\nEnd\n"
        bad.faults[temporary_path(path, "r1-1")] = Fault(report=(marker, b"success: Created"), pulled=CONTENT)
        arrived: list[int] = []
        with pytest.raises(Cancelled):
            copy_file(
                order(endpoint_of(slac), bad.endpoint(), path),
                pool,
                on_progress=arrived.append,
                cancelled=lambda: bool(arrived),
            )
        assert arrived == [5]
        assert bad.files == {}

    def test_interrupt_leaves_nothing(
        self, slac: WebDavServer, services: Services, pool: ProtocolPool, folder: str
    ) -> None:
        path, content = f"{folder}/f", bytes(8_000_000)
        slac.write_file(path, content)

        def interrupt(_arrived: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            copy_file(
                streamed(endpoint_of(slac), endpoint_of(services.apache), path, content),
                pool,
                on_progress=interrupt,
            )
        assert left_behind(services.apache, folder) == []

    def test_what_cannot_be_removed_is_named(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        temporary = temporary_path(path, "r1-1")
        with bad_server() as bad:

            def refuse(verb: str, asked: str) -> None:
                bad.faults[temporary] = (
                    Fault(report=(b"failure: x",)) if verb == "COPY" else Fault(status=503)
                )

            bad.before = refuse
            with pytest.raises(TransferFailed) as caught:
                copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool)
        assert any(temporary in note for note in caught.value.__notes__)
