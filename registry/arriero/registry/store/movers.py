"""Queries about the movers of sites: which RSEs are left to them, and between which RSEs they carry."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, func, select

from arriero.registry.dialect import id_rows
from arriero.registry.schema.tables import requests, rse_attributes, rses

SITE_MOVER = "site_mover"
"""Attribute of RSEs to and from which only the mover of their site carries files."""

TRUE = ("1", "true", "yes")


def mover_rses(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """Give those RSEs of some that are left to the mover of their site, with their ids."""
    rows = connection.execute(
        select(rses.c.name, rses.c.id)
        .join(rse_attributes, rse_attributes.c.rse_id == rses.c.id)
        .where(
            rses.c.name.in_(sorted(names)),
            rses.c.deleted_at.is_(None),
            rse_attributes.c.key == SITE_MOVER,
            func.lower(rse_attributes.c.value).in_(TRUE),
        )
    )
    return {row.name: row.id for row in rows}


def left_to_movers(connection: Connection) -> dict[int, str]:
    """Give all RSEs that are left to the mover of their site: names by id."""
    rows = connection.execute(
        select(rses.c.id, rses.c.name)
        .join(rse_attributes, rse_attributes.c.rse_id == rses.c.id)
        .where(
            rses.c.deleted_at.is_(None),
            rse_attributes.c.key == SITE_MOVER,
            func.lower(rse_attributes.c.value).in_(TRUE),
        )
    )
    return {row.id: row.name for row in rows}


def ways_of(connection: Connection, ids: Sequence[int]) -> set[tuple[str | None, str]]:
    """Give the RSEs, source and destination, between which requests carry."""
    source, destination = rses.alias("source"), rses.alias("destination")
    rows = connection.execute(
        select(source.c.name.label("source"), destination.c.name.label("destination"))
        .select_from(requests)
        .join(destination, destination.c.id == requests.c.destination_id)
        .outerjoin(source, source.c.id == requests.c.source_id)
        .where(requests.c.id.in_(id_rows(connection, ids)))
        .distinct()
    )
    return {(row.source, row.destination) for row in rows}
