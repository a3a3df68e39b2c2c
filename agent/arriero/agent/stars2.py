"""Unpacks what the STARS2 archive sends: a tar with raws and pfsConfig files, safely, into the layout of the site.

Why it exists: the archive's way is to unpack the tar and to run the script within. Nothing that comes in a tar is run or
believed here. Members are read one after the other, each is checked before a byte of it is written, all go into a folder
of their own first, and what is there is moved to its place only when the whole tar agrees with its manifest.

The layout is that of the PFS data archive: ``<day>/sps/PFSA*.fits`` and ``<day>/pfsConfig/pfsConfig-*.fits`` below the
folder of the raws. The manifest of a STARS2 tar is not published: a member whose name says so is read, in any of the
forms in which checksums are usually written down (``digest  name``, or ``name size digest`` in columns).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any, ClassVar

import structlog

from arriero.agent.errors import AgentError

log = structlog.get_logger(__name__)

SCRIPTS = "zadmin"
"""Folder of the archive's own scripts and lists: nothing of it is written to disk."""

MOST_MEMBERS = 100_000
LARGEST_MANIFEST = 16 * 2**20
WORST_RATIO = 100
"""How many times larger the contents may be than a compressed tar."""

BLOCK = 4 * 2**20
CARD = 80
FITS_BLOCK = 2880
MOST_HEADER = 400 * FITS_BLOCK

