"""Links as operators look at them: how much each carries and why, how well, and what stands in its way."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping

from arriero.registry.operations import LimitUse, LinkDetail, LinkInfo, LinkTotal, StorageAbilities
from arriero.registry.services.context import Context
from arriero.registry.services.hindrances import Hindrances, load_hindrances
from arriero.registry.services.rse_health import storage_abilities
from arriero.registry.services.rses import require_rse
from arriero.registry.states import TransferDirection
from arriero.registry.store import links as store
from arriero.registry.store.links import Link

_SAME = (
    *("slots", "decided_at", "decision", "throughput", "success", "done", "failed"),
    *("mode", "mode_reason", "code", "reason", "failed_at"),
)


@dataclass(frozen=True, slots=True)
class _Facts:
    rows: Mapping[Link, RowMapping]
    distances: Mapping[Link, int]
    under_way: Mapping[Link, int]
    queued: Mapping[int, int]
    names: Mapping[int, str]
    hindrances: Hindrances
    abilities: Mapping[int, Sequence[StorageAbilities]]


def list_links(context: Context, source: str | None, destination: str | None) -> Iterator[LinkInfo]:
    """List the links that copies have gone over, or go over, or that have a distance; by the names of their ends.

    Parameters
    ----------
    source, destination
        Only those with this RSE at the end.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    with context.database.snapshot() as connection:
        ends = [
            None if name is None else require_rse(connection, name)["id"] for name in (source, destination)
        ]
        facts = _read(connection)
    found = facts.rows.keys() | facts.under_way.keys() | facts.distances.keys()
    chosen = [link for link in found if all(end in (None, one) for end, one in zip(ends, link, strict=True))]
    told = [LinkInfo(**_told(facts, link)) for link in chosen if set(link) <= facts.names.keys()]
    return iter(sorted(told, key=lambda one: (one.source, one.destination)))


def show_link(context: Context, source: str, destination: str) -> LinkDetail:
    """Tell all that is known of a link.

    Raises
    ------
    NotFound
        There is no such RSE.
    """
    with context.database.snapshot() as connection:
        link = (int(require_rse(connection, source)["id"]), int(require_rse(connection, destination)["id"]))
        facts = _read(connection)
        totals = store.totals(connection, link)
    return LinkDetail(
        **_told(facts, link),
        totals=[LinkTotal.model_validate({**row, "code": row["code"] or None}) for row in totals],
    )


def _read(connection: Connection) -> _Facts:
    rows = connection.execute(store.links_query()).mappings()
    return _Facts(
        rows={(row["source_id"], row["destination_id"]): row for row in rows},
        distances=store.distances(connection),
        under_way=store.under_way(connection),
        queued=store.queued(connection),
        names=store.names_of(connection),
        hindrances=load_hindrances(connection),
        abilities=storage_abilities(connection),
    )


def _told(facts: _Facts, link: Link) -> dict[str, Any]:
    row = facts.rows.get(link)
    learnt = {} if row is None else {**{key: row[key] for key in _SAME}, "duration_s": row["duration"]}
    return {
        "source": facts.names[link[0]],
        "destination": facts.names[link[1]],
        "distance": facts.distances.get(link),
        "under_way": facts.under_way.get(link, 0),
        "queued": facts.queued.get(link[1], 0),
        "in_the_way": list(_in_the_way(facts.hindrances, link)),
        "limits": list(_limits(facts, link)),
        "ways": list(_ways(facts, link)),
        **learnt,
    }


def _in_the_way(hindrances: Hindrances, link: Link) -> Iterator[str]:
    source, destination = link
    for found in (
        hindrances.unreadable.get(source),
        hindrances.closed.get(destination),
        hindrances.down.get(source),
        hindrances.down.get(destination),
    ):
        if found is not None:
            yield found.reason


def _ways(facts: _Facts, link: Link) -> Iterator[str]:
    source, destination = (facts.abilities.get(rse_id) for rse_id in link)
    if any(one.third_party_pull for one in destination or ()):
        yield "third_party_pull"
    if any(one.third_party_push for one in source or ()):
        yield "third_party_push"
    if destination:
        yield "streamed"


def _limits(facts: _Facts, link: Link) -> Iterator[LimitUse]:
    ends = {TransferDirection.SOURCE: link[0], TransferDirection.DESTINATION: link[1]}
    for limit in facts.hindrances.limits:
        row = limit.row
        if ends[row["direction"]] == limit.rse_id:
            yield LimitUse(
                rse=facts.names[limit.rse_id],
                expression=row["rse_expression"],
                direction=row["direction"],
                activity=row["activity"] or None,
                max_transfers=row["max_transfers"],
                under_way=limit.used,
            )
