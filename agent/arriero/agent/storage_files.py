"""Files that lie at an RSE: found by name, folder or pattern, with the names that they have in the catalogue.

It reads storage and nothing else: what is registered is not its business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arriero.agent.errors import AgentError
from arriero.registry.errors import InvalidInput
from arriero.registry.rse_credentials import RseCredentials
from arriero.registry.rse_credentials import read_credentials as read_all_credentials
from arriero.rse.errors import NotFound, Unsupported
from arriero.rse.lfn2pfn import path_for
from arriero.rse.paths import safe_path
from arriero.rse.protocol import StorageProtocol
from arriero.rse.types import DirectoryEntry, Endpoint

DEFAULT_ALGORITHM = "hash"
"""LFN-to-PFN algorithm of an RSE that names none, as in Rucio."""

_WILD = re.compile(r"[*?]")
_OURS = re.compile(r"\.[A-Za-z0-9_-]+\.part$|^\.arriero-")
"""Names under which Arriero writes copies that are not complete, and tries out what a server does."""


class UnusableCredentials(AgentError):
    """The file that says where credentials are cannot be used."""

    code = "unusable_credentials"
    exit_code = 2


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file at an RSE."""

    name: str
    """In the catalogue."""
    path: str
    """Below the prefix of the RSE."""
    bytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How names in a scope and paths at an RSE belong together.

    Attributes
    ----------
    algorithm
        LFN-to-PFN algorithm; None at an RSE that is not deterministic, where the path becomes the name.
    """

    scope: str
    algorithm: str | None

    def path_of(self, name: str) -> str:
        """Path of a name, or of the folder that names begin with."""
        return safe_path(name) if self.algorithm is None else path_for(self.algorithm, self.scope, name)

    @property
    def keeps_folders(self) -> bool:
        """Whether names that begin alike lie in one folder: only then can they be looked for."""
        return self.algorithm in {None, "lsst_butler", "identity"}

    def folder_of(self, names: str) -> str:
        """Folder at the RSE of names that begin with ``names/``; all of the scope's when it is empty."""
        if names:
            return self.path_of(names)
        return self.path_of("x").removesuffix("x").rstrip("/")

    def name_of(self, path: str) -> str:
        """Name that belongs to a path below `folder_of("")`."""
        root = self.folder_of("")
        return path[len(root) + 1 :] if root else path


def read_credentials(path: Path | None, rse: str) -> RseCredentials:
    """Read where the credentials of one RSE are.

    Parameters
    ----------
    path
        YAML: for each RSE name the fields of `RseCredentials`; None for none.
    rse
        Name of the RSE.

    Raises
    ------
    UnusableCredentials
        It cannot be read, or holds something else.
    """
    try:
        return read_all_credentials(path).get(rse, RseCredentials())
    except (InvalidInput, ValueError, RecursionError) as error:
        raise UnusableCredentials(f"The {error}.") from error


def endpoint_to_read(
    rse: str, protocols: Sequence[Mapping[str, Any]], credentials: RseCredentials, scheme: str | None = None
) -> Endpoint:
    """Choose how to read from an RSE: the protocol with the best priority (Rucio's figures: 1 is first, 0 is off).

    Raises
    ------
    Unsupported
        No protocol of it can be read from.
    """
    offered = []
    for index, protocol in enumerate(protocols):
        priorities = [int(domain.get("read") or 0) for domain in (protocol.get("domains") or {}).values()]
        usable = [priority for priority in priorities if priority > 0]
        if usable and scheme in {None, protocol["scheme"]}:
            offered.append((min(usable), index))
    if not offered:
        raise Unsupported(
            f"RSE {rse} has no {scheme or ''} protocol to read from: add one with 'arriero rse protocol add'."
        )
    best = protocols[min(offered)[1]]
    bare = Endpoint(
        rse,
        best["scheme"],
        best.get("hostname") or "",
        int(best.get("port") or 0),
        best.get("prefix") or "",
    )
    return credentials.of(bare)


def find_files(
    protocol: StorageProtocol, layout: Layout, wanted: Sequence[str], *, threads: int = 8
) -> list[StoredFile]:
    """Find the files that are meant, by name.

    Parameters
    ----------
    protocol
        Of the RSE.
    layout
        How names and paths belong together.
    wanted
        Names, folders (all below them), or patterns: ``*`` and ``?`` stay within a folder, ``**`` does not.
    threads
        Folders that are listed at once.

    Raises
    ------
    NotFound
        Nothing is there, or matches.
    Unsupported
        Folders and patterns where paths do not follow the names (`hash`).
    """
    found: dict[str, StoredFile] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="list") as pool:
        for text in wanted:
            name = text.strip("/")
            begin = len(found)
            for file in _matching(protocol, layout, name, pool):
                found[file.name] = file
            if len(found) == begin and not any(_belongs(name, known) for known in found):
                raise NotFound(f"Nothing at {protocol.endpoint.rse} matches {text!r}: check name and scope.")
    return sorted(found.values(), key=lambda file: file.name)


def _belongs(name: str, known: str) -> bool:
    return known == name or known.startswith(f"{name}/") or bool(_WILD.search(name))


def _matching(
    protocol: StorageProtocol, layout: Layout, name: str, pool: ThreadPoolExecutor
) -> Iterator[StoredFile]:
    if wild := _WILD.search(name):
        _need_folders(layout, name)
        folder = name[: wild.start()].rpartition("/")[0]
        pattern = _pattern(name)
        for file in _below(protocol, layout, folder, pool):
            if pattern.fullmatch(file.name):
                yield file
        return
    if name:
        path = layout.path_of(name)
        stat = protocol.stat(path)
        if not stat.is_directory:
            yield StoredFile(name, path, stat.bytes)
            return
    _need_folders(layout, name)
    yield from _below(protocol, layout, name, pool)


def _need_folders(layout: Layout, name: str) -> None:
    if not layout.keeps_folders:
        raise Unsupported(
            f"{name or 'the scope'!r} is no single file, and with the algorithm {layout.algorithm} the files of a "
            "folder are spread: give every name, with --from-file."
        )


def _below(
    protocol: StorageProtocol, layout: Layout, folder: str, pool: ThreadPoolExecutor
) -> Iterator[StoredFile]:
    """Yield all files below a folder of names, listing many folders at once."""
    start = layout.folder_of(folder)
    pending: dict[Future[list[DirectoryEntry]], str] = {pool.submit(protocol.list_directory, start): start}
    while pending:
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            parent = pending.pop(future)
            for entry in future.result():
                path = f"{parent}/{entry.name}" if parent else entry.name
                if entry.is_directory:
                    pending[pool.submit(protocol.list_directory, path)] = path
                elif not _OURS.search(entry.name):
                    yield StoredFile(layout.name_of(path), path, entry.bytes)


def _pattern(text: str) -> re.Pattern[str]:
    """Regular expression of a pattern in which ``*`` does not cross ``/`` and ``**`` does."""
    pieces = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    return re.compile(
        "".join(pieces.get(piece) or re.escape(piece) for piece in re.split(r"(\*\*/|\*\*|\*|\?)", text))
    )
