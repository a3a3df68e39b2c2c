"""Links in the database: what is known of each, and what is under way and waits."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, func, select, text

from arriero.registry.schema.tables import link_totals, links, requests, rse_distances, rses

_SOURCE = rses.alias("source")
_DESTINATION = rses.alias("destination")

Link = tuple[int, int]
"""Source and destination, by their ids."""


def links_query() -> Select[Any]:
    """Query for the links on which something was copied, with the names of their ends and their distance."""
    return (
        select(
            links,
            _SOURCE.c.name.label("source"),
            _DESTINATION.c.name.label("destination"),
            rse_distances.c.distance,
        )
        .join(_SOURCE, _SOURCE.c.id == links.c.source_id)
        .join(_DESTINATION, _DESTINATION.c.id == links.c.destination_id)
        .outerjoin(
            rse_distances,
            and_(
                rse_distances.c.source_id == links.c.source_id,
                rse_distances.c.destination_id == links.c.destination_id,
            ),
        )
        .order_by(_SOURCE.c.name, _DESTINATION.c.name)
    )


def under_way(connection: Connection) -> dict[Link, int]:
    """Copies under way, by link; those whose source is being chosen are on none."""
    by = (requests.c.source_id, requests.c.destination_id)
    rows = connection.execute(
        select(*by, func.count().label("copies"))
        .where(text("requests.state = 'SUBMITTED'"), requests.c.source_id.is_not(None))
        .group_by(*by)
    )
    return {(row.source_id, row.destination_id): row.copies for row in rows}


def queued(connection: Connection) -> dict[int, int]:
    """Requests that wait in the queue, by where they go."""
    rows = connection.execute(
        select(requests.c.destination_id, func.count().label("files"))
        .where(text("requests.state = 'QUEUED'"))
        .group_by(requests.c.destination_id)
    )
    return {row.destination_id: row.files for row in rows}


def names_of(connection: Connection) -> dict[int, str]:
    """Names of the RSEs that there are."""
    query = select(rses.c.id, rses.c.name).where(rses.c.deleted_at.is_(None))
    return {row.id: row.name for row in connection.execute(query)}


def distances(connection: Connection) -> Mapping[Link, int]:
    """Distances that were set."""
    columns = (rse_distances.c.source_id, rse_distances.c.destination_id, rse_distances.c.distance)
    return {(row.source_id, row.destination_id): row.distance for row in connection.execute(select(*columns))}


def totals(connection: Connection, link: Link) -> Sequence[RowMapping]:
    """Attempts on a link since the beginning: those that succeeded first, then by how many."""
    query = (
        select(link_totals)
        .where(link_totals.c.source_id == link[0], link_totals.c.destination_id == link[1])
        .order_by(link_totals.c.code != "", link_totals.c.copies.desc(), link_totals.c.code)
    )
    return connection.execute(query).mappings().all()
