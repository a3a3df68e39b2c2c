"""The conformance suite on every kind of storage that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from arriero.rse import davread
from arriero.rse.testing import ProtocolConformance
from arriero.rse.types import Endpoint
from support.rse_endpoints import endpoint_of, https_endpoint_of
from support.services import Services


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """XRootD 5.5.3 does not answer who asks for the digest of a folder: wait for that less than in production."""
    first, *others = davread.DIGEST_TIMEOUTS
    monkeypatch.setattr(davread, "DIGEST_TIMEOUTS", (first / 5, *others))


class TestFile(ProtocolConformance):
    @pytest.fixture
    def endpoint(self, tmp_path: Path) -> Endpoint:
        return Endpoint("FILE", "file", "", 0, str(tmp_path))


@pytest.mark.usefixtures("impatient")
class TestXRootDOverHttp(ProtocolConformance):
    @pytest.fixture
    def endpoint(self, services: Services) -> Endpoint:
        return endpoint_of(services.xrootd_slac)


@pytest.mark.usefixtures("impatient")
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
