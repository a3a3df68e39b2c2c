"""Copies to destinations that are occupied, full, or lie: nothing is overwritten, nothing is left behind."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from arriero.rse.copy import copy_file
from arriero.rse.copy_order import WAYS
from arriero.rse.errors import (
    AlreadyExists,
    ChecksumMismatch,
    NoSpace,
    ReportLost,
    RSEError,
    SizeMismatch,
    TransferFailed,
    Unavailable,
)
from arriero.rse.paths import temporary_path
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint
from servicelib.server import WebDavServer
from support.rse_badserver import BadServer, Fault, bad_server
from support.rse_copies import CONTENT, adler32, left_behind, order
from support.rse_endpoints import endpoint_of
from support.rse_small_disk import xrootd_on_small_disk
from support.services import Services


class TestDestination:
    def test_equal_file_is_adopted(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        before = in2p3.write_file(path, CONTENT).stat().st_mtime_ns
        assert copy_file(order(endpoint_of(slac), endpoint_of(in2p3), path), pool).mode == "adopted"
        assert (in2p3.data_dir / path).stat().st_mtime_ns == before

    @pytest.mark.parametrize(
        "other", [b"another content", CONTENT[:-1] + b"x", b""], ids=["size", "bytes", "empty"]
    )
    @pytest.mark.parametrize("destination", ["xrootd_in2p3", "apache"])
    def test_different_file_is_never_overwritten(
        self,
        services: Services,
        slac: WebDavServer,
        pool: ProtocolPool,
        folder: str,
        destination: str,
        other: bytes,
    ) -> None:
        server, path = services.webdav(destination), f"{folder}/f"
        slac.write_file(path, CONTENT)
        server.write_file(path, other)
        with pytest.raises(AlreadyExists) as caught:
            copy_file(order(endpoint_of(slac), endpoint_of(server), path), pool)
        assert adler32(CONTENT) in caught.value.message
        assert adler32(other) in caught.value.message or f"{len(other)} bytes" in caught.value.message
        assert (server.data_dir / path).read_bytes() == other
        assert left_behind(server, folder) == [path]

    @pytest.mark.parametrize("other", [b"another content", CONTENT], ids=["different", "equal"])
    @pytest.mark.parametrize("destination", ["xrootd_in2p3", "apache"])
    def test_what_was_declared_bad_is_replaced_by_the_verified_copy(
        self,
        services: Services,
        slac: WebDavServer,
        pool: ProtocolPool,
        folder: str,
        destination: str,
        other: bytes,
    ) -> None:
        server, path = services.webdav(destination), f"{folder}/f"
        slac.write_file(path, CONTENT)
        server.write_file(path, other)
        asked = replace(order(endpoint_of(slac), endpoint_of(server), path), replaces_bad=True)
        # a storage may remember a checksum that its bytes no longer have: nothing is adopted
        assert copy_file(asked, pool).mode != "adopted"
        assert (server.data_dir / path).read_bytes() == CONTENT
        assert left_behind(server, folder) == [path]

    def test_what_was_declared_bad_stays_while_there_is_no_good_copy_beside_it(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, b"x" * len(CONTENT))
        in2p3.write_file(path, b"bad as well")
        asked = replace(order(endpoint_of(slac), endpoint_of(in2p3), path), replaces_bad=True)
        with pytest.raises(RSEError):
            copy_file(asked, pool)
        assert (in2p3.data_dir / path).read_bytes() == b"bad as well"
        assert left_behind(in2p3, folder) == [path]

    @pytest.mark.parametrize(("other", "mode"), [(CONTENT, "adopted"), (b"different", None)])
    def test_file_that_appears_during_the_copy(
        self,
        in2p3: WebDavServer,
        pool: ProtocolPool,
        folder: str,
        bad: BadServer,
        other: bytes,
        mode: str | None,
    ) -> None:
        path = f"{folder}/f"
        bad.files[path] = CONTENT

        def appear(verb: str, _path: str) -> None:
            if verb == "GET":
                in2p3.write_file(path, other)

        bad.before = appear
        task = order(bad.endpoint(), endpoint_of(in2p3), path)
        if mode:
            assert copy_file(task, pool).mode == mode
        else:
            with pytest.raises(AlreadyExists):
                copy_file(task, pool)
        assert (in2p3.data_dir / path).read_bytes() == other
        assert left_behind(in2p3, folder) == [path]

    def test_file_of_the_same_adler32_and_another_md5_is_not_adopted(
        self, pool: ProtocolPool, tmp_path: Path
    ) -> None:
        other = bytearray(CONTENT)
        other[100], other[101], other[102] = 101, 99, 103
        assert adler32(other) == adler32(CONTENT)
        here, there = (Endpoint(name, "file", "", 0, str(tmp_path / name)) for name in ("HERE", "THERE"))
        for endpoint, content in ((here, CONTENT), (there, other)):
            Path(endpoint.prefix).mkdir()
            Path(endpoint.prefix, "f").write_bytes(content)
        task = replace(order(here, there, "f"), md5=hashlib.md5(CONTENT).hexdigest())
        with pytest.raises(AlreadyExists, match="md5"):
            copy_file(task, pool)
        assert {path.name: path.read_bytes() for path in Path(there.prefix).iterdir()} == {"f": other}

    def test_full_disk(self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str) -> None:
        path, content = f"{folder}/f", bytes(6_000_000)
        slac.write_file(path, content)
        slac.write_file(f"{folder}/small", CONTENT)
        with xrootd_on_small_disk(services.directory, folder, 4 << 20) as small:
            full = endpoint_of(small)
            with pytest.raises(NoSpace) as caught:
                copy_file(order(endpoint_of(slac), full, path, content), pool)
            assert "no space left" in caught.value.message
            protocol = pool.get(full)
            assert protocol.list_directory(folder) == []
            result = copy_file(order(endpoint_of(slac), full, f"{folder}/small"), pool)
            assert result.mode == "third_party_pull"

    def test_full_disk_while_streaming(
        self, services: Services, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        path, content = f"{folder}/f", bytes(6_000_000)
        (tmp_path / folder).mkdir()
        (tmp_path / path).write_bytes(content)
        here = Endpoint("HERE", "file", "", 0, str(tmp_path))
        with xrootd_on_small_disk(services.directory, folder, 4 << 20) as small:
            task = order(here, endpoint_of(small), path, content)
            with pytest.raises((NoSpace, TransferFailed, Unavailable)) as caught:
                copy_file(task, pool)
            assert caught.value.retryable
            if isinstance(caught.value, Unavailable):
                # XRootD 5.5.3 may die of a PUT that its disk has no room for
                assert not small.is_running()
                small.start()
                with pytest.raises((NoSpace, TransferFailed)):
                    copy_file(task, pool)
            assert pool.get(endpoint_of(small)).list_directory(folder) == []

    def test_folder_that_was_removed_since_it_was_made(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        for name in ("f", "g"):
            slac.write_file(f"{folder}/deep/{name}", CONTENT)
        copy_file(order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/deep/f"), pool)
        (in2p3.data_dir / folder / "deep" / "f").unlink()
        (in2p3.data_dir / folder / "deep").rmdir()
        copy_file(order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/deep/g"), pool)
        assert left_behind(in2p3, folder) == [f"{folder}/deep/g"]

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (Fault(report=(b"failure: 404 not found",)), TransferFailed),
            (Fault(report=(b"Perf Mark", b"er\nEnd\n", b"failure: no space left on device")), NoSpace),
            (Fault(report=(b"Perf Marker\nEnd\n",)), TransferFailed),
            (Fault(report=(b"",)), TransferFailed),
            (Fault(report=(b"success: Created\n",), report_is_cut=True), ReportLost),
            (Fault(report=(b"success: Created\n",), report_is_cut=True, pulled=CONTENT[:-1]), ReportLost),
            (Fault(report=(b"failure: <html>\nsuccess: Created\n",), pulled=CONTENT), TransferFailed),
            (Fault(report=(b"success: Created\n",), pulled=CONTENT[:-1]), SizeMismatch),
            (Fault(report=(b"success: Created\n",), pulled=CONTENT[:-1] + b"x"), ChecksumMismatch),
            (Fault(report=(b"success: Created\n",)), TransferFailed),
        ],
        ids=[
            "failure",
            "full",
            "no-result",
            "empty",
            "cut",
            "cut-short",
            "html",
            "short",
            "damaged",
            "nothing-there",
        ],
    )
    def test_201_is_no_success(
        self,
        slac: WebDavServer,
        pool: ProtocolPool,
        folder: str,
        bad: BadServer,
        fault: Fault,
        error: type[RSEError],
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        bad.faults[temporary_path(path, "r1-1")] = fault
        with pytest.raises(error) as caught:
            copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool)
        assert caught.value.retryable
        assert bad.files == {}
        assert "DELETE" in bad.verbs(temporary_path(path, "r1-1"))

    def test_destination_that_refuses_to_pull_is_written_to(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        temporary = temporary_path(path, "r1-1")

        def refuse(verb: str, asked: str) -> None:
            bad.faults[temporary] = Fault(status=501) if (verb, asked) == ("COPY", temporary) else Fault()

        bad.before = refuse
        result = copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool)
        assert result.mode == "third_party_push"
        assert "refused to pull" in result.mode_reason
        assert bad.files == {path: CONTENT}

    def test_upload_that_loses_bytes(self, slac: WebDavServer, pool: ProtocolPool, folder: str) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        with bad_server(software="lossy", gives_digests=False) as lossy:
            lossy.faults[temporary_path(path, "r1-1")] = Fault(lose_bytes=1)
            for way in WAYS:
                with pytest.raises(SizeMismatch):
                    copy_file(order(endpoint_of(slac), lossy.endpoint(), path, ways=(way,)), pool)
            assert lossy.files == {}

    @pytest.mark.parametrize("answer", [0, 500, 504], ids=["hang-up", "500", "504"])
    def test_move_that_was_done_but_not_confirmed(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer, answer: int
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        bad.faults[temporary_path(path, "r1-1")] = Fault(pulled=CONTENT)
        bad.faults[path] = Fault(move_answers=answer)
        assert copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool).mode == "third_party_pull"
        assert bad.files == {path: CONTENT}

    def test_requests_of_a_pull_are_counted(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        for name in ("first", "second"):
            path = f"{folder}/{name}"
            slac.write_file(path, CONTENT)
            bad.requests.clear()
            bad.faults[temporary_path(path, "r1-1")] = Fault(pulled=CONTENT)
            copy_file(order(endpoint_of(slac), bad.endpoint(), path), pool)
        assert [verb for verb, _, _ in bad.requests] == ["COPY", "HEAD", "HEAD", "MOVE"]
