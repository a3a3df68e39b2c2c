"""What the tests of copies share: orders, servers, and what is left behind on them."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from arriero.rse.copy import CopyOrder
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint
from servicelib.server import WebDavServer
from support.rse_badserver import BadServer, bad_server
from support.services import Services

CONTENT = bytes(range(256)) * 400


def adler32(content: bytes) -> str:
    return f"{zlib.adler32(content):08x}"


def order(
    source: Endpoint,
    destination: Endpoint,
    path: str,
    content: bytes = CONTENT,
    attempt: str = "r1-1",
    **options: Any,
) -> CopyOrder:
    return CopyOrder(
        source, path, destination, path, len(content), adler32(content), None, attempt, **options
    )


def streamed(
    source: Endpoint, destination: Endpoint, path: str, content: bytes = CONTENT, **options: Any
) -> CopyOrder:
    """An order whose bytes have to pass here."""
    return order(source, destination, path, content, ways=("streamed",), **options)


@pytest.fixture
def pool() -> Iterator[ProtocolPool]:
    pool = ProtocolPool()
    yield pool
    pool.close()


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    """A folder of this test's own on every server."""
    return "copy-" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


@pytest.fixture
def slac(services: Services) -> WebDavServer:
    return services.xrootd_slac


@pytest.fixture
def in2p3(services: Services) -> WebDavServer:
    return services.xrootd_in2p3


@pytest.fixture
def bad() -> Iterator[BadServer]:
    with bad_server() as server:
        yield server


def left_behind(server: WebDavServer, folder: str) -> list[str]:
    return sorted(
        str(path.relative_to(server.data_dir))
        for path in server.data_dir.glob(f"{folder}/**/*")
        if path.is_file()
    )
