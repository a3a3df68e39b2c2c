"""The conformance suite on every kind of storage that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from arriero.rse.testing import ProtocolConformance
from arriero.rse.types import Endpoint
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


class TestApache(ProtocolConformance):
    @pytest.fixture
    def endpoint(self, services: Services) -> Endpoint:
        return endpoint_of(services.apache)


class TestWsgiDav(ProtocolConformance):
    @pytest.fixture
    def endpoint(self, services: Services) -> Endpoint:
        return endpoint_of(services.wsgidav)
