"""The storages of the benchmark of transfers: two XRootD and two Apache as deploy/services starts them, with real files.

What is laid and what is verified goes by their disks, not by the servers.
"""

import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from benchlib.rules_found import require
from servicelib.apache import Apache
from servicelib.authority import Authority
from servicelib.packages import install
from servicelib.server import WebDavServer
from servicelib.stack import Stack, claim, new_directory, remove_abandoned
from servicelib.stamp import ATTRIBUTE, stamp
from servicelib.xrootd import XRootD

_PREFIX = "arriero-bench-storages-"
_PIECE = 1 << 20
EVERYTHING = {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1}


@dataclass(frozen=True)
class Files:
    """Files of one size in a folder, no two with the same bytes."""

    folder: str
    """Below the prefix of a storage."""
    size: int
    adler32: Mapping[str, str]
    """By name."""

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return self.size * len(self.adler32)

    def paths(self, folder: str | None = None) -> list[str]:
        """Give their paths, in this folder or another one."""
        return [f"{folder or self.folder}/{name}" for name in self.adler32]


@dataclass(frozen=True)
class Pair:
    """Two storages of a kind, and the scheme by which they are reached."""

    kind: str
    scheme: str
    source: WebDavServer
    destination: WebDavServer

    @property
    def name(self) -> str:
        """What it is called in the report."""
        return f"{self.kind} by {self.scheme}, {'pulled' if self.is_pulled else 'streamed'}"

    @property
    def is_pulled(self) -> bool:
        """Whether the destination fetches files by itself."""
        return self.destination.third_party_copy

    @property
    def ca_bundle(self) -> Path | None:
        """Give who has signed the certificates, where they matter."""
        return self.source.ca_bundle if self.scheme == "https" else None

    def url(self, server: WebDavServer) -> str:
        """Give the URL below which the files of one of the two are."""
        return str(server.https_url) if self.scheme == "https" else server.url

    def protocol(self, server: WebDavServer) -> dict[str, object]:
        """Give one of the two as a protocol of an RSE."""
        where = urlsplit(self.url(server))
        return {
            "hostname": where.hostname,
            "port": where.port,
            "prefix": where.path,
            "domains": {"lan": EVERYTHING, "wan": EVERYTHING},
        }


@dataclass(frozen=True)
class Storages:
    """Servers that run."""

    directory: Path
    xrootd: tuple[XRootD, XRootD]
    apache: tuple[Apache, Apache]

    def pair(self, kind: str, scheme: str) -> Pair:
        """Give the two of a kind."""
        servers: tuple[WebDavServer, WebDavServer] = self.xrootd if kind == "XRootD" else self.apache
        return Pair(kind, scheme, *servers)


@contextmanager
def running_storages(parent: Path | None) -> Iterator[Storages]:
    """Start the servers, on what Debian packages they need; end them and remove their files afterwards.

    Parameters
    ----------
    parent
        Where their files go; where temporary files go when None.
    """
    remove_abandoned(_PREFIX, parent)
    with ExitStack() as stack:
        first, second = (_stack(stack, parent) for _ in range(2))
        names = ["slac", "in2p3", "apache"]
        if missing := first.missing(names):
            install(missing, lambda line: print(line, file=sys.stderr))
        first.start(names)
        slac, in2p3, apache = map(first.server, names)
        # of the same name: whoever tidies up after a run that was killed knows it by that
        other = Apache(second.directory, "apache", authority=_authority(apache))
        other.start()
        stack.callback(other.stop)
        assert isinstance(slac, XRootD)
        assert isinstance(in2p3, XRootD)
        assert isinstance(apache, Apache)
        yield Storages(first.directory, (slac, in2p3), (apache, other))


def _stack(stack: ExitStack, parent: Path | None) -> Stack:
    made = Stack(new_directory(_PREFIX, parent))
    stack.callback(made.remove)
    claim(made.directory)
    return made


def _authority(server: object) -> Authority:
    assert isinstance(server, Apache)
    return server.authority


