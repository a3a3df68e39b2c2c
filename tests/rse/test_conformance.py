"""The conformance suite on every kind of storage that there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from arriero.rse.testing import ProtocolConformance
from arriero.rse.types import Endpoint
from servicelib.apache import Apache
from support.rse_endpoints import endpoint_of, https_endpoint_of
from support.services import Services


class TestFile(ProtocolConformance):
    @pytest.fixture
    def endpoint(self, tmp_path: Path) -> Endpoint:
        return Endpoint("FILE", "file", "", 0, str(tmp_path))


class TestXRootDOverHttp(ProtocolConformance):
    @pytest.fixture
    def endpoint(self, services: Services) -> Endpoint:
        return endpoint_of(services.xrootd_slac)


class TestXRootDOverHttps(ProtocolConformance):
    @pytest.fixture
    def endpoint(self, services: Services) -> Endpoint:
        return https_endpoint_of(services.xrootd_in2p3)


class TestXRootDWithTokens(ProtocolConformance):
    @pytest.fixture
    def endpoint(self, services: Services, tmp_path: Path) -> Endpoint:
        token = tmp_path / "token"
        token.write_text(services.xrootd_tokens.token_for("storage.read:/ storage.modify:/"))
        return https_endpoint_of(services.xrootd_tokens, token_file=str(token))


class TestApache(ProtocolConformance):
    @pytest.fixture
    def endpoint(self, services: Services) -> Endpoint:
        return endpoint_of(services.apache)


class TestApacheWithTokenOverHttps(ProtocolConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, services: Services) -> Iterator[Apache]:
        server = Apache(services.directory, "conforming-apache", with_token=True)
        server.start()
        try:
            yield server
        finally:
            server.stop()

    @pytest.fixture
    def endpoint(self, server: Apache, tmp_path: Path) -> Endpoint:
        assert server.token
        token = tmp_path / "token"
        token.write_text(server.token)
        return https_endpoint_of(server, token_file=str(token))


class TestWsgiDav(ProtocolConformance):
    @pytest.fixture
    def endpoint(self, services: Services) -> Endpoint:
        return endpoint_of(services.wsgidav)
