"""Where files are: replicas with their PFNs, in the order of the files, a page at a time.

What the list covers is resolved at its start. Each page is read in a transaction of its own, and no connection is held
between two of them, however long the reader takes: each file comes once, with replicas that were all there at one
moment; what changes while the list is read may show in a later page (docs/adr/0014-slow-readers.md).
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import InvalidInput
from arriero.registry.services.context import Context
from arriero.registry.services.pfns import Access, ways_to_read
from arriero.registry.services.replica_order import GEOIP, Order, Place
from arriero.registry.store import replica_pages as store
from arriero.registry.store.dids import find_dids
from arriero.registry.store.replica_pages import ReplicaRow
from arriero.registry.store.rses import Rse, load_rses, protocols_of, rse_rows
from arriero.rse.expression import parse

DOMAINS = frozenset({"wan", "lan", "all"})

SITE_ATTRIBUTE = "site"
"""An RSE of the client's own site is reached over its local network."""


@dataclass(frozen=True, slots=True)
class Client:
    """Where the caller says that it is."""

    site: str | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class ReplicaQuery:
    """What is asked for."""

    dids: Sequence[tuple[str, str]]
    schemes: frozenset[str] | None = None
    all_states: bool = False
    rse_expression: str | None = None
    domain: str | None = "wan"
    """None: local at the RSEs of the client's own site, wide-area elsewhere."""
    client: Client = Client()
    sort: str | None = None
    limit: int | None = None
    """Most PFNs of one file."""
    nrandom: int | None = None
    """Only so many files, chosen at random among those with a replica to show."""
    updated_after: datetime | None = None
    ignore_availability: bool = True
    """Also at RSEs that are blocked for reading."""
    resolve_parents: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """A way to read from an RSE, and what is said of each PFN on it."""

    access: Access
    entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shown:
    """How replicas are shown: by RSE, its name and the ways to it; their order; how many."""

    rses: Mapping[int, tuple[str, list[Way]]]
    order: Order
    limit: int | None


@dataclass(frozen=True, slots=True)
class PageOfReplicas:
    """The files of a page with their replicas, and what holds them if that is asked for."""

    shown: Shown
    rows: Sequence[ReplicaRow]
    parents: Mapping[int, list[str]]


def list_replicas(context: Context, query: ReplicaQuery) -> Iterator[dict[str, Any]]:
    """List the files that DIDs are or hold with their replicas, in Rucio's shape; DIDs that are not there are left out.

    Yields
    ------
    dict
        One for each file, also for those without a replica: ``states`` and ``rses`` by RSE, ``pfns`` the best first.

    Raises
    ------
    InvalidExpression
        The RSE expression cannot be read, or nothing satisfies it.
    """
    for page in read_pages(context, query):
        for file_id, group in itertools.groupby(page.rows, key=attrgetter("id")):
            yield answer(list(group), page.shown, page.parents.get(file_id, []))


def read_pages(context: Context, query: ReplicaQuery) -> Iterator[PageOfReplicas]:
    """Read what `list_replicas` gives, a page at a time, with no connection held between two of them."""
    _check(context, query)
    with context.database.snapshot() as connection:
        shown, rse_ids = _shown(connection, query)
        narrowing = store.Narrowing(rse_ids, query.all_states, query.updated_after)
        found = find_dids(connection, query.dids)
        covered = store.covered(connection, [row["id"] for row in found.values()])
        if query.nrandom is not None:
            covered = store.some_files(connection, covered, narrowing, query.nrandom)
        pages = store.pages(connection, covered)
    for page in pages:
        parents: dict[int, list[str]] = defaultdict(list)
        with context.database.snapshot() as connection:
            rows = store.replicas_of_page(connection, covered, page, narrowing)
            if query.resolve_parents:
                for file_id, parent in store.parents_of_page(connection, covered, page):
                    parents[file_id].append(parent)
        yield PageOfReplicas(shown, rows, parents)


