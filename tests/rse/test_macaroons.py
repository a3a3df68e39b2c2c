"""What another storage is handed is for one file, and nobody sees any of it."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from arriero.rse.copy import copy_file
from arriero.rse.credentials import Credentials
from arriero.rse.errors import AccessDenied, RSEError, Unsupported
from arriero.rse.paths import temporary_path
from arriero.rse.pool import ProtocolPool
from arriero.rse.protocol import OtherSide
from servicelib.server import WebDavServer
from support.rse_badserver import BadServer, Fault, bad_server
from support.rse_copies import CONTENT, order, streamed
from support.rse_endpoints import endpoint_of, https_endpoint_of
from support.services import Services
from support.x509 import person, proxy

SECRET = "s3cr3t-that-nobody-may-see"


class TestMacaroons:
    def test_a_source_gives_one_for_one_file_and_one_hour(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "token"
        file.write_text(SECRET)
        path = f"{folder}/f"
        with bad_server(software="dCache/9.2", gives_macaroons=True) as dcache:
            dcache.opens = lambda _verb, _path, authorization: authorization == f"Bearer {SECRET}"
            dcache.files[path] = CONTENT
            source = dcache.endpoint(token_file=str(file), gives_macaroons=True)
            assert copy_file(order(source, endpoint_of(in2p3), path), pool).mode == "third_party_pull"
            assert dcache.macaroons == [{"caveats": ["activity:DOWNLOAD,LIST"], "validity": "PT60M"}]
            by_storage = [
                headers["Authorization"]
                for verb, _, headers in dcache.requests
                if verb in {"GET", "HEAD"} and headers.get("User-Agent") != "arriero"
            ]
            assert by_storage
            assert all(SECRET not in value for value in by_storage), "it got no more than the one file"

    def test_a_destination_gives_one_to_write_one_file(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "token"
        file.write_text(SECRET)
        path = f"{folder}/f"
        slac.write_file(path, CONTENT)
        with bad_server(software="storage", copies=False, gives_macaroons=True) as storage:
            storage.opens = lambda _verb, _path, authorization: authorization == f"Bearer {SECRET}"
            destination = storage.endpoint(token_file=str(file), gives_macaroons=True)
            assert copy_file(order(endpoint_of(slac), destination, path), pool).mode == "third_party_push"
            assert storage.macaroons == [{"caveats": ["activity:UPLOAD,LIST"], "validity": "PT60M"}]
            [put] = [
                headers
                for verb, asked, headers in storage.requests
                if verb == "PUT" and asked.startswith(path)
            ]
            assert (
                put["Authorization"]
                == f"Bearer macaroon.UPLOAD-LIST.{temporary_path(path, 'r1-1').encode().hex()}"
            )

    def test_xrootd_gives_one_to_the_owner_of_a_certificate(
        self, services: Services, in2p3: WebDavServer, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        server = services.xrootd_tokens
        server.write_file(f"{folder}/f", CONTENT)
        file = proxy(person(server.authority), tmp_path / "proxy.pem")
        source = replace(https_endpoint_of(server), certificate_file=str(file), gives_macaroons=True)
        result = copy_file(order(source, https_endpoint_of(in2p3), f"{folder}/f"), pool)
        assert result.mode == "third_party_pull"
        assert (in2p3.data_dir / folder / "f").read_bytes() == CONTENT
        handed = pool.get(source).delegate(f"{folder}/f", writes=False, seconds=60)
        in2p3_protocol = pool.get(https_endpoint_of(in2p3))
        server.write_file(f"{folder}/other", CONTENT)
        with pytest.raises(AccessDenied):
            in2p3_protocol.pull(OtherSide(source, f"{folder}/other", handed), f"{folder}/stolen")

    def test_a_long_transfer_gets_a_longer_one(
        self, pool: ProtocolPool, bad: BadServer, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text(SECRET)
        bad.gives_macaroons = True
        protocol = pool.get(bad.endpoint(token_file=str(tmp_path / "token"), gives_macaroons=True))
        protocol.delegate("f", writes=False, seconds=7201)
        assert bad.macaroons[-1]["validity"] == "PT121M"

    @pytest.mark.parametrize(
        "answer",
        [Fault(status=405), Fault(status=200, body=b"<html>"), Fault(status=200, body=b'{"macaroon": 1}')],
    )
    def test_a_storage_that_gives_none_has_its_token_handed_on(
        self, pool: ProtocolPool, bad: BadServer, tmp_path: Path, answer: Fault
    ) -> None:
        (tmp_path / "token").write_text(SECRET)
        bad.faults["f"] = answer
        protocol = pool.get(bad.endpoint(token_file=str(tmp_path / "token"), gives_macaroons=True))
        for _ in range(2):
            assert protocol.delegate("f", writes=False, seconds=60) == f"Bearer {SECRET}"

    def test_a_storage_that_gives_none_and_wants_a_password(
        self, pool: ProtocolPool, bad: BadServer, tmp_path: Path
    ) -> None:
        (tmp_path / "password").write_text("mule:secret")
        protocol = pool.get(bad.endpoint(password_file=str(tmp_path / "password"), gives_macaroons=True))
        for _ in range(2):
            with pytest.raises(Unsupported, match="asked for a macaroon"):
                protocol.delegate("f", writes=False, seconds=60)
        assert len([verb for verb, _, _ in bad.requests if verb == "POST"]) == 1, "it is not asked each time"

    def test_one_that_is_refused_to_us_is_no_reason_to_hand_on_more(
        self, pool: ProtocolPool, bad: BadServer, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text(SECRET)
        bad.faults["f"] = Fault(status=403)
        protocol = pool.get(bad.endpoint(token_file=str(tmp_path / "token"), gives_macaroons=True))
        with pytest.raises(AccessDenied):
            protocol.delegate("f", writes=False, seconds=60)


class TestNobodySeesThem:
    @pytest.fixture
    def logged(
        self, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> Iterator[Callable[[], str]]:
        caplog.set_level(logging.DEBUG)
        with structlog.testing.capture_logs() as entries:

            def everything() -> str:
                out, err = capfd.readouterr()
                return f"{out}{err}{caplog.text}{entries!r}"

            yield everything

    def test_neither_errors_nor_logs_nor_reprs_have_them(
        self,
        in2p3: WebDavServer,
        services: Services,
        pool: ProtocolPool,
        folder: str,
        tmp_path: Path,
        logged: Callable[[], str],
    ) -> None:
        (tmp_path / "token").write_text(SECRET)
        (tmp_path / "password").write_text(f"mule:{SECRET}")
        encoded = base64.b64encode(f"mule:{SECRET}".encode()).decode()
        seen: list[str] = []
        path = f"{folder}/f"
        with bad_server() as bad:
            bad.files[path] = CONTENT
            for option in ("token_file", "password_file"):
                source = bad.endpoint(**{option: str(tmp_path / option.removesuffix("_file"))})
                seen += [repr(source), repr(Credentials(source)), repr(pool.get(source))]
                seen.append(repr(OtherSide(source, path, f"Bearer {SECRET}")))
                for task, fault in (
                    (
                        order(source, endpoint_of(in2p3), path),
                        Fault(status=403, body=f"Bearer {SECRET}".encode()),
                    ),
                    (streamed(source, endpoint_of(in2p3), path), Fault(cut_after=10)),
                    (streamed(source, endpoint_of(services.apache), path), Fault(cut_after=10)),
                    (
                        order(endpoint_of(in2p3), source, path),
                        Fault(status=500, body=f"authz={SECRET}".encode()),
                    ),
                ):
                    bad.faults[path] = fault
                    with pytest.raises(RSEError) as caught:
                        copy_file(task, pool)
                    seen += _told_by(caught.value)
        told = "".join(seen) + logged()
        assert SECRET not in told
        assert encoded not in told
        assert SECRET not in in2p3.log_path.read_text()


def _told_by(error: BaseException) -> list[str]:
    told, seen, found = [], set(), [error]
    while found:
        one = found.pop()
        if id(one) not in seen:
            seen.add(id(one))
            told += [repr(one), str(one), *getattr(one, "__notes__", [])]
            context = None if one.__suppress_context__ else one.__context__
            found += [other for other in (one.__cause__, context) if other is not None]
    return told
