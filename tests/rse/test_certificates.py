"""Certificates, proxies and passwords: for us alone, handed on to no other storage."""

from __future__ import annotations

import base64
import datetime as dt
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from arriero.rse.certificates import first_expiry
from arriero.rse.copy import copy_file
from arriero.rse.credentials import Credentials
from arriero.rse.errors import AccessDenied, TokenExpired, Unavailable
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint
from servicelib.server import WebDavServer
from servicelib.xrootd_tokens import XRootDWithTokens
from support.rse_badserver import BadServer
from support.rse_copies import CONTENT, order
from support.rse_endpoints import endpoint_of, https_endpoint_of
from support.services import Services
from support.x509 import Pair, pem_of, person, proxy


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
