"""Many RSEs at once, for imports: one statement for any number of rows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, delete, exists, insert, select, update

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import replicas, rse_attributes, rses
from arriero.registry.states import RseType

_DEFAULTS = {
    "type": RseType.DISK,
    "deterministic": True,
    "volatile": False,
    "staging_area": False,
    "availability_read": True,
    "availability_write": True,
    "availability_delete": True,
    "details": None,
}


def lock_rses(connection: Connection) -> dict[str, RowMapping]:
    """Take all RSEs, those that were removed too, against other changes; by name."""
    query = select(rses).order_by(rses.c.id).with_for_update(key_share=True)
    return {row["name"]: row for row in connection.execute(query).mappings()}


def add_rses(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Insert RSEs; give their ids by name."""
    if not rows:
        return {}
    connection.execute(insert(rses), [{**_DEFAULTS, **row} for row in rows])
    names = [row["name"] for row in rows]
    return {
        row.name: row.id
        for row in connection.execute(select(rses.c.name, rses.c.id).where(rses.c.name.in_(names)))
    }


def update_rses(connection: Connection, changes: Iterable[Mapping[str, Any]]) -> None:
    """Set columns of RSEs: each change has the ``id`` and what is to be set, a statement for each choice of columns."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for change in changes:
        columns = tuple(sorted(set(change) - {"id"}))
        alike[columns].append({f"new_{key}": value for key, value in change.items()})
    for columns, rows in alike.items():
        values = {name: bindparam(f"new_{name}", type_=rses.c[name].type) for name in columns}
        statement = update(rses).where(rses.c.id == bindparam("new_id")).values(**values, updated_at=now())
        connection.execute(statement, rows)


def attributes_of(connection: Connection, rse_ids: Iterable[int]) -> dict[int, dict[str, str]]:
    """Attributes of RSEs."""
    found: dict[int, dict[str, str]] = defaultdict(dict)
    query = select(rse_attributes).where(rse_attributes.c.rse_id.in_(list(rse_ids)))
    for row in connection.execute(query):
        found[row.rse_id][row.key] = row.value
    return found


def delete_attributes(connection: Connection, keys: Sequence[tuple[int, str]]) -> None:
    """Remove attributes (RSE, key)."""
    if not keys:
        return
    gone = delete(rse_attributes).where(
        rse_attributes.c.rse_id == bindparam("gone_rse"), rse_attributes.c.key == bindparam("gone_key")
    )
    connection.execute(gone, [{"gone_rse": rse_id, "gone_key": key} for rse_id, key in keys])


def with_replicas(connection: Connection, rse_ids: Iterable[int]) -> set[int]:
    """Those of some RSEs at which a replica is registered."""
    chosen = list(rse_ids)
    if not chosen:
        return set()
    here = exists().where(replicas.c.rse_id == rses.c.id)
    return set(connection.scalars(select(rses.c.id).where(rses.c.id.in_(chosen), here)))