def _check(context: Context, query: ReplicaQuery) -> None:
    most = context.settings.max_bulk_items
    if len(query.dids) > most:
        raise InvalidInput(f"at most {most} DIDs in one call")
    if query.domain is not None and query.domain not in DOMAINS:
        raise InvalidInput("domain is wan, lan or all")
    if query.nrandom is not None and not 1 <= query.nrandom <= most:
        raise InvalidInput(f"nrandom is a number from 1 to {most}")
    if query.limit is not None and query.limit < 1:
        raise InvalidInput("limit is a number from 1")


def _shown(connection: Connection, query: ReplicaQuery) -> tuple[Shown, set[int] | None]:
    """How replicas are shown, and the RSEs that are looked at (None: all)."""
    known = load_rses(connection)
    chosen = set(known)
    if query.rse_expression:
        chosen &= parse(query.rse_expression).evaluate(rse.as_info() for rse in known.values())
    if not query.ignore_availability:
        chosen = {name for name in chosen if known[name].readable}
    places = {}
    if query.sort == GEOIP and query.client.place is not None:
        found = {row["id"]: Place.of(row["details"]) for row in rse_rows(connection)}
        places = {rse_id: place for rse_id, place in found.items() if place is not None}
    protocols = protocols_of(connection, [known[name].id for name in chosen])
    ways = {}
    for rse in (known[name] for name in sorted(chosen)):
        found_ways = _ways(rse, protocols[rse.id], query)
        ways[rse.id] = (rse.name, [Way(access, _entry(access)) for access in found_ways])
    order = Order(query.sort, query.client.place, places)
    everywhere = len(chosen) == len(known)
    return Shown(ways, order, query.limit), None if everywhere else set(ways)


def _ways(rse: Rse, protocols: Sequence[RowMapping], query: ReplicaQuery) -> list[Access]:
    if query.domain is not None:
        return ways_to_read(rse, protocols, schemes=query.schemes, domain=query.domain)
    own = query.client.site is not None and rse.attributes.get(SITE_ATTRIBUTE) == query.client.site
    local = ways_to_read(rse, protocols, schemes=query.schemes, domain="lan") if own else []
    return local or ways_to_read(rse, protocols, schemes=query.schemes, domain="wan")


def _entry(access: Access) -> dict[str, Any]:
    return {
        "rse_id": str(access.rse.id),
        "rse": access.rse.name,
        "type": access.rse.type,
        "volatile": access.rse.volatile,
        "domain": access.domain,
        "client_extract": False,
    }


def answer(rows: Sequence[ReplicaRow], shown: Shown, parents: list[str]) -> dict[str, Any]:
    """Describe a file by its replicas, in Rucio's shape."""
    first = rows[0]
    scope, name = first.scope, first.name
    states: dict[str, str] = {}
    rses: dict[str, list[str]] = {}
    found: list[tuple[Any, str, Mapping[str, Any]]] = []
    for row in rows:
        if row.rse_id is None or row.state is None or row.rse_id not in shown.rses:
            continue
        rse, ways = shown.rses[row.rse_id]
        states[rse] = row.state
        rses[rse] = []
        for way in ways:
            pfn = way.access.pfn(scope, name, row.path)
            rses[rse].append(pfn)
            key = shown.order.key(way.access.domain, row.rse_id, way.access.priority, pfn)
            found.append((key, pfn, way.entry))
    found.sort(key=itemgetter(0))
    # Rucio's clients expect places in a row, from 1, not the priorities of protocols
    pfns = {
        pfn: {**entry, "priority": place}
        for place, (_, pfn, entry) in enumerate(itertools.islice(found, shown.limit), 1)
    }
    return {
        "scope": scope,
        "name": name,
        "bytes": first.bytes,
        "adler32": first.adler32,
        "md5": first.md5,
        "guid": None,
        "states": states,
        "rses": rses,
        "pfns": pfns,
        "parents": parents,
    }