_MANIFEST = re.compile(
    r"(manifest|checksums?|md5sums?|sha\d+sums?|filelist)[^/]*$|\.(md5|sha1|sha256|sha512)$", re.IGNORECASE
)
_DIGESTS = {8: "adler32", 32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
_HEX = re.compile(r"[0-9a-fA-F]+")
_RAW = re.compile(r"PFS[A-Z]\d{8}\.fits(\.fz|\.gz)?")
_CONFIG = re.compile(r"pfsConfig-0x[0-9a-f]{16}-(\d{6})\.fits(\.gz)?")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class UnsafeArchive(AgentError):
    """A tar that is not unpacked: nothing of it was kept."""

    code: ClassVar[str] = "unsafe_archive"
    exit_code: ClassVar[int] = 4


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a tar, as it was unpacked."""

    name: str
    """Within the tar."""
    path: Path
    """Where its bytes lie for now."""
    bytes: int
    digests: Mapping[str, str]


@dataclass(slots=True)
class Unpacked:
    """What came of a tar."""

    placed: dict[str, Path] = field(default_factory=dict)
    """By name in the tar: below the folder of the raws."""
    known: int = 0
    """Of them, those that were there before, byte for byte."""
    checked: int = 0
    """Of them, those that the manifest has a checksum of."""
    passed_over: list[str] = field(default_factory=list)
    """Members that are no raws and no pfsConfig files."""


def unpack(tar: Path, root: Path, *, need_manifest: bool = True, largest: int = 2**41) -> Unpacked:
    """Unpack a tar of STARS2 into the layout of the site.

    Parameters
    ----------
    tar
        The file; it is left where it is.
    root
        Folder of the raws, with the days below it.
    need_manifest
        Refuse a tar without one.
    largest
        Most bytes of all members.

    Raises
    ------
    UnsafeArchive
        It is no tar, is cut short, has a member that may not be, is not what its manifest says, or has another file than is
        there already. Nothing of it was kept.
    """
    root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".arriero-stars2-", dir=root) as scratch:
        members, manifests = _read(tar, Path(scratch), largest)
        listed = _listed(manifests)
        if need_manifest and not listed:
            raise UnsafeArchive(f"{tar.name} has no manifest: unpack it with --no-manifest if you trust it.")
        result = Unpacked(checked=_check(tar, members, listed))
        _place(tar, root, members, result)
    log.info("archive unpacked", tar=tar.name, files=len(result.placed), known=result.known)
    return result


def _read(tar: Path, scratch: Path, largest: int) -> tuple[dict[str, Member], dict[str, str]]:
    members: dict[str, Member] = {}
    manifests: dict[str, str] = {}
    seen: set[str] = set()
    total, count = 0, 0
    room = min(largest, max(tar.stat().st_size * WORST_RATIO, 2**20), shutil.disk_usage(scratch).free)
    try:
        with tarfile.open(tar, mode="r|*", errorlevel=2) as archive:
            for info in archive:
                count += 1
                if count > MOST_MEMBERS:
                    raise UnsafeArchive(f"{tar.name} has more than {MOST_MEMBERS} members.")
                name = _safe_name(tar, info)
                if info.isdir():
                    continue
                if name.casefold() in seen:
                    raise UnsafeArchive(f"{tar.name} has {name!r} twice.")
                seen.add(name.casefold())
                total += info.size
                if total > room:
                    raise UnsafeArchive(
                        f"{tar.name} would take more than {room} bytes: there is no room, or it is a bomb."
                    )
                source = archive.extractfile(info)
                if source is None:
                    raise UnsafeArchive(f"{tar.name}: {name!r} is no plain file.")
                if _MANIFEST.search(name):
                    if info.size > LARGEST_MANIFEST:
                        raise UnsafeArchive(f"{tar.name}: {name!r} is too long for a manifest.")
                    manifests[name] = source.read(LARGEST_MANIFEST).decode("utf-8", "replace")
                elif PurePosixPath(name).parts[0] != SCRIPTS:
                    members[name] = _written(name, source, scratch / f"{count:06d}", info.size)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnsafeArchive(f"{tar.name} is no whole tar: {error}. Fetch it again.") from error
    return members, manifests


def _safe_name(tar: Path, info: tarfile.TarInfo) -> str:
    """Name of a member that stays below the folder and is a plain file or a folder."""
    shown = info.name[:200]
    if not (info.isreg() or info.isdir()) or info.issparse():
        raise UnsafeArchive(f"{tar.name}: {shown!r} is no plain file (a link, a device, or the like).")
    if not info.name.isprintable() or "\\" in info.name or len(info.name) > 1000:
        raise UnsafeArchive(f"{tar.name}: {shown!r} is no usable name.")
    path = PurePosixPath(info.name)
    if path.is_absolute() or ".." in path.parts:
        raise UnsafeArchive(f"{tar.name}: {shown!r} leads out of the folder.")
    if not path.parts and not info.isdir():
        raise UnsafeArchive(f"{tar.name} has a member without a name.")
    return path.as_posix()


def _written(name: str, source: IO[bytes], path: Path, size: int) -> Member:
    digests = {
        word: hashlib.new(word, usedforsecurity=False) for word in _DIGESTS.values() if word != "adler32"
    }
    adler32, written = zlib.adler32(b""), 0
    with path.open("xb") as target:
        while block := source.read(BLOCK):
            target.write(block)
            written += len(block)
            adler32 = zlib.adler32(block, adler32)
            for digest in digests.values():
                digest.update(block)
        target.flush()
        os.fsync(target.fileno())
    if written != size:
        raise UnsafeArchive(f"{name!r} has {written} bytes of {size}: the tar is cut short. Fetch it again.")
    found = {word: digest.hexdigest() for word, digest in digests.items()}
    return Member(name, path, written, {**found, "adler32": f"{adler32:08x}"})


def _listed(manifests: Mapping[str, str]) -> dict[str, tuple[str | None, int | None]]:
    """What manifests say: by name, as it is written there, a digest and a size."""
    listed: dict[str, tuple[str | None, int | None]] = {}
    for text in manifests.values():
        for line in text.splitlines():
            words = [word.strip("*\"'") for word in re.split(r"[\s,;|]+", line.strip()) if word]
            if not words or words[0].startswith("#"):
                continue
            names = [word for word in words if not _HEX.fullmatch(word)]
            digests = [word.lower() for word in words if len(word) in _DIGESTS and _HEX.fullmatch(word)]
            sizes = [int(word) for word in words if word.isdecimal() and word.lower() not in digests]
            if len(names) == 1 and "." in names[0] and (digests or sizes):
                listed[names[0].removeprefix("./")] = (
                    max(digests, key=len, default=None),
                    sizes[0] if sizes else None,
                )
    return listed


def _check(
    tar: Path, members: Mapping[str, Member], listed: Mapping[str, tuple[str | None, int | None]]
) -> int:
    """Hold the members against the manifest, both ways; give how many have a checksum there."""
    by_name = {PurePosixPath(name).name: member for name, member in members.items()}
    checked, told = 0, set()
    for name, (digest, size) in listed.items():
        member = members.get(name) or by_name.get(PurePosixPath(name).name)
        if member is None:
            if PurePosixPath(name).parts[0] == SCRIPTS or not (_kind(name)):
                continue
            raise UnsafeArchive(f"{tar.name}: {name!r} is in its manifest and not in it. Fetch it again.")
        told.add(member.name)
        if size is not None and size != member.bytes:
            raise UnsafeArchive(f"{tar.name}: {name!r} has {member.bytes} bytes, its manifest says {size}.")
        if digest is not None:
            checked += 1
            if member.digests[_DIGESTS[len(digest)]] != digest:
                raise UnsafeArchive(
                    f"{tar.name}: {name!r} is not what its manifest says ({_DIGESTS[len(digest)]})."
                )
    strangers = sorted(name for name in members if listed and name not in told and _kind(name))
    if strangers:
        raise UnsafeArchive(f"{tar.name}: {strangers[0]!r} is not in its manifest ({len(strangers)} files).")
    return checked


def _kind(name: str) -> str | None:
    """Folder that a file of this name belongs in, below its day; None: it is neither a raw nor a pfsConfig."""
    last = PurePosixPath(name).name
    if _RAW.fullmatch(last):
        return "sps"
    return "pfsConfig" if _CONFIG.fullmatch(last) else None


def _place(tar: Path, root: Path, members: Mapping[str, Member], result: Unpacked) -> None:
    days = _days(members)
    wanted: dict[Path, Member] = {}
    for name, member in sorted(members.items()):
        kind = _kind(name)
        if kind is None:
            result.passed_over.append(name)
            continue
        day = days.get(name)
        if day is None:
            raise UnsafeArchive(f"{tar.name}: of {name!r} it is not known from which day it is (DATE-OBS).")
        below = Path(day, kind, PurePosixPath(name).name)
        if below in wanted:
            raise UnsafeArchive(f"{tar.name}: {name!r} and {wanted[below].name!r} have the same place.")
        wanted[below] = member
        result.placed[name] = below
    there = {below for below, member in wanted.items() if _is_there(tar, root / below, member)}
    result.known = len(there)
    for below, member in wanted.items():
        if below in there:
            continue
        target = root / below
        target.parent.mkdir(parents=True, exist_ok=True)
        # a link is never overwritten, as a rename would
        os.link(member.path, target)


def _is_there(tar: Path, target: Path, member: Member) -> bool:
    if not os.path.lexists(target):
        return False
    if target.is_symlink() or not target.is_file() or target.stat().st_size != member.bytes:
        raise UnsafeArchive(f"{tar.name}: there is another {target} already. Decide which one counts.")
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != member.digests["sha256"]:
            raise UnsafeArchive(f"{tar.name}: there is another {target} already. Decide which one counts.")
    return True


def _days(members: Mapping[str, Member]) -> dict[str, str]:
    """Day of each file: by its header, of a pfsConfig by the raws of its visit, else by a day in its name."""
    days: dict[str, str] = {}
    visits: dict[str, str] = {}
    for name, member in members.items():
        if _kind(name) is None:
            continue
        day = _day_of_header(member.path) or next(
            (part for part in PurePosixPath(name).parts if _DAY.fullmatch(part)), None
        )
        if day is not None:
            days[name] = day
            if _kind(name) == "sps":
                visits[PurePosixPath(name).name[4:10]] = day
    for name in members:
        last = _CONFIG.fullmatch(PurePosixPath(name).name)
        if last and name not in days and last[1] in visits:
            days[name] = visits[last[1]]
    return days


def _day_of_header(path: Path) -> str | None:
    """``DATE-OBS`` of the first header that has it; a bounded part of the file is read."""
    with path.open("rb") as file:
        begin = file.read(2)
        file.seek(0)
        source: Any = gzip.GzipFile(fileobj=file) if begin == b"\x1f\x8b" else file
        try:
            head = source.read(MOST_HEADER)
        except (OSError, EOFError, zlib.error):
            return None
    for card in _cards(io.BytesIO(head)):
        if card.startswith("DATE-OBS=") and (day := _DAY.search(card)):
            return day[0]
    return None


def _cards(head: io.BytesIO) -> Iterator[str]:
    while len(card := head.read(CARD)) == CARD:
        text = card.decode("ascii", "replace")
        if text.startswith("END "):
            return
        yield text
