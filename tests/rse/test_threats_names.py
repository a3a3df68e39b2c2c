"""Names and sizes that go wrong between two storages (D15 to D20 of the list of threats): a test each."""

from __future__ import annotations

import unicodedata
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from arriero.rse.abilities import Abilities
from arriero.rse.copy import Limits, copy_file
from arriero.rse.copy_order import WAYS, Mode
from arriero.rse.errors import (
    InvalidName,
    NotFound,
    RSEError,
)
from arriero.rse.file import FileProtocol
from arriero.rse.pool import ProtocolPool
from arriero.rse.progress import Watch
from arriero.rse.propfind import parse_multistatus
from arriero.rse.tpc import MarkerParser
from arriero.rse.types import Endpoint, FileStat
from servicelib.server import WebDavServer
from support.rse_badserver import MARKER
from support.rse_copies import CONTENT, left_behind, order
from support.rse_endpoints import endpoint_of
from support.services import Services

SERVERS = ("xrootd_in2p3", "apache", "wsgidav")


class TestD15To17Names:
    @pytest.mark.parametrize("server", SERVERS)
    def test_d15_one_form_of_unicode(
        self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str, server: str
    ) -> None:
        destination = services.webdav(server)
        name = f"{folder}/Ångström-é-日本語"
        slac.write_file(name, CONTENT)
        copy_file(order(endpoint_of(slac), endpoint_of(destination), name), pool)
        assert left_behind(destination, folder) == [name]
        task = order(endpoint_of(slac), endpoint_of(destination), unicodedata.normalize("NFD", name))
        with pytest.raises(InvalidName, match="normal form C"):
            copy_file(task, pool)

    @pytest.mark.parametrize(
        "name",
        ["../f", "a/../../f", "a//f", "/f", "./f", "a/.", "a\\..\\f", "nul\0", "a\rb", "a\nb", "a\x7fb"],
    )
    def test_d16_names_that_would_go_elsewhere(
        self, slac: WebDavServer, in2p3: WebDavServer, pool: ProtocolPool, folder: str, name: str
    ) -> None:
        slac.write_file(f"{folder}/f", CONTENT)
        good = order(endpoint_of(slac), endpoint_of(in2p3), f"{folder}/f")
        for task in (replace(good, source_path=name), replace(good, destination_path=name)):
            with pytest.raises(InvalidName):
                copy_file(task, pool)
        assert left_behind(in2p3, folder) == []

    @pytest.mark.parametrize("server", SERVERS)
    @pytest.mark.parametrize(
        "name", ["%2e%2e", "..%2f..", "%252e%252e", "..;", "...", "%5c..%5c", "%00", "%0d%0a"]
    )
    def test_d16_names_that_only_look_like_it_are_names(
        self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str, server: str, name: str
    ) -> None:
        """Each segment is encoded once: what was `%2e` stays `%2e`."""
        destination = services.webdav(server)
        path = f"{folder}/deep/{name}/f"
        slac.write_file(path, CONTENT)
        try:
            copy_file(order(endpoint_of(slac), endpoint_of(destination), path), pool)
        except InvalidName:
            assert ";" in name
            assert left_behind(destination, folder) == []
        else:
            assert left_behind(destination, folder) == [path]

    @pytest.mark.parametrize("server", SERVERS)
    def test_d17_names_as_long_as_may_be(
        self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str, server: str
    ) -> None:
        """The name that an attempt writes under is shortened, so that a name may have all of its 250 bytes."""
        destination = services.webdav(server)
        names = ["x" * 250, "é" * 125, "y" * 249 + "1", "y" * 249 + "2", "日" * 83]
        for name in names:
            slac.write_file(f"{folder}/{name}", name.encode())
            task = order(
                endpoint_of(slac),
                endpoint_of(destination),
                f"{folder}/{name}",
                name.encode(),
                attempt="r" * 64,
            )
            copy_file(task, pool)
        assert left_behind(destination, folder) == sorted(f"{folder}/{name}" for name in names)
        for name in ("x" * 251, "é" * 126):
            with pytest.raises(InvalidName, match="longer than 250 bytes"):
                copy_file(order(endpoint_of(slac), endpoint_of(destination), f"{folder}/{name}"), pool)


class TestD18Nothing:
    @pytest.mark.parametrize("server", SERVERS)
    @pytest.mark.parametrize("way", WAYS)
    def test_an_empty_file(
        self, services: Services, slac: WebDavServer, pool: ProtocolPool, folder: str, server: str, way: Mode
    ) -> None:
        destination, path = services.webdav(server), f"{folder}/{way}"
        slac.write_file(path, b"")
        task = order(endpoint_of(slac), endpoint_of(destination), path, b"", ways=(way, "streamed"))
        result = copy_file(task, pool)
        assert (result.bytes, result.adler32) == (0, "00000001")
        assert (destination.data_dir / path).read_bytes() == b""
        assert pool.get(task.destination).read_range(path, 0, 0) == b""
        assert copy_file(task, pool).mode == "adopted"