def lay(server: WebDavServer, folder: str, count: int, size: int) -> Files:
    """Write files into a storage behind its back, as if it had written them itself."""
    directory = make_folder(server, folder)
    adler32 = {}
    for number in range(count):
        name = f"{number:06d}.fits"
        adler32[name] = _write(directory / name, number, size)
        server.account.own(directory / name)
        if isinstance(server, XRootD):
            stamp(os.fspath(directory / name))
    return Files(folder, size, adler32)


def _write(path: Path, number: int, size: int) -> str:
    block = Random(number).randbytes(min(size, _PIECE))  # noqa: S311 - bytes to move, no secret
    checksum = 1
    with path.open("wb", buffering=0) as file:
        for begin in range(0, size, _PIECE):
            # each piece another one: what is swapped or repeated has another checksum
            piece = (begin.to_bytes(8, "big") + block[8:])[: size - begin]
            file.write(piece)
            checksum = zlib.adler32(piece, checksum)
    return f"{checksum:08x}"


def link(server: WebDavServer, files: Files, folder: str) -> Files:
    """Have the same files in another folder of the storage too, without their bytes twice."""
    made = make_folder(server, folder)
    for name in files.adler32:
        os.link(server.data_dir / files.folder / name, made / name)
    return Files(folder, files.size, files.adler32)


def make_folder(server: WebDavServer, folder: str) -> Path:
    """Make a folder of a storage, and those above it."""
    made = server.data_dir
    for part in Path(folder).parts:
        made = server.make_directory(made / part)
    return made


def clear(server: WebDavServer, *folders: str) -> None:
    """Remove folders of a storage with all that is in them; all of it where none is named."""
    for path in [server.data_dir / folder for folder in folders] or list(server.data_dir.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def names_on(server: WebDavServer) -> list[str]:
    """Give the paths of all files that are on a storage."""
    root = server.data_dir
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def verify(server: WebDavServer, files: Files, folder: str) -> None:
    """Read the files that should be in a folder of a storage, and see that there is nothing else on it.

    Raises
    ------
    RoundVoid
        A file is missing, has other bytes, or there is one too many, such as a temporary file.
    """
    found, expected = set(names_on(server)), set(files.paths(folder))
    odd = sorted(found ^ expected)
    require(not odd, f"{server.name}: {len(odd)} files are missing or too many, such as {odd[:3]}")
    for name, adler32 in files.adler32.items():
        size, checksum = _read(server.data_dir / folder / name)
        require(
            (size, checksum) == (files.size, adler32),
            f"{server.name}: {folder}/{name} has {size} bytes, {checksum}, not {files.size}, {adler32}",
        )


def _read(path: Path) -> tuple[int, str]:
    size, checksum = 0, 1
    with path.open("rb", buffering=0) as file:
        while piece := file.read(8 * _PIECE):
            size += len(piece)
            checksum = zlib.adler32(piece, checksum)
    return size, f"{checksum:08x}"


def await_digests(server: WebDavServer, paths: Sequence[str]) -> None:
    """Wait until the helper of an XRootD has stored the checksums of files that were just written: see servicelib/stamp.py."""
    deadline = time.monotonic() + 30
    for path in paths if isinstance(server, XRootD) else ():
        while ATTRIBUTE not in os.listxattr(server.data_dir / path):
            require(time.monotonic() < deadline, f"{server.name}: {path} has no digest")
            time.sleep(0.01)


def require_space(directory: Path, sizes: Sequence[int]) -> None:
    """Refuse to begin where files of these sizes, and one copy of the largest set of them, do not fit.

    Raises
    ------
    RoundVoid
        They do not.
    """
    free = shutil.disk_usage(directory).free
    needed = int(2.2 * max(sizes, default=0))
    require(
        free >= needed,
        f"{directory}: {free / 1e9:.1f} GB are free and {needed / 1e9:.1f} GB needed: "
        "choose a smaller --large-mb or --large, or another --directory",
    )
