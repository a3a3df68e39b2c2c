"""The part of the conformance suite about what a storage may be able to do: it does what it says, or says that it cannot."""

from __future__ import annotations

import pytest

from arriero.rse.abilities import Abilities
from arriero.rse.errors import AlreadyExists, NotFound, RSEError, Unsupported
from arriero.rse.pool import ProtocolPool
from arriero.rse.protocol import OtherSide, StorageProtocol
from arriero.rse.testing_base import NOWHERE, StorageTests, adler32


class AbilitiesConformance(StorageTests):
    """Abilities as data, and each of them."""

    # -- as data ----------------------------------------------------------------------------------

    def test_abilities_are_data_with_reasons(self, protocol: StorageProtocol) -> None:
        abilities = protocol.probe()
        assert Abilities.from_dict(abilities.as_dict()) == abilities
        assert protocol.abilities == abilities
        assert abilities.pull_reason
        assert abilities.push_reason
        assert abilities.digest_algorithms <= {"adler32"}

    def test_a_trial_leaves_nothing(self, protocol: StorageProtocol) -> None:
        if not protocol.abilities.list_directory:
            return
        ProtocolPool().get(protocol.endpoint).probe()
        assert not any(name.startswith(".arriero-") for name in self.names_in(protocol, ""))

    def test_what_is_remembered_counts(self, protocol: StorageProtocol) -> None:
        abilities = protocol.probe()
        fresh = ProtocolPool().get(protocol.endpoint)
        fresh.remember(abilities)
        assert fresh.probe() == abilities

    # -- moving -----------------------------------------------------------------------------------

    def moves(self, protocol: StorageProtocol, folder: str) -> bool:
        """Whether it renames; otherwise it says so."""
        if protocol.probe().move:
            return True
        protocol.write(f"{folder}/a", [b"abc"], 3)
        with pytest.raises(Unsupported):
            protocol.move(f"{folder}/a", f"{folder}/b")
        assert self.names_in(protocol, folder) == {"a"}
        return False

    def test_move(self, protocol: StorageProtocol, folder: str) -> None:
        if not self.moves(protocol, folder):
            return
        protocol.write(f"{folder}/a", [b"abc"], 3)
        protocol.make_parents(f"{folder}/other/b")
        protocol.move(f"{folder}/a", f"{folder}/other/b")
        assert self.content_of(protocol, f"{folder}/other/b") == b"abc"
        assert protocol.digest(f"{folder}/other/b") == adler32(b"abc")
        assert self.names_in(protocol, folder) == {"other"}

    def test_move_never_replaces(self, protocol: StorageProtocol, folder: str) -> None:
        if not self.moves(protocol, folder):
            return
        protocol.write(f"{folder}/a", [b"aaa"], 3)
        protocol.write(f"{folder}/b", [b"bbbb"], 4)
        protocol.make_parents(f"{folder}/c/x")
        for destination in ("b", "c"):
            with pytest.raises(AlreadyExists):
                protocol.move(f"{folder}/a", f"{folder}/{destination}")
        assert self.content_of(protocol, f"{folder}/a") == b"aaa"
        assert self.content_of(protocol, f"{folder}/b") == b"bbbb"

    def test_move_replaces_a_file_when_told_to(self, protocol: StorageProtocol, folder: str) -> None:
        if not self.moves(protocol, folder):
            return
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

    def test_move_of_what_is_not_there(self, protocol: StorageProtocol, folder: str) -> None:
        if self.moves(protocol, folder):
            with pytest.raises(NotFound):
                protocol.move(f"{folder}/missing", f"{folder}/other")
            assert self.names_in(protocol, folder) == set()

    # -- listing ----------------------------------------------------------------------------------

    def test_listing(self, protocol: StorageProtocol, folder: str) -> None:
        if not protocol.abilities.list_directory:
            with pytest.raises(Unsupported):
                protocol.list_directory(folder)
            return
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
        with pytest.raises(NotFound):
            protocol.list_directory(f"{folder}/missing")

    # -- copying by itself ------------------------------------------------------------------------

    def own(self, protocol: StorageProtocol, path: str, *, writes: bool) -> OtherSide:
        """A file of this storage as the other side."""
        return OtherSide(protocol.endpoint, path, protocol.delegate(path, writes=writes, seconds=60))

    def test_pull(self, protocol: StorageProtocol, folder: str) -> None:
        content = bytes(range(256)) * 100
        protocol.write(f"{folder}/a b", [content], len(content))
        source = self.own(protocol, f"{folder}/a b", writes=False)
        if not protocol.probe().third_party_pull:
            with pytest.raises(RSEError):
                protocol.pull(source, f"{folder}/f")
            with pytest.raises(RSEError):
                protocol.pull(NOWHERE, f"{folder}/f")
            assert self.names_in(protocol, folder) == {"a b"}
            return
        protocol.pull(source, f"{folder}/f", size=len(content))
        found = protocol.fingerprint(f"{folder}/f", len(content))
        assert (found.bytes, found.adler32) == (len(content), adler32(content))
        for missing in (self.own(protocol, f"{folder}/missing", writes=False), NOWHERE):
            with pytest.raises(RSEError) as caught:
                protocol.pull(missing, f"{folder}/g")
            protocol.delete(f"{folder}/g")
            assert caught.value.code in {"not_found", "other_side_failed", "transfer_failed"}
        assert self.names_in(protocol, folder) == {"a b", "f"}

    def test_push(self, protocol: StorageProtocol, folder: str) -> None:
        content = bytes(range(256)) * 100
        protocol.write(f"{folder}/a b", [content], len(content))
        destination = self.own(protocol, f"{folder}/f", writes=True)
        if not protocol.probe().third_party_push:
            with pytest.raises(Unsupported):
                protocol.push(f"{folder}/a b", destination)
            assert self.names_in(protocol, folder) == {"a b"}
            return
        with protocol.receiving(len(content)):
            protocol.push(f"{folder}/a b", destination, size=len(content))
        found = protocol.fingerprint(f"{folder}/f", len(content))
        assert (found.bytes, found.adler32) == (len(content), adler32(content))
        with pytest.raises(RSEError):
            protocol.push(f"{folder}/missing", destination)
        with pytest.raises(RSEError):
            protocol.push(f"{folder}/a b", NOWHERE)
        assert self.names_in(protocol, folder) == {"a b", "f"}
