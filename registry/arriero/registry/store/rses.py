"""RSEs, their attributes, protocols and distances in the database."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, exists, insert, select, update

from arriero.registry.dialect import insert_into
from arriero.registry.schema.tables import (
    replicas,
    rse_attributes,
    rse_distances,
    rse_limits,
    rse_protocols,
    rse_usage,
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
    """Read RSEs with their attributes, by name, in two statements.

    Parameters
    ----------
    names
        Only these; None for all.
    """
    query = select(rses).order_by(rses.c.name)
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


def rse_row(connection: Connection, name: str, *, lock: bool = False) -> RowMapping | None:
    """All columns of an RSE, None when there is none of that name."""
    query = select(rses).where(rses.c.name == name)
    return connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()


def rse_rows(connection: Connection) -> Sequence[RowMapping]:
    """All columns of all RSEs, in the order of their names."""
    return connection.execute(select(rses).order_by(rses.c.name)).mappings().all()


def has_replicas(connection: Connection, rse_id: int) -> bool:
    """Whether any replica is registered there."""
    return connection.scalar(select(exists().where(replicas.c.rse_id == rse_id))) is True


def add_rse(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert an RSE and give its id."""
    return int(connection.scalars(insert(rses).values(**values).returning(rses.c.id)).one())


def update_rse(connection: Connection, rse_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of an RSE."""
    connection.execute(update(rses).where(rses.c.id == rse_id).values(**values))


def set_attribute(connection: Connection, rse_id: int, key: str, value: str) -> None:
    """Set an attribute, whether it was there or not."""
    statement = insert_into(connection, rse_attributes).values(rse_id=rse_id, key=key, value=value)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["rse_id", "key"], set_={"value": statement.excluded.value}
        )
    )


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


def add_protocol(connection: Connection, rse_id: int, values: Mapping[str, Any]) -> None:
    """Insert a protocol of an RSE."""
    connection.execute(insert(rse_protocols).values(rse_id=rse_id, **values))


def delete_protocols(
    connection: Connection, rse_id: int, scheme: str, hostname: str | None, port: int | None
) -> int:
    """Remove the protocols of a scheme, of one host and port if given; give how many."""
    statement = delete(rse_protocols).where(
        rse_protocols.c.rse_id == rse_id, rse_protocols.c.scheme == scheme
    )
    if hostname is not None:
        statement = statement.where(rse_protocols.c.hostname == hostname)
    if port is not None:
        statement = statement.where(rse_protocols.c.port == port)
    return connection.execute(statement).rowcount


def distance(connection: Connection, source_id: int, destination_id: int) -> int | None:
    """Distance between two RSEs, None where none is set."""
    return connection.scalar(
        select(rse_distances.c.distance).where(
            rse_distances.c.source_id == source_id, rse_distances.c.destination_id == destination_id
        )
    )


def set_distance(connection: Connection, source_id: int, destination_id: int, value: int) -> None:
    """Set a distance, whether there was one or not."""
    statement = insert_into(connection, rse_distances).values(
        source_id=source_id, destination_id=destination_id, distance=value
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["source_id", "destination_id"], set_={"distance": statement.excluded.distance}
        )
    )


def delete_distance(connection: Connection, source_id: int, destination_id: int) -> bool:
    """Remove a distance; False when there was none."""
    found = connection.execute(
        delete(rse_distances).where(
            rse_distances.c.source_id == source_id, rse_distances.c.destination_id == destination_id
        )
    )
    return found.rowcount > 0


def usage_of(connection: Connection, rse_id: int) -> Sequence[RowMapping]:
    """What was measured of an RSE, by source."""
    query = select(rse_usage).where(rse_usage.c.rse_id == rse_id).order_by(rse_usage.c.source)
    return connection.execute(query).mappings().all()


def set_usage(connection: Connection, rse_id: int, values: Mapping[str, Any]) -> None:
    """Write what one source has measured."""
    statement = insert_into(connection, rse_usage).values(rse_id=rse_id, **values)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["rse_id", "source"],
            set_={name: statement.excluded[name] for name in ("used", "free", "files", "updated_at")},
        )
    )


def limits_of(connection: Connection, rse_id: int) -> dict[str, int]:
    """Limits of an RSE, bytes."""
    rows = connection.execute(
        select(rse_limits.c.name, rse_limits.c.value).where(rse_limits.c.rse_id == rse_id)
    )
    return {row.name: row.value for row in rows}


def set_limit(connection: Connection, rse_id: int, name: str, value: int) -> None:
    """Set a limit, bytes."""
    statement = insert_into(connection, rse_limits).values(rse_id=rse_id, name=name, value=value)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["rse_id", "name"], set_={"value": statement.excluded.value}
        )
    )


def delete_limit(connection: Connection, rse_id: int, name: str) -> bool:
    """Remove a limit; False when there was none."""
    found = connection.execute(
        delete(rse_limits).where(rse_limits.c.rse_id == rse_id, rse_limits.c.name == name)
    )
    return found.rowcount > 0
