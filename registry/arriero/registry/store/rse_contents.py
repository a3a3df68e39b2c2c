"""What an RSE holds, expects and feeds: asked before it is removed."""

from sqlalchemy import ColumnElement, Connection, Table, and_, func, or_, select

from arriero.registry.schema.tables import butler_rses, dataset_locks, locks, replicas, requests
from arriero.registry.states import RequestState

COUNTED = 10_000
"""A count ends here: how many more there are changes nothing."""


def what_is_left(connection: Connection, rse_id: int) -> dict[str, str]:
    """Kinds of things that an RSE still has, each with its number as text; empty if it has nothing."""
    read_from = and_(requests.c.source_id == rse_id, requests.c.state == RequestState.SUBMITTED)
    kinds: tuple[tuple[str, Table, ColumnElement[bool]], ...] = (
        ("replicas", replicas, replicas.c.rse_id == rse_id),
        ("locks", locks, locks.c.rse_id == rse_id),
        # also of one that is empty by now: what is attached to it goes where it was placed
        ("dataset locks", dataset_locks, dataset_locks.c.rse_id == rse_id),
        ("requests", requests, or_(requests.c.destination_id == rse_id, read_from)),
        ("butlers", butler_rses, butler_rses.c.rse_id == rse_id),
    )
    left = {}
    for what, table, here in kinds:
        some = select(1).select_from(table).where(here).limit(COUNTED).subquery()
        count = int(connection.scalar(select(func.count()).select_from(some)) or 0)
        if count:
            left[what] = f"{count} or more" if count == COUNTED else str(count)
    return left
