"""What opens a storage: found where it is said to be, renewed without a word, handed on for one file, shown to nobody."""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from arriero.rse.certificates import first_expiry
from arriero.rse.copy import copy_file
from arriero.rse.credentials import Credentials
from arriero.rse.errors import AccessDenied, RSEError, TokenExpired, Unavailable, Unsupported
from arriero.rse.paths import temporary_path
from arriero.rse.pool import ProtocolPool
from arriero.rse.protocol import OtherSide
from arriero.rse.tokens import DiscoveredToken, TokenFile, expiry_of
from arriero.rse.types import Endpoint
from servicelib.server import WebDavServer
from servicelib.xrootd_tokens import XRootDWithTokens
from support.rse_badserver import BadServer, Fault, bad_server
from support.rse_copies import CONTENT, left_behind, order, streamed
from support.rse_endpoints import endpoint_of, https_endpoint_of
from support.services import Services
from support.x509 import Pair, pem_of, person, proxy

SECRET = "s3cr3t-that-nobody-may-see"


def token_of(seconds: float, **claims: object) -> str:
    """A token that runs out so many seconds from now, signed by nobody."""
    parts = [{"alg": "none"}, {"exp": time.time() + seconds, **claims}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "signature"])


class TestTokenFile:
    def test_it_is_read_again_when_it_changes(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text(" first\n")
        token = TokenFile(str(file), rse="X")
        assert token.read() == "first"
        (tmp_path / "new").write_text("other")
        (tmp_path / "new").rename(file)
        assert token.read() == "other"

    def test_one_that_has_run_out_is_told_before_anything_is_sent(
        self, pool: ProtocolPool, bad: BadServer, tmp_path: Path
    ) -> None:
        file = tmp_path / "token"
        file.write_text(token_of(-3600))
        protocol = pool.get(bad.endpoint(token_file=str(file)))
        with pytest.raises(TokenExpired, match=r"ran out at \d{4}-.*renew it there") as caught:
            protocol.stat("f")
        assert (caught.value.code, caught.value.retryable) == ("token_expired", True)
        assert bad.requests == []
        file.write_text(token_of(3600))
        bad.files["f"] = b"abc"
        assert protocol.stat("f").bytes == 3

    def test_clocks_may_differ_by_a_minute(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text(token_of(-50))
        assert TokenFile(str(file), rse="X").read()
        file.write_text(token_of(-70))
        with pytest.raises(TokenExpired):
            TokenFile(str(file), rse="X").read()

    @pytest.mark.parametrize(
        "text",
        [
            "opaque",
            "a.b.c",
            "a.!!!.c",
            "a." + base64.urlsafe_b64encode(b"[1]").decode() + ".c",
            "a." + base64.urlsafe_b64encode(b'{"exp": "soon"}').decode() + ".c",
            "a." + base64.urlsafe_b64encode(b'{"exp": true}').decode() + ".c",
            "a." + base64.urlsafe_b64encode(b"[" * 5000).decode() + ".c",
        ],
    )
    def test_one_that_does_not_say_is_believed(self, text: str) -> None:
        assert expiry_of(text) is None

    def test_its_expiry_is_read(self) -> None:
        assert expiry_of(token_of(100)) == pytest.approx(time.time() + 100, abs=5)


class TestDiscovery:
    @pytest.fixture
    def found(self, tmp_path: Path) -> Callable[..., str]:
        """Look with some variables set, of which `{0}` stands for a folder of this test."""

        def find(**environment: str) -> str:
            filled = {name: text.format(tmp_path) for name, text in environment.items()}
            return DiscoveredToken(rse="X", environment=filled).read()

        return find

    def test_the_order_is_that_of_the_wlcg(self, tmp_path: Path, found: Callable[..., str]) -> None:
        name = f"bt_u{os.geteuid()}"
        (tmp_path / "named").write_text("named")
        (tmp_path / name).write_text("of-the-session")
        everywhere = {
            "BEARER_TOKEN": "of-the-environment",
            "BEARER_TOKEN_FILE": "{0}/named",
            "XDG_RUNTIME_DIR": "{0}",
        }
        assert found(**everywhere) == "of-the-environment"
        del everywhere["BEARER_TOKEN"]
        assert found(**everywhere) == "named"
        del everywhere["BEARER_TOKEN_FILE"]
        assert found(**everywhere) == "of-the-session"

    def test_the_last_place_is_tmp(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("arriero.rse.tokens.SHARED_FOLDER", tmp_path)
        (tmp_path / f"bt_u{os.geteuid()}").write_text("of-tmp")
        assert DiscoveredToken(rse="X", environment={}).read() == "of-tmp"
        assert DiscoveredToken(rse="X", environment={"XDG_RUNTIME_DIR": "/nowhere"}).read() == "of-tmp"

    def test_a_file_that_somebody_else_has_put_there_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("arriero.rse.tokens.SHARED_FOLDER", tmp_path)
        path = tmp_path / f"bt_u{os.geteuid()}"
        path.write_text("of-a-thief")
        mine = os.geteuid()
        looks = iter([mine, mine + 1])  # for its name, then for its owner
        monkeypatch.setattr(os, "geteuid", lambda: next(looks))
        with pytest.raises(AccessDenied, match="is not ours"):
            DiscoveredToken(rse="X", environment={}).read()

    def test_none_says_where_one_is_looked_for(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: Callable[..., str]
    ) -> None:
        monkeypatch.setattr("arriero.rse.tokens.SHARED_FOLDER", tmp_path)
        with pytest.raises(AccessDenied, match="BEARER_TOKEN or BEARER_TOKEN_FILE"):
            found(XDG_RUNTIME_DIR="{0}")

    def test_one_in_the_environment_may_run_out(self, found: Callable[..., str]) -> None:
        with pytest.raises(TokenExpired, match="BEARER_TOKEN"):
            found(BEARER_TOKEN=token_of(-1000))
        with pytest.raises(AccessDenied, match="one bearer token"):
            found(BEARER_TOKEN="two words")

    def test_it_opens_a_storage(
        self, services: Services, pool: ProtocolPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = services.xrootd_tokens
        server.write_file("discovered/f", b"abc")
        monkeypatch.setenv("BEARER_TOKEN", server.token_for("storage.read:/"))
        protocol = pool.get(replace(endpoint_of(server), finds_token=True))
        assert protocol.stat("discovered/f").bytes == 3


class TestTokens:
    """XRootD with tokens of the WLCG's kind."""

    @pytest.fixture
    def server(self, services: Services) -> XRootDWithTokens:
        return services.xrootd_tokens

    def opened(self, server: XRootDWithTokens, tmp_path: Path, scope: str, **options: float) -> Endpoint:
        file = tmp_path / f"token-{abs(hash(scope))}"
        file.write_text(server.token_for(scope, **options))
        return https_endpoint_of(server, token_file=str(file))

    def test_scopes_are_what_a_token_may_do(
        self, server: XRootDWithTokens, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        writer = pool.get(self.opened(server, tmp_path, f"storage.modify:/{folder} storage.read:/{folder}"))
        writer.make_parents(f"{folder}/f")
        writer.write(f"{folder}/f", [b"abc"], 3)
        reader = pool.get(self.opened(server, tmp_path, f"storage.read:/{folder}"))
        assert b"".join(reader.read(f"{folder}/f")) == b"abc"
        for attempt in (
            lambda: reader.delete(f"{folder}/f"),
            lambda: reader.write(f"{folder}/g", [b"x"], 1),
            lambda: writer.write("elsewhere", [b"x"], 1),
            lambda: pool.get(endpoint_of(server)).stat(f"{folder}/f"),
        ):
            with pytest.raises(AccessDenied) as caught:
                attempt()
            assert caught.value.retryable is False
        assert left_behind(server, folder) == [f"{folder}/f"]

    def test_one_that_the_storage_finds_expired_is_looked_for_again_once(
        self, pool: ProtocolPool, bad: BadServer, tmp_path: Path
    ) -> None:
        """Its file may have been renewed between our reading it and the storage's looking at it."""
        file = tmp_path / "token"
        file.write_text("old")
        bad.files["f"] = b"abc"

        def opens(_verb: str, _path: str, authorization: str) -> bool:
            file.write_text("new")
            return authorization == "Bearer new"

        bad.opens = opens
        assert pool.get(bad.endpoint(token_file=str(file))).stat("f").bytes == 3
        bad.opens = lambda *_: False
        bad.requests.clear()
        with pytest.raises(AccessDenied):
            pool.get(bad.endpoint(token_file=str(file))).stat("f")
        assert len(bad.requests) == 1

    def test_a_copy_between_two_storages_with_tokens(
        self, server: XRootDWithTokens, services: Services, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        """Pull: the destination gets its own token, and for the source a token of the source."""
        other = XRootDWithTokens(services.directory, "tokens-too", authority=server.authority)
        other.start()
        try:
            server.write_file(f"{folder}/f", CONTENT)
            source = self.opened(server, tmp_path, f"storage.read:/{folder}")
            destination = self.opened(other, tmp_path, f"storage.modify:/ storage.read:/{folder}/..")
            result = copy_file(order(source, destination, f"{folder}/f"), pool)
            assert result.mode == "third_party_pull"
            assert (other.data_dir / folder / "f").read_bytes() == CONTENT
            no_token = order(https_endpoint_of(server), destination, f"{folder}/f", attempt="r1-2")
            with pytest.raises(AccessDenied) as caught:
                copy_file(replace(no_token, destination_path=f"{folder}/g"), pool)
            assert caught.value.rse == "TOKENS_DISK"
            assert left_behind(other, folder) == [f"{folder}/f"]
        finally:
            other.stop()

    def test_a_token_that_may_only_create_suffices(
        self, server: XRootDWithTokens, slac: WebDavServer, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        """The WLCG profile: create includes all that a copy needs that goes well."""
        for name in "fg":
            slac.write_file(f"{folder}/{name}", CONTENT)
        server.write_file(f"{folder}/deeper/x", b"")
        scope = f"storage.create:/{folder}/deeper storage.read:/{folder}/deeper"
        destination = replace(self.opened(server, tmp_path, scope), prefix=f"/rucio/{folder}/deeper")
        for name in "fg":
            task = replace(order(endpoint_of(slac), destination, f"{folder}/{name}"), destination_path=name)
            assert copy_file(task, pool).mode == "third_party_pull"
        assert pool.get(destination).abilities.is_proved is False, "a trial would leave its files there"
        [_trial, *copied] = left_behind(server, folder)
        assert copied == [f"{folder}/deeper/{name}" for name in "fgx"]


class TestPassword:
    def test_it_is_sent_and_handed_on_to_nobody(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, bad: BadServer, tmp_path: Path
    ) -> None:
        file = tmp_path / "password"
        file.write_text("mule:sécret\n")
        expected = "Basic " + base64.b64encode("mule:sécret".encode()).decode()
        bad.opens = lambda _verb, _path, authorization: authorization == expected
        bad.files[f"{folder}/f"] = CONTENT
        source = bad.endpoint(password_file=str(file))
        result = copy_file(order(source, endpoint_of(in2p3), f"{folder}/f"), pool)
        assert result.mode in {"third_party_push", "streamed"}
        assert "a password, which is not handed on" in result.mode_reason
        assert not any("TransferHeaderAuthorization" in headers for _, _, headers in bad.requests)

    @pytest.mark.parametrize("content", [b"no colon", b"a:b\0c", b""])
    def test_a_file_that_holds_something_else(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "password"
        file.write_bytes(content)
        with pytest.raises(AccessDenied, match="does not hold user:password"):
            Credentials(Endpoint("X", "http", "h", 0, "/", password_file=str(file))).authorization()
        file.unlink()
        with pytest.raises(AccessDenied, match="cannot be read"):
            Credentials(Endpoint("X", "http", "h", 0, "/", password_file=str(file))).authorization()


class TestCertificates:
    @pytest.fixture
    def server(self, services: Services) -> XRootDWithTokens:
        return services.xrootd_tokens

    @pytest.fixture
    def mule(self, server: XRootDWithTokens) -> Pair:
        return person(server.authority)

    def test_a_proxy_opens_a_storage_and_may_be_renewed(
        self, server: XRootDWithTokens, mule: Pair, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        file = proxy(mule, tmp_path / "proxy.pem")
        endpoint = replace(https_endpoint_of(server), certificate_file=str(file))
        protocol = pool.get(endpoint)
        protocol.make_parents(f"{folder}/f")
        protocol.write(f"{folder}/f", [b"abc"], 3)
        assert protocol.probe().is_proved
        proxy(mule, file, good_for=dt.timedelta(hours=-1))
        protocol.close()
        with pytest.raises(TokenExpired, match=r"proxy\.pem ran out at .*renew it there"):
            protocol.stat(f"{folder}/f")
        proxy(mule, file)
        assert protocol.stat(f"{folder}/f").bytes == 3

    def test_a_certificate_and_its_key_may_lie_apart(
        self, server: XRootDWithTokens, mule: Pair, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        certificate.write_bytes(mule[0].public_bytes(Encoding.PEM))
        key.write_bytes(pem_of(mule[1]))
        server.write_file(f"{folder}/f", b"abc")
        endpoint = replace(https_endpoint_of(server), certificate_file=str(certificate), key_file=str(key))
        assert pool.get(endpoint).stat(f"{folder}/f").bytes == 3

    def test_somebody_elses_is_refused(
        self, server: XRootDWithTokens, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        server.write_file(f"{folder}/f", b"abc")
        file = proxy(person(server.authority, "Thief"), tmp_path / "proxy.pem")
        with pytest.raises(AccessDenied):
            pool.get(replace(https_endpoint_of(server), certificate_file=str(file))).stat(f"{folder}/f")

    def test_one_that_cannot_be_used_is_named(
        self, server: XRootDWithTokens, pool: ProtocolPool, tmp_path: Path
    ) -> None:
        for name, content in (("empty.pem", b""), ("missing.pem", None)):
            file = tmp_path / name
            if content is not None:
                file.write_bytes(content)
            with pytest.raises(Unavailable, match=name):
                pool.get(replace(https_endpoint_of(server), certificate_file=str(file))).stat("f")

    def test_expiry_is_read_from_certificates(self, mule: Pair, tmp_path: Path) -> None:
        for hours in (-5, 12):
            text = proxy(mule, tmp_path / "p", good_for=dt.timedelta(hours=hours)).read_text()
            assert first_expiry(text) == pytest.approx(time.time() + hours * 3600, abs=60)
        far = dt.timedelta(days=365 * 40)
        mine = mule[0].not_valid_after_utc.timestamp()
        assert first_expiry(proxy(mule, tmp_path / "p", good_for=far).read_text()) == mine
        assert first_expiry("no certificate") is None
        assert first_expiry(ssl.DER_cert_to_PEM_cert(b"\x30\x82\x01")) is None

    def test_a_certificate_is_handed_on_to_nobody(
        self,
        server: XRootDWithTokens,
        mule: Pair,
        in2p3: WebDavServer,
        pool: ProtocolPool,
        folder: str,
        tmp_path: Path,
    ) -> None:
        server.write_file(f"{folder}/f", CONTENT)
        file = proxy(mule, tmp_path / "proxy.pem")
        source = replace(https_endpoint_of(server), certificate_file=str(file))
        result = copy_file(order(source, https_endpoint_of(in2p3), f"{folder}/f"), pool)
        assert result.mode == "third_party_push"
        assert "a certificate, which is not handed on" in result.mode_reason


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