class Sink(FileProtocol):
    """A storage that counts what it is sent, and says that the checksum is right."""

    def __init__(self, endpoint: Endpoint, adler32: str) -> None:
        super().__init__(endpoint)
        self.adler32 = adler32
        self.kept: dict[str, FileStat] = {}

    @property
    @override
    def abilities(self) -> Abilities:
        return replace(super().abilities, digest_algorithms=frozenset({"adler32"}))

    @override
    def stat(self, path: str, *, digest: bool = False) -> FileStat:
        if path not in self.kept:
            raise NotFound(f"{path} is not there", rse=self.endpoint.rse, path=path)
        return self.kept[path]

    @override
    def write(
        self,
        path: str,
        chunks: Iterable[bytes],
        size: int,
        *,
        only_new: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.kept[path] = FileStat(sum(map(len, chunks)), self.adler32, is_directory=False)

    @override
    def move(self, source: str, destination: str, *, replace: bool = False) -> None:
        self.kept[destination] = self.kept.pop(source)


class Hole(FileProtocol):
    """A storage of one file that is nothing but zeros."""

    def __init__(self, endpoint: Endpoint, size: int) -> None:
        super().__init__(endpoint)
        self.size = size
        # zeros leave the one half of an adler32 alone, and add it to the other
        self.adler32 = f"{size % 65_521:04x}0001"

    @override
    def stat(self, path: str, *, digest: bool = False) -> FileStat:
        return FileStat(self.size, self.adler32 if digest else None, is_directory=False)

    @override
    def read(self, path: str, *, watch: Watch | None = None) -> Generator[bytes, None, None]:
        piece = bytes(1 << 24)
        for _ in range(self.size // len(piece)):
            yield piece
        yield bytes(self.size % len(piece))


class TestD19Size:
    SIZE = (1 << 32) + 5

    def test_more_than_fits_into_32_bits_by_http(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str
    ) -> None:
        """A file with a hole of 4 GiB."""
        path = f"{folder}/large"
        with slac.write_file(path, b"begin").open("r+b") as file:
            file.seek(self.SIZE - 5)
            file.write(b"ended")
        try:
            protocol = pool.get(endpoint_of(slac))
            assert protocol.stat(path).bytes == self.SIZE
            assert protocol.read_range(path, self.SIZE - 7, 20) == b"\0\0ended"
            pieces = protocol.read(path)
            assert next(pieces).startswith(b"begin\0")
            pieces.close()
        finally:
            (slac.data_dir / path).unlink()

    def test_more_than_fits_into_32_bits_through_this_process(
        self, pool: ProtocolPool, tmp_path: Path
    ) -> None:
        here, there = (Endpoint(name, "file", "", 0, str(tmp_path)) for name in ("HERE", "THERE"))
        source = Hole(here, self.SIZE)
        sink = Sink(there, source.adler32)
        pool._protocols.update({here: source, there: sink})
        told: list[int] = []
        task = replace(order(here, there, "f"), bytes=self.SIZE, adler32=source.adler32)
        result = copy_file(task, pool, on_progress=told.append)
        assert (result.mode, result.bytes, told[-1]) == ("streamed", self.SIZE, self.SIZE)
        assert sink.kept["f"] == FileStat(self.SIZE, source.adler32, is_directory=False)

    @given(st.integers(0, 2**62 - 1))
    def test_sizes_are_never_rounded(self, size: int) -> None:
        [resource] = parse_multistatus(
            [
                b'<D:multistatus xmlns:D="DAV:"><D:response><D:href>/f</D:href><D:propstat><D:prop>'
                b"<D:getcontentlength>%d</D:getcontentlength></D:prop></D:propstat></D:response></D:multistatus>"
                % size
            ]
        )
        assert resource.bytes == size
        [marker] = MarkerParser().feed(MARKER % size)
        assert marker.bytes == size
        assert Limits().total_s(size) >= 600


class TestD20Links:
    def test_a_link_at_the_source_is_not_followed(
        self, in2p3: WebDavServer, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").write_bytes(CONTENT)
        (tmp_path / "root" / folder).mkdir(parents=True)
        (tmp_path / "root" / folder / "f").symlink_to(tmp_path / "secret")
        (tmp_path / "root" / folder / "d").symlink_to(tmp_path)
        here = Endpoint("HERE", "file", "", 0, str(tmp_path / "root"))
        for path in (f"{folder}/f", f"{folder}/d/secret"):
            with pytest.raises((InvalidName, NotFound)) as caught:
                copy_file(order(here, endpoint_of(in2p3), path), pool)
            assert caught.value.rse == "HERE"
        assert left_behind(in2p3, folder) == []

    def test_a_link_at_the_destination_is_not_written_through(
        self, slac: WebDavServer, pool: ProtocolPool, folder: str, tmp_path: Path
    ) -> None:
        slac.write_file(f"{folder}/f", CONTENT)
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / folder).symlink_to(tmp_path)
        there = Endpoint("THERE", "file", "", 0, str(tmp_path / "root"))
        with pytest.raises(RSEError):
            copy_file(order(endpoint_of(slac), there, f"{folder}/f"), pool)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]
