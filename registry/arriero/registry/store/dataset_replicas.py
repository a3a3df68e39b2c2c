"""How much of datasets and containers lies where, counted from what they hold."""

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, Select, Subquery, and_, func, select, union

from arriero.registry.dialect import id_rows
from arriero.registry.schema.tables import contents, dids, replicas, rses, scopes
from arriero.registry.states import DidType, ReplicaState


def _files_below(connection: Connection, did_ids: Sequence[int]) -> Subquery:
    """Files that each of some collections holds, at any depth, each once: columns ``root_id`` and ``id``."""
    tree = (
        select(dids.c.id.label("root_id"), dids.c.id, dids.c.type)
        .where(dids.c.id.in_(id_rows(connection, did_ids)))
        .cte("tree", recursive=True)
    )
    child = dids.alias("child")
    tree = tree.union(
        select(tree.c.root_id, child.c.id, child.c.type)
        .join(contents, contents.c.child_id == child.c.id)
        .join(tree, and_(tree.c.id == contents.c.parent_id, tree.c.type == DidType.CONTAINER))
    )
    held = (
        select(tree.c.root_id, contents.c.child_id.label("id"))
        .join(contents, contents.c.parent_id == tree.c.id)
        .where(tree.c.type == DidType.DATASET)
    )
    named = select(tree.c.root_id, tree.c.id).where(tree.c.type == DidType.FILE)
    return union(held, named).subquery("below")


def totals(connection: Connection, did_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Files and bytes of collections, by id; those that hold nothing are missing."""
    below = _files_below(connection, did_ids)
    query = (
        select(below.c.root_id, func.count(), func.coalesce(func.sum(dids.c.bytes), 0))
        .join(dids, dids.c.id == below.c.id)
        .group_by(below.c.root_id)
    )
    return {root_id: (int(count), int(size)) for root_id, count, size in connection.execute(query)}


def held_by_rse(connection: Connection, did_ids: Sequence[int]) -> Sequence[RowMapping]:
    """How much of collections lies at each RSE.

    Returns
    -------
    rows
        ``root_id``, ``rse_id``, ``rse``, ``available_length``, ``available_bytes``, ``created_at``, ``updated_at``,
        ``accessed_at``; in the order of the ids and the names of the RSEs.
    """
    available = replicas.c.state == ReplicaState.AVAILABLE
    below = _files_below(connection, did_ids)
    query = (
        select(
            below.c.root_id,
            rses.c.id.label("rse_id"),
            rses.c.name.label("rse"),
            func.count().filter(available).label("available_length"),
            func.coalesce(func.sum(replicas.c.bytes).filter(available), 0).label("available_bytes"),
            func.min(replicas.c.created_at).label("created_at"),
            func.max(replicas.c.updated_at).label("updated_at"),
            func.max(replicas.c.accessed_at).label("accessed_at"),
        )
        .select_from(below)
        .join(replicas, replicas.c.file_id == below.c.id)
        .join(rses, rses.c.id == replicas.c.rse_id)
        .group_by(below.c.root_id, rses.c.id, rses.c.name)
        .order_by(below.c.root_id, rses.c.name)
    )
    return connection.execute(query).mappings().all()


def parents_after(connection: Connection, after_id: int, limit: int) -> Sequence[int]:
    """Ids of collections that hold something, above one, in their order.

    From one to the next in the index of ``contents``: reading all that they hold would take as long as all files.
    """
    inner = contents.alias("inner_contents")
    parents = (
        select(func.min(contents.c.parent_id).label("id"))
        .where(contents.c.parent_id > after_id)
        .cte("parents", recursive=True)
    )
    following = select(func.min(inner.c.parent_id)).where(inner.c.parent_id > parents.c.id).scalar_subquery()
    parents = parents.union_all(select(following).where(parents.c.id.is_not(None)))
    return connection.scalars(select(parents.c.id).where(parents.c.id.is_not(None)).limit(limit)).all()


def datasets_at(connection: Connection, rse_id: int, dataset_ids: Sequence[int]) -> Sequence[RowMapping]:
    """Those of some datasets that have a replica at an RSE, with how much of them there is, and there.

    Returns
    -------
    rows
        ``scope``, ``name``, ``length``, ``bytes``, ``available_length``, ``available_bytes``, ``created_at``,
        ``updated_at``, ``accessed_at``; in the order of the ids.
    """
    available = replicas.c.state == ReplicaState.AVAILABLE
    file = dids.alias("file")
    query: Select[tuple[object, ...]] = (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            func.count().label("length"),
            func.coalesce(func.sum(file.c.bytes), 0).label("bytes"),
            func.count().filter(available).label("available_length"),
            func.coalesce(func.sum(replicas.c.bytes).filter(available), 0).label("available_bytes"),
            func.min(replicas.c.created_at).label("created_at"),
            func.max(replicas.c.updated_at).label("updated_at"),
            func.max(replicas.c.accessed_at).label("accessed_at"),
        )
        .select_from(contents)
        .join(dids, dids.c.id == contents.c.parent_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(file, file.c.id == contents.c.child_id)
        .outerjoin(replicas, and_(replicas.c.file_id == contents.c.child_id, replicas.c.rse_id == rse_id))
        .where(contents.c.parent_id.in_(id_rows(connection, dataset_ids)), dids.c.type == DidType.DATASET)
        .group_by(dids.c.id, scopes.c.name, dids.c.name)
        .having(func.count(replicas.c.file_id) > 0)
        .order_by(dids.c.id)
    )
    return connection.execute(query).mappings().all()
