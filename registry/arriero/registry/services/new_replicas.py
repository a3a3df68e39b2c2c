"""What a client declares of files at an RSE, checked and made ready to be staged.

This is where Python touches every single file of a registration, so it does little: what all files of a call share is
worked out once, and a name, checksum or path that is plain passes one regular expression.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from arriero.registry.errors import InvalidInput
from arriero.registry.services.metadata import encode
from arriero.registry.services.names import check_did_name
from arriero.registry.services.pfns import endpoint_of, path_from_pfn
from arriero.registry.states import ReplicaState
from arriero.registry.store.dids import Scope
from arriero.registry.store.replicas import NewFileRow
from arriero.registry.store.rses import Rse
from arriero.rse.checksum import canonical_adler32, canonical_md5
from arriero.rse.lfn2pfn import path_for

MAX_FILE_BYTES = 2**62

_WORDS = {
    state: state.value for state in (ReplicaState.AVAILABLE, ReplicaState.COPYING, ReplicaState.UNAVAILABLE)
}
"""States that a client may declare."""

_ONE_TO_ONE = frozenset({"hash", "identity"})
"""Algorithms that give no two DIDs one path, and a safe one to every safe name."""

_CANONICAL_ADLER32 = re.compile(r"[0-9a-f]{8}", re.ASCII).fullmatch

_SHORT_NAME = 500
"""Bytes of a name to which an algorithm of ours can add its folders without the path becoming too long."""


@dataclass(slots=True)
class NewReplica:
    """A file at an RSE, as a client declares it."""

    scope: str
    name: str
    bytes: int | None
    adler32: str | None = None
    md5: str | None = None
    state: ReplicaState = ReplicaState.AVAILABLE
    pfn: str | None = None
    meta: Mapping[str, Any] | None = None


def follows_from_name(rse: Rse) -> bool:
    """Whether a replica's path there follows from its name and can be nobody else's: then none is stored."""
    return rse.deterministic and rse.algorithm in _ONE_TO_ONE


def rows_of(
    rse: Rse, protocols: Sequence[RowMapping], files: Sequence[NewReplica], scopes: Mapping[str, Scope]
) -> list[NewFileRow]:
    """Check files and make them rows to stage, in the order of the keys, each file once.

    Parameters
    ----------
    protocols
        Of the RSE; may be empty when no file has a PFN.
    scopes
        Those that the files name.

    Raises
    ------
    InvalidInput
        A name, size, state, checksum, PFN or metadata cannot be meant, or a file is sent twice with different values.
    """
    readers = {scope.name: _Reader(rse, protocols, scope) for scope in scopes.values()}
    rows: dict[tuple[int, str], NewFileRow] = {}
    for file in files:
        row = readers[file.scope].row(file)
        if rows.setdefault(row[:2], row) is not row and rows[row[:2]] != row:
            raise InvalidInput(f"{file.scope}:{file.name[:200]} is sent twice, with different values")
    return [rows[key] for key in sorted(rows)]


class _Reader:
    """Reads the files of one scope at one RSE."""

    def __init__(self, rse: Rse, protocols: Sequence[RowMapping], scope: Scope) -> None:
        self._rse = rse
        self._algorithm = rse.algorithm
        self._protocols = protocols
        self._folders = tuple(endpoint_of(rse.name, protocol).plain_folder for protocol in protocols)
        self._scope_id = scope.id
        # crc32 goes on where it stopped: the same value as `spread_of`
        self._spread = zlib.crc32(f"{scope.name}:".encode())
        self._no_path = follows_from_name(rse)
        if self._no_path:
            # a scope that cannot be a folder is refused here, for all of its files
            path_for(self._algorithm, scope.name, "name")

    def row(self, file: NewReplica) -> NewFileRow:
        name, size, state = file.name, file.bytes, _WORDS.get(file.state)
        check_did_name(name)
        if size is None or not 0 <= size <= MAX_FILE_BYTES:
            raise InvalidInput(f"{file.scope}:{name[:200]}: bytes is a number from 0")
        if state is None:
            raise InvalidInput(f"a new replica is AVAILABLE, COPYING or UNAVAILABLE, not {file.state}")
        adler32 = file.adler32 or None
        if (adler32 is not None and _CANONICAL_ADLER32(adler32) is None) or file.md5:
            adler32, md5 = _checksums(file)
        else:
            md5 = None
        encoded = name.encode()
        plain = self._no_path and file.pfn is None and len(encoded) <= _SHORT_NAME
        return (
            self._scope_id,
            name,
            size,
            adler32,
            md5,
            zlib.crc32(encoded, self._spread) & 0x7FFFFFFF,
            state,
            None if plain else self._path(file),
            encode(file.meta) if file.meta else None,
        )

    def _path(self, file: NewReplica) -> str | None:
        """Path to store: None where it follows from the name and can be nobody else's."""
        rse = self._rse
        if rse.deterministic:
            path = path_for(self._algorithm, file.scope, file.name)
            if file.pfn is not None and not self._points_at(path, file.pfn):
                raise InvalidInput(
                    f"{file.scope}:{file.name[:200]}: the PFN is not where {rse.name} keeps this file "
                    f"({path[:200]})",
                    rucio_class="InvalidPath",
                )
            return None if self._no_path else path
        if file.pfn is None:
            raise InvalidInput(
                f"{rse.name} is not deterministic: give the PFN of {file.scope}:{file.name[:200]}",
                rucio_class="UnsupportedOperation",
            )
        return path_from_pfn(rse.name, self._protocols, file.pfn)

    def _points_at(self, path: str, pfn: str) -> bool:
        # as it stands first: names may hold what means something else in a URL
        if any(pfn == folder + path for folder in self._folders):
            return True
        return path_from_pfn(self._rse.name, self._protocols, pfn) == path


def _checksums(file: NewReplica) -> tuple[str | None, str | None]:
    try:
        return (
            canonical_adler32(file.adler32) if file.adler32 else None,
            canonical_md5(file.md5) if file.md5 else None,
        )
    except ValueError as error:
        raise InvalidInput(f"{file.scope}:{file.name[:200]}: {error}") from error
