"""RSEs, their attributes, protocols and distances in the database."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, exists, insert, select, update

from arriero.registry.dialect import insert_into
from arriero.registry.schema.tables import (
    replicas,
    rse_attributes,
    rse_distances,
    rse_protocols,
    rses,
)
from arriero.rse.types import RseInfo

ALGORITHM_ATTRIBUTE = "lfn2pfn_algorithm"
DEFAULT_ALGORITHM = "hash"
"""LFN-to-PFN algorithm of an RSE that names none, as in Rucio."""


@dataclass(frozen=True, slots=True)
class Rse:
    """An RSE without its protocols."""

    id: int
    name: str
    deterministic: bool
    volatile: bool
    type: str
    readable: bool
    writable: bool
    attributes: Mapping[str, str]

    @property
    def algorithm(self) -> str:
        """Its LFN-to-PFN algorithm."""
        return self.attributes.get(ALGORITHM_ATTRIBUTE, DEFAULT_ALGORITHM)

    def as_info(self) -> RseInfo:
        """As an expression sees it."""
        return RseInfo(self.name, self.attributes)


def load_rses(connection: Connection, names: Iterable[str] | None = None) -> dict[str, Rse]:
    """Read RSEs with their attributes, by name, in two statements; those that were removed are not there.

    Parameters
    ----------
    names
        Only these; None for all.
    """
    query = select(rses).where(rses.c.deleted_at.is_(None)).order_by(rses.c.name)
    attribute_query = select(rse_attributes)
    if names is not None:
        chosen = list(names)
        query = query.where(rses.c.name.in_(chosen))
        ids = select(rses.c.id).where(rses.c.name.in_(chosen))
        attribute_query = attribute_query.where(rse_attributes.c.rse_id.in_(ids))
    attributes: dict[int, dict[str, str]] = defaultdict(dict)
    for row in connection.execute(attribute_query):
        attributes[row.rse_id][row.key] = row.value
    return {
        row.name: Rse(
            id=row.id,
            name=row.name,
            deterministic=row.deterministic,
            volatile=row.volatile,
            type=row.type.value,
            readable=row.availability_read,
            writable=row.availability_write,
            attributes=attributes[row.id],
        )
        for row in connection.execute(query)
    }


def rse_row(
    connection: Connection,
    name: str,
    *,
    lock: bool = False,
    hold: bool = False,
    removing: bool = False,
    removed: bool = False,
) -> RowMapping | None:
    """All columns of an RSE, None when there is none of that name.

    Parameters
    ----------
    lock
        Against other changes; whoever holds the RSE goes on.
    hold
        Against its removal.
    removing
        Against everybody.
    removed
        Give it even if it was removed.
    """
    query = select(rses).where(rses.c.name == name)
    if not removed:
        query = query.where(rses.c.deleted_at.is_(None))
    if removing:
        query = query.with_for_update()
    elif lock:
        query = query.with_for_update(key_share=True)
    elif hold:
        query = query.with_for_update(read=True, key_share=True)
    return connection.execute(query).mappings().one_or_none()


def rse_rows(connection: Connection) -> Sequence[RowMapping]:
    """All columns of all RSEs, in the order of their names."""
    query = select(rses).where(rses.c.deleted_at.is_(None)).order_by(rses.c.name)
    return connection.execute(query).mappings().all()


def has_replicas(connection: Connection, rse_id: int) -> bool:
    """Whether any replica is registered there."""
    return connection.scalar(select(exists().where(replicas.c.rse_id == rse_id))) is True


def add_rse(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert an RSE and give its id."""
    return int(connection.scalars(insert(rses).values(**values).returning(rses.c.id)).one())


def update_rse(connection: Connection, rse_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of an RSE."""
    connection.execute(update(rses).where(rses.c.id == rse_id).values(**values))


def attributes_among(connection: Connection, keys: Collection[str]) -> list[str]:
    """Those of some names that attributes of RSEs have, also of those that were removed."""
    found = select(rse_attributes.c.key).where(rse_attributes.c.key.in_(keys)).distinct()
    return sorted(connection.scalars(found))


def set_attributes(connection: Connection, values: Iterable[tuple[int, str, str]]) -> None:
    """Set attributes (RSE, key, text), whether they were there or not."""
    rows = [{"rse_id": rse_id, "key": key, "value": value} for rse_id, key, value in values]
    if not rows:
        return
    statement = insert_into(connection, rse_attributes)
    upsert = statement.on_conflict_do_update(
        index_elements=["rse_id", "key"], set_={"value": statement.excluded.value}
    )
    connection.execute(upsert, rows)


def delete_attribute(connection: Connection, rse_id: int, key: str) -> bool:
    """Remove an attribute; False when it was not there."""
    found = connection.execute(
        delete(rse_attributes).where(rse_attributes.c.rse_id == rse_id, rse_attributes.c.key == key)
    )
    return found.rowcount > 0


def protocols_of(connection: Connection, rse_ids: Iterable[int]) -> dict[int, list[RowMapping]]:
    """Protocols of RSEs, in the order in which they were added."""
    query = (
        select(rse_protocols).where(rse_protocols.c.rse_id.in_(list(rse_ids))).order_by(rse_protocols.c.id)
    )
    found: dict[int, list[RowMapping]] = defaultdict(list)
    for row in connection.execute(query).mappings():
        found[row["rse_id"]].append(row)
    return found


def set_protocols(connection: Connection, values: Iterable[Mapping[str, Any]]) -> None:
    """Write protocols (all columns but the id), whether they were there or not."""
    rows = [dict(row) for row in values]
    if not rows:
        return
    statement = insert_into(connection, rse_protocols)
    changeable = ("prefix", "impl", "domains", "extended_attributes")
    upsert = statement.on_conflict_do_update(
        index_elements=["rse_id", "scheme", "hostname", "port"],
        set_={name: statement.excluded[name] for name in changeable},
    )
    connection.execute(upsert, rows)


def delete_protocols(connection: Connection, protocol_ids: Sequence[int]) -> None:
    """Remove protocols."""
    connection.execute(delete(rse_protocols).where(rse_protocols.c.id.in_(protocol_ids)))


def distance(connection: Connection, source_id: int, destination_id: int) -> int | None:
    """Distance between two RSEs, None where none is set."""
    return connection.scalar(
        select(rse_distances.c.distance).where(
            rse_distances.c.source_id == source_id, rse_distances.c.destination_id == destination_id
        )
    )


def all_distances(connection: Connection) -> list[tuple[int, int, int]]:
    """All distances: source, destination, value."""
    query = select(rse_distances.c.source_id, rse_distances.c.destination_id, rse_distances.c.distance)
    return [(row.source_id, row.destination_id, row.distance) for row in connection.execute(query)]


def set_distances(connection: Connection, values: Iterable[tuple[int, int, int]]) -> None:
    """Set distances (source, destination, value), whether they were there or not."""
    rows = [{"source_id": start, "destination_id": end, "distance": value} for start, end, value in values]
    if not rows:
        return
    statement = insert_into(connection, rse_distances)
    upsert = statement.on_conflict_do_update(
        index_elements=["source_id", "destination_id"], set_={"distance": statement.excluded.distance}
    )
    connection.execute(upsert, rows)


def delete_distance(connection: Connection, source_id: int, destination_id: int) -> bool:
    """Remove a distance; False when there was none."""
    found = connection.execute(
        delete(rse_distances).where(
            rse_distances.c.source_id == source_id, rse_distances.c.destination_id == destination_id
        )
    )
    return found.rowcount > 0
