"""The conformance suite of storage protocols, for tests of this package and of others that add a protocol.

A test module subclasses `ProtocolConformance` and gives it a fixture `endpoint`; that is all::

    class TestMine(ProtocolConformance):
        @pytest.fixture
        def endpoint(self, tmp_path):
            return Endpoint("MINE", "file", "", 0, str(tmp_path))

Each test works in a folder of its own below the prefix and leaves it there. What a storage cannot, by its abilities,
it has to refuse; one that does not list overrides `names_in`. It needs pytest, which this package does not depend on.
"""

from __future__ import annotations

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
from arriero.rse.protocol import StorageProtocol
from arriero.rse.testing_abilities import AbilitiesConformance
from arriero.rse.testing_base import adler32

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


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 40 else f"{name[:6]}... of {len(name)}")


class ProtocolConformance(AbilitiesConformance):
    """What `StorageProtocol` promises, as tests; subclass it and give it a fixture `endpoint`."""

    # -- writing and reading ----------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 4095, 65_536, 3_000_001])
    def test_what_is_written_is_read(self, protocol: StorageProtocol, folder: str, size: int) -> None:
        content = bytes(range(256)) * (size // 256) + bytes(size % 256)
        pieces = [content[start : start + 100_000] for start in range(0, size, 100_000)]
        protocol.write(f"{folder}/f", iter(pieces), size)
        assert self.content_of(protocol, f"{folder}/f") == content
        found = protocol.stat(f"{folder}/f")
        assert (found.bytes, found.is_directory) == (size, False)
        assert protocol.has_bytes(f"{folder}/f", size)
        assert not protocol.has_bytes(f"{folder}/f", size + 1)

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

    def test_what_is_new_only_takes_the_place_of_nothing_where_that_can_be_told(
        self, protocol: StorageProtocol, folder: str
    ) -> None:
        protocol.write(f"{folder}/f", [b"abc"], 3, only_new=True)
        try:
            protocol.write(f"{folder}/f", [b"other"], 5, only_new=True)
        except AlreadyExists:
            assert self.content_of(protocol, f"{folder}/f") == b"abc"
        else:
            assert self.content_of(protocol, f"{folder}/f") == b"other"
        assert self.names_in(protocol, folder) == {"f"}

    @pytest.mark.parametrize(
        ("start", "length"), [(0, 1), (3, 4), (0, 10), (8, 100), (9, 1), (50, 5), (4, 0)]
    )
    def test_part_of_a_file(self, protocol: StorageProtocol, folder: str, start: int, length: int) -> None:
        content = b"0123456789"
        protocol.write(f"{folder}/f", [content], len(content))
        assert protocol.read_range(f"{folder}/f", start, length) == content[start : start + length]

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
        if protocol.abilities.move:
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
        with pytest.raises(InvalidName):
            protocol.read_range(path, 0, 1)
        if protocol.abilities.move:
            protocol.write(f"{folder}/a", [b"x"], 1)
            with pytest.raises(InvalidName):
                protocol.move(f"{folder}/a", path)
            with pytest.raises(InvalidName):
                protocol.move(path, f"{folder}/b")

    # -- what is not there ------------------------------------------------------------------------

    def test_missing(self, protocol: StorageProtocol, folder: str) -> None:
        path = f"{folder}/missing"
        for look in (protocol.stat, protocol.digest, protocol.read):
            with pytest.raises(NotFound) as caught:
                look(path)
            assert path in caught.value.message
            assert protocol.endpoint.rse in caught.value.message
        with pytest.raises(NotFound):
            protocol.stat(path, digest=True)
        with pytest.raises(NotFound):
            protocol.fingerprint(path, 3)
        with pytest.raises(NotFound):
            protocol.has_bytes(path, 3)
        assert protocol.delete(path) is False
        assert protocol.delete(f"{folder}/missing-too/f") is False

    # -- removing --------------------------------------------------------------------------------

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
