"""Where files are: replicas with their PFNs, streamed in the order of the files."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import InvalidInput
from arriero.registry.services.context import Context
from arriero.registry.services.lookups import require_did, require_dids
from arriero.registry.services.pfns import Access, ways_to_read
from arriero.registry.states import DidType, ReplicaState
from arriero.registry.store import contents as tree
from arriero.registry.store import dids as did_store
from arriero.registry.store import replicas as store
from arriero.registry.store.rses import Rse, load_rses, protocols_of
from arriero.registry.store.streaming import streamed
from arriero.rse.expression import parse

DOMAINS = frozenset({"wan", "lan", "all"})


@dataclass(frozen=True, slots=True)
class ReplicaQuery:
    """What is asked for."""

    dids: Sequence[tuple[str, str]]
    schemes: frozenset[str] | None = None
    all_states: bool = False
    rse_expression: str | None = None
    domain: str = "wan"


def list_replicas(context: Context, query: ReplicaQuery) -> Iterator[dict[str, Any]]:
    """List the files that DIDs are or hold with their replicas, in Rucio's shape.

    Yields
    ------
    dict
        One for each file, also for those without a replica: ``states`` and ``rses`` by RSE, ``pfns``.

    Raises
    ------
    NotFound
        A DID is not there.
    InvalidExpression
        The RSE expression cannot be read, or nothing satisfies it.
    """
    if len(query.dids) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} DIDs in one call")
    if query.domain not in DOMAINS:
        raise InvalidInput("domain is wan, lan or all")
    with context.database.snapshot() as connection:
        shown = _shown(connection, query)
        for chunk in did_store.in_chunks(query.dids, did_store.KEYS_A_STATEMENT):
            found = require_dids(connection, chunk)
            selected = store.replicas_below([row["id"] for row in found.values()])
            with streamed(connection, selected) as rows:
                for _, group in itertools.groupby(rows, key=itemgetter("id")):
                    yield _answer(list(group), shown, all_states=query.all_states)


def _shown(connection: Connection, query: ReplicaQuery) -> dict[int, tuple[Rse, list[Access]]]:
    known = load_rses(connection)
    chosen = set(known)
    if query.rse_expression:
        chosen &= parse(query.rse_expression).evaluate(rse.as_info() for rse in known.values())
    protocols = protocols_of(connection, [known[name].id for name in chosen])
    return {
        rse.id: (rse, ways_to_read(rse, protocols[rse.id], schemes=query.schemes, domain=query.domain))
        for rse in (known[name] for name in sorted(chosen))
    }


def _answer(
    rows: Sequence[RowMapping], shown: Mapping[int, tuple[Rse, list[Access]]], *, all_states: bool
) -> dict[str, Any]:
    first = rows[0]
    scope, name = first["scope"], first["name"]
    states: dict[str, str] = {}
    rses: dict[str, list[str]] = {}
    pfns: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["rse_id"] not in shown or not (all_states or row["state"] is ReplicaState.AVAILABLE):
            continue
        rse, ways = shown[row["rse_id"]]
        states[rse.name] = row["state"]
        rses[rse.name] = []
        for way in ways:
            pfn = way.pfn(scope, name, row["path"])
            rses[rse.name].append(pfn)
            pfns[pfn] = {
                "rse_id": str(rse.id),
                "rse": rse.name,
                "type": rse.type,
                "volatile": rse.volatile,
                "domain": way.domain,
                "priority": way.priority,
                "client_extract": False,
            }
    # Rucio's clients expect places in a row, from 1, not the priorities of protocols
    for place, pfn in enumerate(sorted(pfns, key=lambda one: (pfns[one]["priority"], one)), 1):
        pfns[pfn]["priority"] = place
    return {
        "scope": scope,
        "name": name,
        "bytes": first["bytes"],
        "adler32": first["adler32"],
        "md5": first["md5"],
        "guid": None,
        "states": states,
        "rses": rses,
        "pfns": pfns,
        "parents": [],
    }


def list_dataset_replicas(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """How much of a collection lies at each RSE.

    Raises
    ------
    NotFound
        The DID is not there.
    """
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        if row["type"] is DidType.FILE:
            raise InvalidInput(f"{scope}:{name} is a file", rucio_class="UnsupportedOperation")
        length, size = tree.totals_below(connection, row["id"])
        for one in connection.execute(store.dataset_replicas(row["id"])).mappings():
            complete = one["available_length"] == length
            yield {
                "scope": scope,
                "name": name,
                "rse": one["rse"],
                "rse_id": str(one["rse_id"]),
                "bytes": size,
                "length": length,
                "available_bytes": int(one["available_bytes"]),
                "available_length": one["available_length"],
                "state": ReplicaState.AVAILABLE if complete else ReplicaState.UNAVAILABLE,
                "created_at": one["created_at"],
                "updated_at": one["updated_at"],
                "accessed_at": None,
            }
