"""Which replicas some PFNs are: the RSE by the longest prefix of its protocols, the file by what the path tells.

Where an algorithm gives each DID a path of its own (``hash``, ``identity``), scope and name are read back from the path
and proven by making it anew. Elsewhere the path stands with the replica. A number of statements that no PFN adds to.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from arriero.registry.services.new_replicas import follows_from_name
from arriero.registry.services.pfns import DEFAULT_PORTS, endpoint_of, url_parts
from arriero.registry.store import dids as did_store
from arriero.registry.store.replica_sets import Candidate
from arriero.registry.store.rses import Rse, load_rses, protocols_of
from arriero.rse.errors import RSEError
from arriero.rse.lfn2pfn import path_for
from arriero.rse.paths import safe_path

_ALIASES = {"davs": "https", "dav": "http", "xroot": "root"}
"""Schemes that are other words for one protocol."""

_SCOPE_FOLDERS = 4
_HASH_FOLDERS = {"hash": 2, "identity": 0}

Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """A path at an RSE that a PFN points at."""

    rse: Rse
    path: str


@dataclass(slots=True)
class Prefixes:
    """Prefixes of all protocols, by where they listen; the longest first.

    Parameters
    ----------
    rses
        RSEs that are looked at, by id.
    """

    rses: Mapping[int, Rse]
    _roots: dict[Origin, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def load(cls, connection: Connection, names: Iterable[str] | None = None) -> "Prefixes":
        """Read them, in three statements; of some RSEs only if named."""
        known = {rse.id: rse for rse in load_rses(connection, names).values()}
        made = cls(known)
        for rse_id, protocols in protocols_of(connection, known).items():
            for protocol in protocols:
                endpoint = endpoint_of(known[rse_id].name, protocol)
                origin = _origin(endpoint.scheme, endpoint.hostname, endpoint.port)
                made._roots[origin].append((f"{endpoint.root}/", rse_id))
        for roots in made._roots.values():
            roots.sort(key=lambda root: (-len(root[0]), root[1]))
        return made

    def places(self, pfn: str) -> list[Place]:
        """Where a PFN points at: at several RSEs only if they share a prefix. Empty when nowhere."""
        parts = url_parts(pfn)
        if parts is None:
            return []
        roots = self._roots.get(_origin(parts.scheme, parts.hostname, parts.port), [])
        longest: int | None = None
        found: dict[int, Place] = {}
        for root, rse_id in roots:
            if longest is not None and len(root) < longest:
                break
            path = next((path for path in parts.paths if path.startswith(root)), None)
            if path is None:
                continue
            try:
                found.setdefault(rse_id, Place(self.rses[rse_id], safe_path(path[len(root) :])))
            except RSEError:
                continue
            longest = len(root)
        return list(found.values())


def _origin(scheme: str, hostname: str, port: int | None) -> Origin:
    return _ALIASES.get(scheme, scheme), hostname.lower(), port or DEFAULT_PORTS.get(scheme, 0)


def candidates(connection: Connection, places: Sequence[Sequence[Place]]) -> list[Candidate]:
    """What to look for in the catalogue for each PFN.

    Parameters
    ----------
    places
        For each PFN of a call, in its order, where it points at.
    """
    named: list[tuple[int, Place, str, str]] = []
    rows: list[Candidate] = []
    for number, found in enumerate(places):
        for place in found:
            if follows_from_name(place.rse):
                named += [(number, place, scope, name) for scope, name in _names(place)]
            else:
                rows.append((number, place.rse.id, None, None, place.path))
    scopes = did_store.scopes_by_name(connection, {scope for _, _, scope, _ in named}) if named else {}
    rows += [
        (number, place.rse.id, scopes[scope].id, name, None)
        for number, place, scope, name in named
        if scope in scopes
    ]
    return rows


def _names(place: Place) -> Iterator[tuple[str, str]]:
    """DIDs whose path this is."""
    parts = place.path.split("/")
    skipped = _HASH_FOLDERS[place.rse.algorithm]
    deepest = _SCOPE_FOLDERS if parts[0].startswith(("user", "group")) else 1
    for folders in range(1, deepest + 1):
        scope, name = ".".join(parts[:folders]), "/".join(parts[folders + skipped :])
        if name and path_for(place.rse.algorithm, scope, name) == place.path:
            yield scope, name
