"""A new protocol is one module and an entry point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from arriero.rse.copy import copy_file
from arriero.rse.pool import ENTRY_POINT_GROUP, ProtocolPool, protocol_for
from arriero.rse.testing import ProtocolConformance
from arriero.rse.types import Endpoint
from servicelib.server import WebDavServer
from support.rse_copies import CONTENT, adler32, order
from support.rse_endpoints import endpoint_of

MEMORY = Endpoint("MEMORY_DISK", "mem", "memory.example", 0, "/")


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install a package that has nothing but the entry point, as pip would."""
    site = tmp_path_factory.mktemp("site")
    metadata = site / "a_new_protocol-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: a-new-protocol\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\nmem = support.rse_memory:MemoryProtocol\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        protocol_for.cache_clear()
        yield
    protocol_for.cache_clear()


class TestMemory(ProtocolConformance):
    @pytest.fixture
    def endpoint(self) -> Endpoint:
        return MEMORY


def test_files_are_copied_to_it_and_from_it(
    in2p3: WebDavServer, slac: WebDavServer, pool: ProtocolPool, folder: str
) -> None:
    """It cannot rename, so what comes to it is written under its final name."""
    path = f"{folder}/f"
    slac.write_file(path, CONTENT)
    there = copy_file(order(endpoint_of(slac), MEMORY, path), pool)
    assert (there.mode, there.adler32) == ("streamed", adler32(CONTENT))
    assert there.mode_reason == (
        "the destination is the memory of a process, which does not pull; "
        "the destination is reached by 'mem', which no storage can push to"
    )
    back = copy_file(order(MEMORY, endpoint_of(in2p3), path), pool)
    assert (back.mode, Path(in2p3.data_dir, path).read_bytes()) == ("streamed", CONTENT)
    assert copy_file(order(endpoint_of(slac), MEMORY, path), pool).mode == "adopted"
