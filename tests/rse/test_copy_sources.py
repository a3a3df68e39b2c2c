"""Copies from sources that are not what they should be: each leaves nothing behind, and says why."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from arriero.rse.copy import Limits, Mode, copy_file
from arriero.rse.errors import (
    ChecksumMismatch,
    NotFound,
    RSEError,
    SizeMismatch,
    SourceMismatch,
    Stalled,
    TransferFailed,
    Unavailable,
)
from arriero.rse.paths import temporary_path
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint
from servicelib.ports import free_port
from servicelib.server import WebDavServer
from support.rse_badserver import BadServer, Fault
from support.rse_copies import CONTENT, adler32, left_behind, order, streamed
from support.rse_endpoints import endpoint_of, https_endpoint_of
from support.services import Services


class TestSource:
    def test_wrong_checksum_in_the_catalogue(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        slac.write_file(f"{folder}/f", CONTENT)
        task = replace(order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/f"), adler32="0000beef")
        with pytest.raises(SourceMismatch) as caught:
            copy_file(task, pool)
        assert adler32(CONTENT) in caught.value.message
        assert "0000beef" in caught.value.message
        assert caught.value.retryable is False
        assert left_behind(in2p3, folder) == []

    def test_wrong_checksum_at_a_source_that_has_no_digests(
        self, services: Services, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        services.apache.write_file(f"{folder}/f", CONTENT)
        task = replace(
            order(endpoint_of(services.apache), endpoint_of(in2p3), f"{folder}/f"), adler32="0000beef"
        )
        with pytest.raises(SourceMismatch):
            copy_file(task, pool)
        assert left_behind(in2p3, folder) == []

    def test_wrong_size(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        slac.write_file(f"{folder}/f", CONTENT[:-1])
        with pytest.raises(SourceMismatch, match=rf"{len(CONTENT) - 1} bytes.*{len(CONTENT)} bytes"):
            copy_file(order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/f"), pool)
        assert left_behind(in2p3, folder) == []

    def test_vanished(self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str) -> None:
        with pytest.raises(NotFound) as caught:
            copy_file(order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/f"), pool)
        assert caught.value.rse == "SLAC_DISK"
        assert left_behind(in2p3, folder) == []

    def test_vanished_between_the_look_and_the_pull(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        bad.files[path] = CONTENT

        def vanish(verb: str, _path: str) -> None:
            if len(bad.requests) > 1 and verb in {"HEAD", "GET"}:
                bad.files.clear()

        bad.before = vanish
        bad.requests.clear()
        with pytest.raises((TransferFailed, NotFound)):
            copy_file(order(bad.endpoint(), endpoint_of(in2p3), path), pool)
        assert left_behind(in2p3, folder) == []

    @pytest.mark.parametrize(
        ("destination", "way"), [("xrootd_in2p3", "third_party_pull"), ("apache", "streamed")]
    )
    @pytest.mark.parametrize(
        "fault",
        [
            Fault(cut_after=50_000),
            Fault(cut_after=0),
            Fault(without_length=True, cut_after=50_000),
            Fault(send=CONTENT[:-1]),
            Fault(send=CONTENT + b"more"),
            Fault(flip_bit_at=1000),
            Fault(send=CONTENT[:-1] + b"x"),
        ],
        ids=["cut", "cut-at-once", "cut-without-length", "short", "long", "bit-flip", "last-byte"],
    )
    def test_bytes_that_are_not_those_of_the_catalogue(
        self,
        services: Services,
        pool: ProtocolPool,
        folder: str,
        bad: BadServer,
        destination: str,
        way: Mode,
        fault: Fault,
    ) -> None:
        server = services.webdav(destination)
        path = f"{folder}/f"
        bad.files[path], bad.faults[path] = CONTENT, fault
        with pytest.raises((TransferFailed, SizeMismatch, SourceMismatch, ChecksumMismatch)):
            copy_file(order(bad.endpoint(), endpoint_of(server), path, ways=(way,)), pool)
        assert left_behind(server, folder) == []

    def test_bit_flip_on_the_way_is_not_blamed_on_the_source(
        self, services: Services, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        bad.files[path], bad.faults[path] = CONTENT, Fault(flip_bit_at=7)

        def heal(verb: str, _path: str) -> None:
            if bad.verbs(path).count("GET") > 1:
                bad.faults.clear()

        bad.before = heal
        with pytest.raises(ChecksumMismatch) as caught:
            copy_file(streamed(bad.endpoint(), endpoint_of(services.apache), path), pool)
        assert caught.value.retryable
        assert left_behind(services.apache, folder) == []

    @pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
    def test_refusals_of_the_source_are_told_apart(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer, status: int
    ) -> None:
        path = f"{folder}/f"
        bad.faults[path] = Fault(
            status=status, body=b"<html>\x00\x1b[31mAuthorization: Bearer abcdef123456</html>"
        )
        with pytest.raises(RSEError) as caught:
            copy_file(order(bad.endpoint(), endpoint_of(in2p3), path), pool)
        expected = {401: "access_denied", 403: "access_denied", 404: "not_found", 429: "unavailable"}
        assert caught.value.code == expected.get(
            status, "transfer_failed" if status == 500 else "unavailable"
        )
        assert "abcdef" not in caught.value.message
        assert caught.value.message.isprintable()

    def test_redirects_are_not_followed(
        self, in2p3: WebDavServer, services: Services, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        bad.faults[path] = Fault(status=302, location=services.apache.url + "/elsewhere")
        with pytest.raises(RSEError, match="not followed"):
            copy_file(order(bad.endpoint(), endpoint_of(in2p3), path), pool)

    def test_nobody_listens(self, in2p3: WebDavServer, pool: ProtocolPool, folder: str) -> None:
        nobody = Endpoint("GONE_DISK", "http", "127.0.0.1", free_port(), "/store")
        with pytest.raises(Unavailable, match=r"GONE_DISK.*refused"):
            copy_file(order(nobody, endpoint_of(in2p3), f"{folder}/f"), pool)

    def test_certificate_of_nobody_we_know(self, slac: WebDavServer, pool: ProtocolPool, folder: str) -> None:
        stranger = replace(https_endpoint_of(slac), ca_bundle=None)
        with pytest.raises(Unavailable, match=r"TLS.*certificate verify failed"):
            copy_file(order(stranger, stranger, f"{folder}/f"), pool)

    def test_source_that_stalls_while_streaming(
        self, services: Services, pool: ProtocolPool, folder: str, bad: BadServer, monkeypatch
    ) -> None:
        monkeypatch.setattr("arriero.rse.wire.ATTENTION_SECONDS", 0.05)
        path = f"{folder}/f"
        bad.files[path], bad.faults[path] = bytes(4_000_000), Fault(stall=True)
        task = streamed(bad.endpoint(), endpoint_of(services.apache), path, bytes(4_000_000))
        with pytest.raises(Stalled, match="of 4000000 bytes"):
            copy_file(task, pool, limits=Limits(stall_s=0.3))
        assert left_behind(services.apache, folder) == []

    def test_source_of_a_small_file_is_asked_for_its_bytes_only(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        first, second = f"{folder}/f", f"{folder}/g"
        bad.files |= {first: CONTENT, second: CONTENT}
        copy_file(order(bad.endpoint(), endpoint_of(in2p3), first), pool)
        bad.requests.clear()
        copy_file(order(bad.endpoint(), endpoint_of(in2p3), second), pool)
        # the storage that pulls looks for itself
        assert [verb for verb, *_ in bad.requests].count("GET") == 1
        assert "PROPFIND" not in [verb for verb, *_ in bad.requests]
        wrong = replace(order(bad.endpoint(), endpoint_of(in2p3), second), adler32="00000001")
        with pytest.raises(SourceMismatch, match="adler32"):
            copy_file(replace(wrong, destination_path=f"{folder}/h"), pool)
        assert left_behind(in2p3, folder) == [first, second]

    def test_digest_that_fails_is_asked_for_again(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        bad.files[path], bad.faults[path] = CONTENT, Fault(digest_fails=2)
        task = replace(order(bad.endpoint(), endpoint_of(in2p3), path), adler32=None)
        assert copy_file(task, pool).adler32 == adler32(CONTENT)
        assert bad.faults[path].digest_fails == 0

    def test_digest_that_never_comes_is_made_good_by_the_destination(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        bad.files[path], bad.faults[path] = CONTENT, Fault(digest_fails=99)
        assert copy_file(order(bad.endpoint(), endpoint_of(in2p3), path), pool).adler32 == adler32(CONTENT)

    def test_damage_on_the_way_is_seen_although_nobody_has_an_adler32(
        self, services: Services, pool: ProtocolPool, folder: str, bad: BadServer
    ) -> None:
        path = f"{folder}/f"
        services.apache.write_file(path, CONTENT)
        task = replace(order(endpoint_of(services.apache), bad.endpoint(), path), adler32=None)
        md5 = hashlib.md5(CONTENT).hexdigest()
        success = Fault(report=(b"success: Created\n",), pulled=CONTENT[:-1] + b"x")
        bad.faults[temporary_path(path, "r1-1")] = success
        for asked in (task, replace(task, md5=md5)):
            with pytest.raises(ChecksumMismatch) as caught:
                copy_file(asked, pool)
            assert caught.value.retryable, "the source is right"
            assert bad.files == {}
        bad.faults[temporary_path(path, "r1-1")] = replace(success, pulled=CONTENT)
        for asked in (task, replace(task, md5=md5)):
            result = copy_file(asked, pool)
            assert (result.mode, result.adler32) == ("third_party_pull", adler32(CONTENT))
            bad.files.clear()
