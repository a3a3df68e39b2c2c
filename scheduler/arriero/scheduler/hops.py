"""Copies on the way to another RSE: asked for by those who plan, and removed after a while by deletion.

No rule holds them. They have their tombstone from the beginning, some time ahead, and no attempts of their own: a request that
finds that its hop has failed asks for it again, and counts that as an attempt.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, exists, select, true, tuple_, update

from arriero.registry.dialect import id_rows, insert_into
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import hops, replicas, requests, rse_distances
from arriero.registry.states import ReplicaState, RequestState, RequestType
from arriero.scheduler.claim import ClaimedRequest
from arriero.scheduler.core.route import route
from arriero.scheduler.rse_catalogue import RseCatalogue

MULTIHOP = "multihop"
"""Code of requests that wait for a copy on their way."""

THROUGH = "available_for_multihop"
"""Attribute of RSEs that files may stop at; Rucio's."""

KEPT_S = 7200.0
"""How long a copy on the way is kept, seconds; Rucio's ``multihop_tombstone_delay``."""

WAIT_S = 60.0
"""When a request looks whether its hop is there if nobody has told it, seconds."""

_LOST = 1000
"""Hops that one sweep takes up."""

_TRUE = ("1", "true", "yes")


@dataclass(frozen=True, slots=True)
class Hop:
    """A stop that a request needs."""

    request: ClaimedRequest
    rse_id: int


@dataclass(frozen=True, slots=True)
class Ways:
    """The links that are declared, where files may stop on their way."""

    distances: Mapping[tuple[int, int], int]
    through: frozenset[int]

    def find(self, sources: Collection[int], destination: int) -> tuple[int, ...] | None:
        """Find the shortest way with a stop; None where there is none."""
        way = route(sources, destination, self.distances, self.through) if self.through else None
        return way if way is not None and len(way) > 2 else None


def load_ways(connection: Connection, known: RseCatalogue) -> Ways:
    """Read the links through RSEs at which files may stop; nothing is asked where there are none."""
    through = frozenset(
        rse.id
        for rse in known.by_id.values()
        if rse.attributes.get(THROUGH, "").lower() in _TRUE and rse.readable and rse.writable
    )
    if not through:
        return Ways({}, through)
    ids = sorted(through)
    rows = connection.execute(
        select(rse_distances.c.source_id, rse_distances.c.destination_id, rse_distances.c.distance).where(
            rse_distances.c.source_id.in_(ids) | rse_distances.c.destination_id.in_(ids)
        )
    )
    return Ways({(row.source_id, row.destination_id): row.distance for row in rows}, through)


def ask_for(connection: Connection, wanted: Sequence[Hop]) -> None:
    """Have a replica and a request for each stop, where there is none or only one that has failed.

    Parameters
    ----------
    connection
        In a transaction that holds no request yet.
    """
    if not wanted:
        return
    by_key = {(one.request.file_id, one.rse_id): one for one in wanted}
    keys = sorted(by_key)
    new = insert_into(connection, replicas).values(
        [
            {
                "file_id": file_id,
                "rse_id": rse_id,
                "bytes": by_key[file_id, rse_id].request.bytes,
                "state": ReplicaState.COPYING,
                "tombstone": after(KEPT_S),
                "purge": true(),
                "created_at": now(),
                "updated_at": now(),
            }
            for file_id, rse_id in keys
        ]
    )
    made = connection.execute(
        new.on_conflict_do_update(
            index_elements=["file_id", "rse_id"],
            set_={
                "state": ReplicaState.COPYING.value,
                "code": None,
                "reason": None,
                "tombstone": after(KEPT_S),
                "purge": true(),
                "updated_at": now(),
            },
            where=replicas.c.state == ReplicaState.UNAVAILABLE,
        ).returning(replicas.c.file_id, replicas.c.rse_id)
    )
    begun = sorted((row.file_id, row.rse_id) for row in made)
    if not begun:
        return
    _request(connection, [by_key[key] for key in begun])


def _request(connection: Connection, wanted: Sequence[Hop]) -> None:
    kept = insert_into(connection, hops).values(
        [
            {
                "file_id": one.request.file_id,
                "rse_id": one.rse_id,
                "destination_id": one.request.destination_id,
                "created_at": now(),
            }
            for one in wanted
        ]
    )
    connection.execute(kept.on_conflict_do_nothing())
    ids = {one.request.id for one in wanted}
    onward = connection.execute(
        select(requests.c.id, requests.c.rule_id, requests.c.priority).where(
            requests.c.id.in_(id_rows(connection, sorted(ids)))
        )
    )
    asked = {row.id: row for row in onward}
    new = insert_into(connection, requests).values(
        [
            {
                "type": RequestType.TRANSFER,
                "file_id": one.request.file_id,
                "destination_id": one.rse_id,
                "rule_id": asked[one.request.id].rule_id,
                "bytes": one.request.bytes,
                "activity": one.request.activity,
                "priority": asked[one.request.id].priority,
                "state": RequestState.QUEUED,
                "attempt": 0,
                "not_before": now(),
                "fence": 0,
                "created_at": now(),
            }
            for one in wanted
            if one.request.id in asked
        ]
    )
    connection.execute(
        new.on_conflict_do_update(
            index_elements=["file_id", "destination_id"],
            set_={
                "state": RequestState.QUEUED.value,
                "attempt": 0,
                "not_before": now(),
                "code": None,
                "reason": None,
            },
            where=requests.c.state == RequestState.FAILED,
        )
    )


def are_hops(connection: Connection, keys: Collection[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    """Which of some copies, by file and RSE, are made on the way to another RSE."""
    if not connection.scalar(select(exists().select_from(hops))):
        return frozenset()
    found = connection.execute(
        select(hops.c.file_id, hops.c.rse_id).where(tuple_(hops.c.file_id, hops.c.rse_id).in_(sorted(keys)))
    )
    return frozenset((row.file_id, row.rse_id) for row in found)


def go_on(connection: Connection, keys: Collection[tuple[int, int]]) -> int:
    """Have requests looked at again whose hops have ended, well or not; give how many.

    Parameters
    ----------
    keys
        The hops, by file and RSE.
    """
    ended = sorted(keys)
    woken = connection.execute(
        update(requests)
        .where(
            requests.c.file_id.in_(id_rows(connection, sorted({file_id for file_id, _ in ended}))),
            requests.c.state == RequestState.QUEUED,
            requests.c.code == MULTIHOP,
        )
        .values(not_before=now())
    ).rowcount
    connection.execute(delete(hops).where(tuple_(hops.c.file_id, hops.c.rse_id).in_(ended)))
    return woken


def take_up_lost(connection: Connection) -> int:
    """Go on with hops that have ended without anybody being told, as by a worker that died; give how many."""
    live = exists().where(
        requests.c.file_id == hops.c.file_id,
        requests.c.destination_id == hops.c.rse_id,
        requests.c.state.in_((RequestState.QUEUED, RequestState.SUBMITTED)),
    )
    rows = connection.execute(select(hops.c.file_id, hops.c.rse_id).where(~live).limit(_LOST))
    keys = [(row.file_id, row.rse_id) for row in rows]
    if keys:
        go_on(connection, keys)
    return len(keys)
