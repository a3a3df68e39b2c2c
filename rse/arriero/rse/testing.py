"""The conformance suite of storage protocols, for tests of this package and of others that add a protocol.

A test module subclasses `ProtocolConformance` and gives it a fixture `endpoint`; that is all::

    class TestMine(ProtocolConformance):
        @pytest.fixture
        def endpoint(self, tmp_path):
            return Endpoint("MINE", "file", "", 0, str(tmp_path))

Each test works in a folder of its own below the prefix and leaves it there. It needs pytest, which this package
does not depend on.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterator

import pytest

from arriero.rse.errors import (
    AlreadyExists,
    InvalidName,
    NotFound,
    RSEError,
    SizeMismatch,
    Unsupported,
)
from arriero.rse.pool import ProtocolPool
from arriero.rse.protocol import OtherSide, StorageProtocol
from arriero.rse.types import Endpoint

ORDINARY_NAMES = (
    "plain.fits",
    "with space",
    " leading and trailing ",
    "per%cent",
    "%41",
    "%2e%2e",
    "%2F",
    "ha#sh",
    "pl+us",
    "amp&ersand",
    "co:lon",
    "equ=als",
    "que'st\"ion",
    "til~de",
    "bra[ck]et",
    "bra{ce}",
    "less<more>",
    "st*r",
    "pi|pe",
    "ünïcödé-日本語",
    "...",
    ".hidden",
    "x" * 250,
    "é" * 125,
)
"""Names that every storage must hold as they are."""

DOUBTFUL_NAMES = ("quest?ion", "a?b", "?", "semi;colon")
"""Names that a storage may refuse with `InvalidName`, but must never take for another."""

REFUSED_PATHS = (
    "/etc/passwd",
    "..",
    "../escape",
    "a/../../escape",
    "a/./b",
    "a//b",
    "a/",
    "back\\slash",
    "nul\0",
    "line\nfeed",
    "carriage\rreturn",
    "u\u0308",
    "x" * 251,
    "/".join(["y" * 100] * 10),
)
"""Paths that no storage is ever asked for."""


NOWHERE = OtherSide(Endpoint("NOWHERE", "http", "127.0.0.1", 9, "/"), "nothing")
"""Where no storage is."""


def adler32(content: bytes) -> str:
    """Canonical adler32 of some bytes, by other code than that under test."""
    return f"{zlib.adler32(content):08x}"


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 40 else f"{name[:6]}... of {len(name)}")


class ProtocolConformance:
    """What `StorageProtocol` promises, as tests; subclass it and give it a fixture `endpoint`."""

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

    # -- writing and reading ----------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 4095, 65_536, 3_000_001])
    def test_what_is_written_is_read(self, protocol: StorageProtocol, folder: str, size: int) -> None:
        content = bytes(range(256)) * (size // 256) + bytes(size % 256)
        pieces = [content[start : start + 100_000] for start in range(0, size, 100_000)]
        protocol.write(f"{folder}/f", iter(pieces), size)
        assert self.content_of(protocol, f"{folder}/f") == content
        found = protocol.stat(f"{folder}/f")
        assert (found.bytes, found.is_directory) == (size, False)

    @pytest.mark.parametrize("content", [b"", b"\0", b"a", b"leading zeros", bytes(100_000)])
    def test_digest_is_canonical(self, protocol: StorageProtocol, folder: str, content: bytes) -> None:
        protocol.write(f"{folder}/f", [content], len(content))
        assert protocol.digest(f"{folder}/f") == adler32(content)
        found = protocol.stat(f"{folder}/f", digest=True)
        assert found.bytes == len(content)
        assert found.adler32 in {None, adler32(content)}
        if "adler32" in protocol.abilities.digest_algorithms and not protocol.abilities.fragile_digests:
            assert found.adler32 == adler32(content)
        found = protocol.fingerprint(f"{folder}/f", len(content))
        assert (found.bytes, found.adler32, found.is_directory) == (len(content), adler32(content), False)

    def test_write_replaces(self, protocol: StorageProtocol, folder: str) -> None:
        protocol.write(f"{folder}/f", [b"a longer content"], 16)
        protocol.write(f"{folder}/f", [b"short"], 5)
        assert self.content_of(protocol, f"{folder}/f") == b"short"
        assert self.names_in(protocol, folder) == {"f"}

    def test_reading_may_stop_early(self, protocol: StorageProtocol, folder: str) -> None:
        content = bytes(5_000_000)
        protocol.write(f"{folder}/f", [content], len(content))
        pieces = protocol.read(f"{folder}/f")
        assert next(pieces)
        pieces.close()
        assert protocol.digest(f"{folder}/f") == adler32(content)

    # -- broken writes ----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("sent", "announced"), [(10, 5), (5, 10), (0, 1), (1, 0), (2_000_000, 3_000_000)]
    )
    def test_wrong_size_leaves_nothing(
        self, protocol: StorageProtocol, folder: str, sent: int, announced: int
    ) -> None:
        with pytest.raises(SizeMismatch):
            protocol.write(f"{folder}/f", [bytes(sent)], announced)
        with pytest.raises(NotFound):
            protocol.stat(f"{folder}/f")
        assert self.names_in(protocol, folder) == set()

    def test_broken_source_comes_out_unchanged_and_leaves_nothing(
        self, protocol: StorageProtocol, folder: str
    ) -> None:
        class BrokenSourceError(OSError):
            pass

        def broken() -> Iterator[bytes]:
            yield bytes(1_000_000)
            raise BrokenSourceError("the source broke off")

        with pytest.raises(BrokenSourceError, match="the source broke off"):
            protocol.write(f"{folder}/f", broken(), 2_000_000)
        assert self.names_in(protocol, folder) == set()

    def test_write_without_folder_either_makes_it_or_says_so(
        self, protocol: StorageProtocol, folder: str
    ) -> None:
        try:
            protocol.write(f"{folder}/new/f", [b"abc"], 3)
        except NotFound:
            assert self.names_in(protocol, folder) == set()
        else:
            assert self.content_of(protocol, f"{folder}/new/f") == b"abc"

    # -- names ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", ORDINARY_NAMES, ids=_shown)
    def test_ordinary_name(self, protocol: StorageProtocol, folder: str, name: str) -> None:
        self.check_name(protocol, folder, name)

    @pytest.mark.parametrize("name", DOUBTFUL_NAMES, ids=_shown)
    def test_doubtful_name_is_held_or_refused_never_taken_for_another(
        self, protocol: StorageProtocol, folder: str, name: str
    ) -> None:
        try:
            self.check_name(protocol, folder, name)
        except InvalidName:
            assert self.names_in(protocol, folder) == set()

    def check_name(self, protocol: StorageProtocol, folder: str, name: str) -> None:
        path = f"{folder}/{name}"
        content = name.encode()
        protocol.write(path, [content], len(content))
        assert self.content_of(protocol, path) == content
        assert protocol.stat(path).bytes == len(content)
        assert protocol.digest(path) == adler32(content)
        assert self.names_in(protocol, folder) == {name}
        protocol.move(path, f"{folder}/moved")
        assert self.names_in(protocol, folder) == {"moved"}
        protocol.move(f"{folder}/moved", path)
        assert self.content_of(protocol, path) == content
        assert protocol.delete(path) is True
        assert self.names_in(protocol, folder) == set()

    def test_folders_may_have_such_names_too(self, protocol: StorageProtocol, folder: str) -> None:
        path = f"{folder}/a b/per%20cent/ünï#x/f"
        protocol.make_parents(path)
        protocol.write(path, [b"deep"], 4)
        assert self.content_of(protocol, path) == b"deep"
        assert self.names_in(protocol, f"{folder}/a b/per%20cent") == {"ünï#x"}
        assert self.names_in(protocol, f"{folder}/a b/per%20cent/ünï#x") == {"f"}

    def test_names_that_differ_only_in_encoding_are_different_files(
        self, protocol: StorageProtocol, folder: str
    ) -> None:
        names = {"a b", "a%20b", "a+b", "a%2520b"}
        for name in names:
            protocol.write(f"{folder}/{name}", [name.encode()], len(name))
        assert self.names_in(protocol, folder) == names
        for name in names:
            assert self.content_of(protocol, f"{folder}/{name}") == name.encode()

    @pytest.mark.parametrize("path", REFUSED_PATHS, ids=_shown)
    def test_refused_path(self, protocol: StorageProtocol, folder: str, path: str) -> None:
        with pytest.raises(InvalidName):
            protocol.write(path, [b"x"], 1)
        for method in (protocol.read, protocol.delete, protocol.digest, protocol.make_parents):
            with pytest.raises(InvalidName):
                method(path)
        protocol.write(f"{folder}/a", [b"x"], 1)
        with pytest.raises(InvalidName):
            protocol.move(f"{folder}/a", path)
        with pytest.raises(InvalidName):
            protocol.move(path, f"{folder}/b")

    # -- what is not there ------------------------------------------------------------------------

    def test_missing(self, protocol: StorageProtocol, folder: str) -> None:
        path = f"{folder}/missing"
        for look in (protocol.stat, protocol.digest, protocol.read, protocol.list_directory):
            with pytest.raises(NotFound) as caught:
                look(path)
            assert path in caught.value.message
            assert protocol.endpoint.rse in caught.value.message
        with pytest.raises(NotFound):
            protocol.stat(path, digest=True)
        with pytest.raises(NotFound):
            protocol.move(path, f"{folder}/other")
        assert protocol.delete(path) is False
        assert protocol.delete(f"{folder}/missing-too/f") is False

    # -- moving and removing ----------------------------------------------------------------------

    def test_move(self, protocol: StorageProtocol, folder: str) -> None:
        protocol.write(f"{folder}/a", [b"abc"], 3)
        protocol.make_parents(f"{folder}/other/b")
        protocol.move(f"{folder}/a", f"{folder}/other/b")
        assert self.content_of(protocol, f"{folder}/other/b") == b"abc"
        assert protocol.digest(f"{folder}/other/b") == adler32(b"abc")
        assert self.names_in(protocol, folder) == {"other"}

    def test_move_never_replaces(self, protocol: StorageProtocol, folder: str) -> None:
        protocol.write(f"{folder}/a", [b"aaa"], 3)
        protocol.write(f"{folder}/b", [b"bbbb"], 4)
        protocol.make_parents(f"{folder}/c/x")
        for destination in ("b", "c"):
            with pytest.raises(AlreadyExists):
                protocol.move(f"{folder}/a", f"{folder}/{destination}")
        assert self.content_of(protocol, f"{folder}/a") == b"aaa"
        assert self.content_of(protocol, f"{folder}/b") == b"bbbb"

    def test_move_replaces_a_file_when_told_to(self, protocol: StorageProtocol, folder: str) -> None:
        for name, content in (("a", b"aaa"), ("b", b"bbbb"), ("c", b"cc")):
            protocol.write(f"{folder}/{name}", [content], len(content))
        protocol.make_parents(f"{folder}/d/x")
        with pytest.raises(AlreadyExists):
            protocol.move(f"{folder}/a", f"{folder}/d", replace=True)
        protocol.move(f"{folder}/a", f"{folder}/b", replace=True)
        assert self.content_of(protocol, f"{folder}/b") == b"aaa"
        assert protocol.digest(f"{folder}/b") == adler32(b"aaa")
        protocol.move(f"{folder}/c", f"{folder}/free", replace=True)
        assert self.names_in(protocol, folder) == {"b", "d", "free"}

    def test_delete_is_idempotent(self, protocol: StorageProtocol, folder: str) -> None:
        protocol.write(f"{folder}/f", [b"abc"], 3)
        assert protocol.delete(f"{folder}/f") is True
        assert protocol.delete(f"{folder}/f") is False
        with pytest.raises(NotFound):
            protocol.stat(f"{folder}/f")

    def test_folder_with_something_in_it_is_not_removed(self, protocol: StorageProtocol, folder: str) -> None:
        protocol.write(f"{folder}/f", [b"abc"], 3)
        with pytest.raises(Unsupported):
            protocol.delete(folder)
        assert self.content_of(protocol, f"{folder}/f") == b"abc"

    # -- folders ----------------------------------------------------------------------------------

    def test_deep_parents_and_again(self, protocol: StorageProtocol, folder: str) -> None:
        path = f"{folder}/" + "/".join(f"level{number}" for number in range(20)) + "/f"
        protocol.make_parents(path)
        protocol.make_parents(path)
        protocol.write(path, [b"deep"], 4)
        ProtocolPool().get(protocol.endpoint).make_parents(path)
        assert self.content_of(protocol, path) == b"deep"

    def test_file_in_place_of_a_folder(self, protocol: StorageProtocol, folder: str) -> None:
        protocol.write(f"{folder}/f", [b"abc"], 3)
        with pytest.raises(RSEError) as caught:
            protocol.make_parents(f"{folder}/f/x")
        assert caught.value.code in {"already_exists", "not_found"}
        assert self.content_of(protocol, f"{folder}/f") == b"abc"

    def test_folder_is_told_from_file(self, protocol: StorageProtocol, folder: str) -> None:
        assert protocol.stat(folder).is_directory
        assert protocol.stat(folder, digest=True).is_directory
        for method in (protocol.digest, protocol.read):
            with pytest.raises(NotFound):
                method(folder)

    def test_listing(self, protocol: StorageProtocol, folder: str) -> None:
        assert protocol.list_directory(folder) == []
        for number in range(30):
            protocol.write(f"{folder}/f{number}", [bytes(number)], number)
        protocol.make_parents(f"{folder}/deeper/x")
        protocol.write(f"{folder}/deeper/x", [b"abc"], 3)
        entries = {entry.name: entry for entry in protocol.list_directory(folder)}
        assert entries.pop("deeper").is_directory
        assert {name: entry.bytes for name, entry in entries.items()} == {f"f{n}": n for n in range(30)}
        assert not any(entry.is_directory for entry in entries.values())
        assert folder in self.names_in(protocol, "")
        with pytest.raises(NotFound):
            protocol.list_directory(f"{folder}/f1")

    # -- declarations -----------------------------------------------------------------------------

    def test_what_it_cannot_it_says(self, protocol: StorageProtocol, folder: str) -> None:
        abilities = protocol.abilities
        assert abilities.move
        assert abilities.list_directory
        assert abilities.pull_reason
        if not abilities.third_party_pull:
            with pytest.raises(RSEError):
                protocol.pull(NOWHERE, f"{folder}/f")
            assert self.names_in(protocol, folder) == set()
