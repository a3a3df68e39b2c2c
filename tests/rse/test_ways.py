"""Pulled, pushed, streamed: which way a copy goes, and why it did not go the way before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from arriero.rse import links
from arriero.rse.copy import copy_file
from arriero.rse.errors import (
    AccessDenied,
    Cancelled,
    ChecksumMismatch,
    NoSpace,
    NotFound,
    OtherSideFailed,
    RSEError,
    SizeMismatch,
    TransferFailed,
    Unavailable,
    Unsupported,
)
from arriero.rse.paths import temporary_path
from arriero.rse.pool import ProtocolPool
from arriero.rse.protocol import OtherSide
from arriero.rse.types import Endpoint
from servicelib.apache import Apache
from servicelib.authority import Authority
from servicelib.server import WebDavServer
from support.rse_badserver import BadServer, Fault, bad_server
from support.rse_copies import CONTENT, adler32, left_behind, order
from support.rse_endpoints import endpoint_of, https_endpoint_of
from support.services import Services


@pytest.fixture
def refuse_to_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte of a copy may pass here."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("bytes passed through the worker")

    monkeypatch.setattr("arriero.rse.copy_ways.Ways._stream", refuse)


@pytest.fixture
def stranger(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apache]:
    """A storage with a certificate that no other storage trusts."""
    authority = Authority(services.directory / "pki-of-strangers")
    server = Apache(services.directory, "stranger", authority=authority)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class TestPush:
    @pytest.mark.usefixtures("refuse_to_carry")
    @pytest.mark.parametrize("destination", ["apache", "wsgidav"])
    def test_a_source_that_can_sends_to_a_destination_that_cannot_fetch(
        self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str, destination: str
    ) -> None:
        server, path = services.webdav(destination), f"{folder}/a b/exposure é.fits"
        slac.write_file(path, CONTENT)
        result = copy_file(order(endpoint_of(slac), endpoint_of(server), path), pool)
        assert (result.mode, result.adler32) == ("third_party_push", adler32(CONTENT))
        assert result.mode_reason == (
            "the destination has no third-party copy; the source pushes to the destination by itself"
        )
        assert [(step.mode, step.code) for step in result.steps] == [("third_party_pull", "unsupported")]
        assert left_behind(server, folder) == [path]
        assert (server.data_dir / path).read_bytes() == CONTENT

    @pytest.mark.usefixtures("refuse_to_carry")
    def test_over_tls(self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str) -> None:
        slac.write_file(f"{folder}/f", CONTENT)
        task = order(https_endpoint_of(slac), https_endpoint_of(services.apache), f"{folder}/f")
        assert copy_file(task, pool).mode == "third_party_push"
        assert (services.apache.data_dir / folder / "f").read_bytes() == CONTENT

    def test_between_storages_that_both_can_it_is_pulled_and_pushed_when_that_is_asked_for(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        slac.write_file(f"{folder}/f", CONTENT)
        slac.write_file(f"{folder}/g", CONTENT)
        slac_to_in2p3 = order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/f")
        assert copy_file(slac_to_in2p3, pool).mode == "third_party_pull"
        pushed = order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/g", ways=("third_party_push",))
        assert copy_file(pushed, pool).mode == "third_party_push"
        assert left_behind(in2p3, folder) == [f"{folder}/f", f"{folder}/g"]

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (Fault(pushed=CONTENT[:-1] + b"x"), ChecksumMismatch),
            (Fault(pushed=CONTENT[:-1]), SizeMismatch),
            (Fault(report=(b"success: Created\n",)), TransferFailed),
            (Fault(report=(b"Perf Marker\nEnd\n",)), TransferFailed),
            (Fault(report=(b"failure: status code 507",)), NoSpace),
            (Fault(report=(b"failure: status code 403",)), AccessDenied),
            (Fault(report=(b"failure: status code 503",)), Unavailable),
            (Fault(report=(b"success: Created\n",), report_is_cut=True), TransferFailed),
        ],
        ids=["flipped", "short", "nothing-arrives", "no-result", "full", "forbidden", "busy", "cut"],
    )
    def test_what_goes_wrong_leaves_nothing(
        self,
        services: Services,
        pool: ProtocolPool,
        folder: str,
        bad: BadServer,
        monkeypatch: pytest.MonkeyPatch,
        fault: Fault,
        error: type[RSEError],
    ) -> None:
        monkeypatch.setattr("arriero.rse.copy_ways.LATE_SECONDS", 0.0)
        path = f"{folder}/f"
        bad.files[path], bad.faults[path] = CONTENT, fault
        with pytest.raises(error) as caught:
            copy_file(order(bad.endpoint(), endpoint_of(services.apache), path), pool)
        assert caught.value.retryable or error is AccessDenied
        assert left_behind(services.apache, folder) == []

    def test_a_push_that_was_taken_back_and_ends_all_the_same_is_removed(
        self, pool: ProtocolPool, folder: str, bad: BadServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The source sends on until it notices that nobody listens, and may finish after we have removed the file."""
        monkeypatch.setattr("arriero.rse.wire.ATTENTION_SECONDS", 0.02)
        path = f"{folder}/f"
        bad.files[path] = CONTENT
        bad.faults[path] = Fault(report=(b"Perf Marker\nEnd\n",), report_stalls=True)
        with bad_server(software="plain", copies=False) as destination:
            temporary = temporary_path(path, "r1-1")
            monkeypatch.setattr(
                "arriero.rse.copy_ways.time.sleep", lambda _s: destination.files.update({temporary: CONTENT})
            )
            with pytest.raises(Cancelled):
                copy_file(
                    order(bad.endpoint(), destination.endpoint(), path),
                    pool,
                    cancelled=lambda: any(verb == "COPY" for verb, _, _ in bad.requests),
                )
            assert destination.files == {}


