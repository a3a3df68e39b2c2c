"""When DIDs and replicas were last read."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, and_, case, literal, or_, select, update

from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import dids, replicas, rses
from arriero.registry.states import DidType
from arriero.registry.store.did_sets import named

APART_S = 60
"""Seconds between two accesses that are worth a write."""


def rse_ids(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """Ids of RSEs that exist, by name."""
    query = select(rses.c.id, rses.c.name).where(rses.c.name.in_(sorted(names)))
    return {row.name: row.id for row in connection.execute(query)}


def touch(
    connection: Connection, files: Sequence[tuple[int, str]], read: Sequence[tuple[int, str, int]]
) -> None:
    """Write down that DIDs are being read now: once a minute at most, so that many readers cost few writes.

    Parameters
    ----------
    files
        Id of the scope and name of each DID.
    read
        The same of files, with the id of the RSE from which they are read.
    """
    chosen = named(connection, files)
    ids = (
        select(dids.c.id)
        .join(chosen, and_(dids.c.scope_id == chosen.c.scope_id, dids.c.name == chosen.c.name))
        .where(
            dids.c.type != DidType.CONTAINER,
            or_(dids.c.accessed_at.is_(None), dids.c.accessed_at < after(literal(-APART_S))),
        )
        # nobody waits for this, and it waits for nobody
        .with_for_update(key_share=True, skip_locked=True, of=dids)
    )
    connection.execute(
        update(dids).where(dids.c.id.in_(ids)).values(accessed_at=now(), updated_at=dids.c.updated_at)
    )
    for rse_id in sorted({rse_id for _, _, rse_id in read}):
        at = named(connection, [(scope_id, name) for scope_id, name, where in read if where == rse_id])
        held = select(dids.c.id).join(at, and_(dids.c.scope_id == at.c.scope_id, dids.c.name == at.c.name))
        connection.execute(
            update(replicas)
            .where(
                replicas.c.rse_id == rse_id,
                replicas.c.file_id.in_(held),
                or_(replicas.c.accessed_at.is_(None), replicas.c.accessed_at < after(literal(-APART_S))),
            )
            # what is kept until space is needed goes in the order of tombstones: it moves to the end
            .values(
                accessed_at=now(),
                tombstone=case((replicas.c.tombstone < now(), now()), else_=replicas.c.tombstone),
                updated_at=replicas.c.updated_at,
            )
        )
