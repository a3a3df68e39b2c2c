"""Butlers in the database: what they are, which RSEs feed them, and what belongs in them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select

from arriero.registry.dialect import like_pattern
from arriero.registry.schema.tables import (
    butler_rses,
    butler_selections,
    butlers,
    replicas,
    rse_attributes,
    rse_protocols,
    rses,
    scopes,
)
from arriero.registry.states import ReplicaState


@dataclass(frozen=True, slots=True)
class Feed:
    """An RSE that feeds a butler, and how its files are read there."""

    rse: str
    algorithm: str | None
    """LFN-to-PFN algorithm; None: the default."""
    uri_prefix: str | None
    protocols: tuple[Mapping[str, Any], ...]


def ids_by_name(connection: Connection, table: Any, names: Iterable[str]) -> dict[str, int]:
    """Ids of the rows of ``table`` that have these names."""
    rows = connection.execute(select(table.c.name, table.c.id).where(table.c.name.in_(sorted(set(names)))))
    return {row.name: row.id for row in rows}


def rse_ids(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """Ids of the RSEs that exist among these names."""
    return ids_by_name(connection, rses, names)


def scope_ids(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """Ids of the scopes that exist among these names."""
    return ids_by_name(connection, scopes, names)


def not_staging(connection: Connection, ids: Iterable[int]) -> list[str]:
    """Names of the RSEs among these that are no staging areas."""
    query = select(rses.c.name).where(rses.c.id.in_(list(ids)), ~rses.c.staging_area).order_by(rses.c.name)
    return list(connection.scalars(query))


def butler_ids(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """Ids of the butlers that exist among these names."""
    return ids_by_name(connection, butlers, names)


def add_butler(
    connection: Connection,
    *,
    name: str,
    uri: str,
    transfer: str,
    instruments: Sequence[str],
    feeds: Sequence[tuple[int, str | None]],
    selections: Sequence[tuple[int, str]],
) -> int:
    """Insert a butler and give its id.

    Parameters
    ----------
    feeds
        RSE and URI prefix.
    selections
        Scope and name pattern (``*`` any text).
    """
    statement = (
        insert(butlers)
        .values(name=name, uri=uri, transfer=transfer, instruments=list(instruments))
        .returning(butlers.c.id)
    )
    butler_id = int(connection.scalars(statement).one())
    connection.execute(
        insert(butler_rses),
        [{"butler_id": butler_id, "rse_id": rse_id, "uri_prefix": prefix} for rse_id, prefix in feeds],
    )
    connection.execute(
        insert(butler_selections),
        [
            {"butler_id": butler_id, "scope_id": scope_id, "name_like": like_pattern(pattern)}
            for scope_id, pattern in selections
        ],
    )
    return butler_id


def landed_at(butler_id: int) -> Select[tuple[int, int]]:
    """Query for the replicas that are AVAILABLE at the RSEs of a butler, as `record_arrivals` takes it."""
    return (
        select(replicas.c.file_id, replicas.c.rse_id)
        .join(butler_rses, butler_rses.c.rse_id == replicas.c.rse_id)
        .where(butler_rses.c.butler_id == butler_id, replicas.c.state == ReplicaState.AVAILABLE)
    )


def butler_rows(connection: Connection, name: str | None = None) -> list[dict[str, Any]]:
    """Butlers with their RSEs and selections, all or the one of that name, in three statements."""
    query = select(butlers).order_by(butlers.c.name)
    feeds = (
        select(butler_rses.c.butler_id, rses.c.name.label("rse"), butler_rses.c.uri_prefix)
        .join(rses, rses.c.id == butler_rses.c.rse_id)
        .order_by(rses.c.name)
    )
    selections = (
        select(butler_selections.c.butler_id, scopes.c.name.label("scope"), butler_selections.c.name_like)
        .join(scopes, scopes.c.id == butler_selections.c.scope_id)
        .order_by(scopes.c.name, butler_selections.c.name_like)
    )
    if name is not None:
        query = query.where(butlers.c.name == name)
        one = select(butlers.c.id).where(butlers.c.name == name).scalar_subquery()
        feeds = feeds.where(butler_rses.c.butler_id == one)
        selections = selections.where(butler_selections.c.butler_id == one)
    found = {row["id"]: {**row, "rses": [], "selections": []} for row in connection.execute(query).mappings()}
    for row in connection.execute(feeds):
        if row.butler_id in found:
            found[row.butler_id]["rses"].append({"rse": row.rse, "uri_prefix": row.uri_prefix})
    for row in connection.execute(selections):
        if row.butler_id in found:
            pattern = _pattern(row.name_like)
            found[row.butler_id]["selections"].append({"scope": row.scope, "pattern": pattern})
    return list(found.values())


def feeds_of(connection: Connection, butler_id: int) -> dict[int, Feed]:
    """How the files of each RSE of a butler are read, in three statements."""
    rows = connection.execute(
        select(rses.c.id, rses.c.name, butler_rses.c.uri_prefix)
        .join(butler_rses, butler_rses.c.rse_id == rses.c.id)
        .where(butler_rses.c.butler_id == butler_id)
    ).all()
    ids = [row.id for row in rows]
    algorithms = {
        row.rse_id: row.value
        for row in connection.execute(
            select(rse_attributes.c.rse_id, rse_attributes.c.value).where(
                rse_attributes.c.rse_id.in_(ids), rse_attributes.c.key == "lfn2pfn_algorithm"
            )
        )
    }
    protocols: dict[int, list[Row[Any]]] = {}
    for row in connection.execute(
        select(rse_protocols).where(rse_protocols.c.rse_id.in_(ids)).order_by(rse_protocols.c.id)
    ):
        protocols.setdefault(row.rse_id, []).append(row)
    return {
        row.id: Feed(
            rse=row.name,
            algorithm=algorithms.get(row.id),
            uri_prefix=row.uri_prefix,
            protocols=tuple(dict(protocol._mapping) for protocol in protocols.get(row.id, [])),  # noqa: SLF001
        )
        for row in rows
    }


def _pattern(name_like: str) -> str:
    """Operator's pattern from the LIKE pattern that was made of it."""
    pieces = []
    escaped = False
    for character in name_like:
        if not escaped and character == "\\":
            escaped = True
            continue
        pieces.append("*" if character == "%" and not escaped else character)
        escaped = False
    return "".join(pieces)
