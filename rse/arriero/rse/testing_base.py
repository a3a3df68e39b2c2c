"""What the conformance tests of storage protocols share: fixtures, and ways to look at a storage."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterator

import pytest

from arriero.rse.pool import ProtocolPool
from arriero.rse.protocol import OtherSide, StorageProtocol
from arriero.rse.types import Endpoint

NOWHERE = OtherSide(Endpoint("NOWHERE", "http", "127.0.0.1", 9, "/"), "nothing")
"""Where no storage is."""


def adler32(content: bytes) -> str:
    """Canonical adler32 of some bytes, by other code than that under test."""
    return f"{zlib.adler32(content):08x}"


class StorageTests:
    """A storage and a folder in it for each test; `endpoint` is the subclass's."""

    @pytest.fixture(scope="class")
    @classmethod
    def pool(cls) -> Iterator[ProtocolPool]:
        pool = ProtocolPool()
        yield pool
        pool.close()

    @pytest.fixture
    def protocol(self, endpoint: Endpoint, pool: ProtocolPool) -> StorageProtocol:
        return pool.get(endpoint)

    @pytest.fixture
    def folder(self, protocol: StorageProtocol) -> str:
        """Path of a new, empty folder."""
        folder = f"conformance-{uuid.uuid4().hex}"
        protocol.make_parents(f"{folder}/x")
        return folder

    @staticmethod
    def content_of(protocol: StorageProtocol, path: str) -> bytes:
        return b"".join(protocol.read(path))

    @staticmethod
    def names_in(protocol: StorageProtocol, folder: str) -> set[str]:
        return {entry.name for entry in protocol.list_directory(folder)}
