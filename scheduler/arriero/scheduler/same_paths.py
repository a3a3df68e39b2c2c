"""Files that would lie at one path: an algorithm that leaves the scope out gives two files of one name the same."""

from collections.abc import Sequence

from sqlalchemy import Connection, and_, or_, select

from arriero.registry.dialect import among, id_rows
from arriero.registry.schema.tables import dids, replicas, requests, scopes
from arriero.registry.states import ReplicaState
from arriero.rse.lfn2pfn import WITHOUT_SCOPE
from arriero.scheduler.claim import ClaimedRequest
from arriero.scheduler.rse_catalogue import RseCatalogue

_LIES_THERE = (
    ReplicaState.AVAILABLE,
    ReplicaState.TEMPORARY_UNAVAILABLE,
    ReplicaState.BAD,
    ReplicaState.BEING_DELETED,
)


def owners_of_paths(
    connection: Connection, claimed: Sequence[ClaimedRequest], known: RseCatalogue
) -> dict[int, str]:
    """Find the requests whose path at the destination belongs to a file of another scope.

    Returns
    -------
    dict
        That scope, by request. Of two that are on their way there, the one that was registered first owns the path.
    """
    there = [
        one.id
        for one in claimed
        if (rse := known.by_id.get(one.destination_id)) is not None
        and rse.deterministic
        and rse.algorithm == WITHOUT_SCOPE
    ]
    if not there:
        return {}
    other, lies = dids.alias("other"), replicas.alias("lies")
    is_first = and_(lies.c.state == ReplicaState.COPYING, other.c.id < dids.c.id)
    rows = connection.execute(
        select(requests.c.id, scopes.c.name)
        .select_from(requests)
        .join(dids, dids.c.id == requests.c.file_id)
        .join(
            other,
            and_(
                # by the key of names, a scope at a time
                among(connection, other.c.scope_id, select(scopes.c.id)),
                other.c.name == dids.c.name,
                other.c.id != dids.c.id,
            ),
        )
        .join(lies, and_(lies.c.file_id == other.c.id, lies.c.rse_id == requests.c.destination_id))
        .join(scopes, scopes.c.id == other.c.scope_id)
        .where(requests.c.id.in_(id_rows(connection, there)), or_(lies.c.state.in_(_LIES_THERE), is_first))
    )
    return {row.id: row.name for row in rows}