class TestFalseSuccess:
    def test_a_server_that_was_not_seen_to_push_is_never_told_to(
        self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        """Apache would answer 201: for it the URL of any port of this host is a name of its own."""
        services.apache.write_file(f"{folder}/f", CONTENT)
        protocol = pool.get(endpoint_of(services.apache))
        with pytest.raises(Unsupported, match="not told to push"):
            protocol.push(f"{folder}/f", OtherSide(endpoint_of(slac), f"{folder}/g"))
        task = order(endpoint_of(services.apache), endpoint_of(services.wsgidav), f"{folder}/f")
        result = copy_file(task, pool)
        assert (result.mode, result.mode_reason) == (
            "streamed",
            "the destination has no third-party copy; the source has no third-party copy",
        )

    def test_where_somebody_says_that_it_can_its_201_is_no_success(
        self, services: Services, pool: ProtocolPool, folder: str
    ) -> None:
        path = f"{folder}/f"
        services.apache.write_file(path, CONTENT)
        (services.apache.data_dir / folder / "elsewhere").mkdir()
        services.apache.account.own(services.apache.data_dir / folder / "elsewhere")
        protocol = pool.get(endpoint_of(services.apache))
        protocol.remember(replace(protocol.probe(), third_party_push=True))
        destination = endpoint_of(services.wsgidav, folder=f"{folder}/elsewhere")
        services.wsgidav.write_file(f"{folder}/elsewhere/x", b"")
        task = replace(order(endpoint_of(services.apache), destination, path), destination_path="f")
        result = copy_file(task, pool)
        assert result.mode == "streamed"
        assert "answered 201 without a report" in result.mode_reason
        assert protocol.abilities.third_party_push is False
        assert (services.wsgidav.data_dir / folder / "elsewhere" / "f").read_bytes() == CONTENT


class TestStepDown:
    def test_storages_that_do_not_trust_each_other(
        self, slac: WebDavServer, stranger: Apache, pool: ProtocolPool, folder: str
    ) -> None:
        """The worker trusts both; the reason is recorded, and the next copy does not try again."""
        for name in "fg":
            stranger.write_file(f"{folder}/{name}", CONTENT)
            task = order(https_endpoint_of(stranger), https_endpoint_of(slac), f"{folder}/{name}")
            result = copy_file(task, pool)
            assert result.mode == "streamed"
            assert "cannot reach STRANGER_DISK" in result.mode_reason
            assert "SSL peer certificate" in result.mode_reason
            assert [step.mode for step in result.steps] == ["third_party_pull", "third_party_push"]
        assert left_behind(slac, folder) == [f"{folder}/f", f"{folder}/g"]
        tried = [line for line in slac.log_path.read_text().splitlines() if f"{folder}/g.r1-1.part" in line]
        assert not any("event=PULL" in line or "TRANSFER_FAIL" in line for line in tried)

    def test_a_closed_way_is_tried_again_after_a_while(
        self, services: Services, pool: ProtocolPool, folder: str, bad: BadServer, monkeypatch
    ) -> None:
        for name in "fgh":
            bad.files[f"{folder}/{name}"] = CONTENT
        source, destination = bad.endpoint(), endpoint_of(services.apache)
        bad.faults[f"{folder}/f"] = Fault(report=(b"failure: Couldn't connect to server",))
        assert copy_file(order(source, destination, f"{folder}/f"), pool).mode == "streamed"
        assert copy_file(order(source, destination, f"{folder}/g"), pool).mode == "streamed"
        monkeypatch.setattr(links, "MEMORY_SECONDS", -1.0)
        assert copy_file(order(source, destination, f"{folder}/h"), pool).mode == "third_party_push"

    def test_a_way_that_is_left_out_is_not_gone(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        slac.write_file(f"{folder}/f", CONTENT)
        task = order(
            endpoint_of(slac), endpoint_of(in2p3), f"{folder}/f", ways=("third_party_push", "streamed")
        )
        result = copy_file(task, pool)
        assert (result.mode, result.steps) == ("third_party_push", ())

    def test_no_way_at_all_says_which_there_were(
        self, services: Services, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        bad.files[path] = CONTENT
        bad.faults[path] = Fault(report=(b"failure: connection refused",))
        ways = ("third_party_pull", "third_party_push")
        with pytest.raises(OtherSideFailed, match="APACHE_DISK"):
            copy_file(order(bad.endpoint(), endpoint_of(services.apache), path, ways=ways), pool)
        with pytest.raises(Unsupported, match=r"no way for .*no third-party copy; .*connection refused"):
            copy_file(order(bad.endpoint(), endpoint_of(services.apache), path, ways=ways), pool)
        assert left_behind(services.apache, folder) == []

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (404, NotFound),
            (403, AccessDenied),
            (401, AccessDenied),
            (503, Unavailable),
            (500, TransferFailed),
        ],
    )
    def test_a_source_that_turns_the_destination_away_is_named(
        self,
        in2p3: WebDavServer,
        pool: ProtocolPool,
        folder: str,
        bad: BadServer,
        status: int,
        error: type[RSEError],
    ) -> None:
        """The report is the destination's; the fault is the source's, and no other way is tried."""
        path = f"{folder}/f"
        bad.files[path] = CONTENT

        def turn_away(verb: str, asked: str) -> None:
            seen = bad.requests[-1][2].get("User-Agent", "")
            bad.faults[asked] = Fault(status=status) if "arriero" not in seen else Fault()

        bad.before = turn_away
        with pytest.raises(error) as caught:
            copy_file(order(bad.endpoint(), endpoint_of(in2p3), path), pool)
        assert (caught.value.rse, caught.value.path) == ("BAD_DISK", path)
        assert left_behind(in2p3, folder) == []

    def test_a_file_system_is_neither_pulled_from_nor_pushed_to(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        here = Endpoint("HERE", "file", "", 0, str(tmp_path))
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "f").write_bytes(CONTENT)
        result = copy_file(order(here, endpoint_of(in2p3), f"{folder}/f"), pool)
        assert result.mode == "streamed"
        assert result.mode_reason == (
            "the source is reached by 'file', which no storage can pull from; "
            "the source is a file system, which does not push"
        )


class TestEarlierAttempts:
    @pytest.mark.parametrize("destination", ["xrootd_in2p3", "apache"])
    def test_what_one_has_left_complete_is_adopted_and_the_rest_removed(
        self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str, destination: str
    ) -> None:
        server, path = services.webdav(destination), f"{folder}/f"
        slac.write_file(path, CONTENT)
        server.write_file(temporary_path(path, "r1-1"), CONTENT[:100])
        server.write_file(temporary_path(path, "r1-2"), CONTENT[:-1] + b"x")
        kept = server.write_file(temporary_path(path, "r1-3"), CONTENT).stat().st_ino
        earlier = ("r1-1", "r1-2", "r1-3", "r1-4")
        task = order(endpoint_of(slac), endpoint_of(server), path, attempt="r1-5", earlier_attempts=earlier)
        result = copy_file(task, pool)
        assert (result.mode, result.mode_reason) == ("adopted", "an earlier attempt had left it complete")
        assert left_behind(server, folder) == [path]
        assert (server.data_dir / path).stat().st_ino == kept

    def test_it_does_not_take_the_place_of_what_is_there(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        in2p3.write_file(temporary_path(path, "r1-1"), CONTENT)
        in2p3.write_file(path, b"somebody's")
        task = order(endpoint_of(slac), endpoint_of(in2p3), path, attempt="r1-2", earlier_attempts=("r1-1",))
        with pytest.raises(RSEError, match="10 bytes"):
            copy_file(task, pool)
        assert left_behind(in2p3, folder) == [path]
        assert (in2p3.data_dir / path).read_bytes() == b"somebody's"
