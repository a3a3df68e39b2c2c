"""What was said against replicas, for whoever looks into it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection

from arriero.registry.pages import pages_by_id
from arriero.registry.services.context import Context
from arriero.registry.services.pfns import ways_to_read
from arriero.registry.services.rses import require_rse
from arriero.registry.states import BadReplicaState
from arriero.registry.store import bad_replica_lists as store
from arriero.registry.store.rses import load_rses, protocols_of
from arriero.registry.store.streaming import streamed
from arriero.rse.expression import parse

SUSPICIOUS_FOR = timedelta(days=10)
"""How far back suspicions are looked at unless told otherwise; Rucio's figure."""

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class BadQuery:
    """Which declarations."""

    state: BadReplicaState | None = None
    rse: str | None = None
    younger_than: datetime | None = None
    older_than: datetime | None = None
    limit: int | None = None
    list_pfns: bool = False


def list_suspicious(
    context: Context, *, rse_expression: str | None, younger_than: datetime | None, attempts: int
) -> list[dict[str, Any]]:
    """List AVAILABLE replicas that were said to be suspicious, the most often first; as many as one call may carry.

    Raises
    ------
    InvalidExpression
        The RSE expression cannot be read, or nothing satisfies it.
    """
    since = younger_than or datetime.now(tz=UTC) - SUSPICIOUS_FOR
    with context.database.snapshot() as connection:
        rse_ids = _rse_ids(connection, rse_expression)
        query = store.suspicious(rse_ids, since, max(attempts, 1), context.settings.max_bulk_items)
        rows = connection.execute(query).mappings().all()
    return [{**row, "rse_id": str(row["rse_id"])} for row in rows]


def _rse_ids(connection: Connection, expression: str | None) -> set[int] | None:
    if not expression:
        return None
    known = load_rses(connection)
    return {known[name].id for name in parse(expression).evaluate(rse.as_info() for rse in known.values())}


def list_declarations(context: Context, query: BadQuery) -> Iterator[dict[str, Any]]:
    """List what was said, oldest first, in pages.

    Yields
    ------
    dict
        Rucio's keys; with ``list_pfns`` one for each PFN that the replica can be read by, if it is still there.
    """

    def read(after: int, size: int) -> list[tuple[int, list[dict[str, Any]]]]:
        with context.database.snapshot() as connection:
            return _declarations(connection, query, after, size)

    for page in pages_by_id(read, itemgetter(0), after=0, limit=query.limit, size=_PAGE):
        for _, answers in page:
            yield from answers


def _declarations(
    connection: Connection, query: BadQuery, after_id: int, size: int
) -> list[tuple[int, list[dict[str, Any]]]]:
    selected = store.declarations(
        after_id,
        size,
        state=query.state,
        rse_id=None if query.rse is None else require_rse(connection, query.rse)["id"],
        since=query.younger_than,
        until=query.older_than,
    )
    rows = connection.execute(selected).mappings().all()
    known = {rse.id: rse for rse in load_rses(connection).values()} if query.list_pfns else {}
    protocols = protocols_of(connection, {row["rse_id"] for row in rows}) if query.list_pfns else {}
    listed = []
    for row in rows:
        answer = {
            "scope": row["scope"],
            "name": row["name"],
            "rse": row["rse"],
            "rse_id": str(row["rse_id"]),
            "state": row["state"],
            "reason": row["reason"],
            "expires_at": row["expires_at"],
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
        }
        if not query.list_pfns:
            listed.append((row["id"], [answer]))
            continue
        rse = known.get(row["rse_id"])
        if rse is None or row["replica"] is None:
            listed.append((row["id"], []))
            continue
        ways = ways_to_read(rse, protocols[rse.id], schemes=None, domain="all")
        pfns = [way.pfn(row["scope"], row["name"], row["path"]) for way in ways]
        listed.append((row["id"], [{**answer, "pfn": pfn} for pfn in pfns]))
    return listed


def summarise(
    context: Context, *, rse_expression: str | None, since: datetime | None, until: datetime | None
) -> Iterator[dict[str, Any]]:
    """Count declarations by incident: what was said at one RSE at one moment for one reason, and how it ended.

    Yields
    ------
    dict
        ``rse``, ``rse_id``, ``created_at``, ``reason``, and how many are in each state that any is in.
    """
    with context.database.snapshot() as connection:
        query = store.summary(since, until, _rse_ids(connection, rse_expression))
        with streamed(connection, query) as rows:
            for key, group in itertools.groupby(
                rows, key=itemgetter("rse", "rse_id", "created_at", "reason")
            ):
                rse, rse_id, created_at, reason = key
                counts = {row["state"]: row["files"] for row in group}
                yield {
                    "rse": rse,
                    "rse_id": str(rse_id),
                    "created_at": created_at,
                    "reason": reason,
                    **counts,
                }
