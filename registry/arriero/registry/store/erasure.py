"""What was erased, and what is to be: DIDs that have expired, those that are gone, and what their contents were."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    select,
    union_all,
)

from arriero.registry.dialect import id_rows
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    contents,
    contents_history,
    dataset_locks,
    deleted_dids,
    did_meta,
    dids,
    rules,
    scopes,
    unplaced_groups,
)
from arriero.registry.states import DidType
from arriero.registry.store.did_sets import named
from arriero.registry.store.dids import did_query
from arriero.registry.store.rules import rule_query

_KEPT = (
    "id",
    "scope_id",
    "name",
    "type",
    "account_id",
    "is_open",
    "monotonic",
    "bytes",
    "adler32",
    "md5",
    "closed_at",
    "created_at",
)


def _held_by_a_locked_rule() -> Any:
    return exists().where(rules.c.did_id == dids.c.id, rules.c.locked)


def _expired() -> Any:
    return and_(dids.c.expired_at < now(), dids.c.type != DidType.FILE)


def expired_collections(connection: Connection, *, limit: int) -> list[int]:
    """Ids of collections whose lifetime is over and on which no rule is locked, the oldest first."""
    query = select(dids.c.id).where(_expired(), ~_held_by_a_locked_rule()).order_by(dids.c.expired_at)
    return list(connection.scalars(query.limit(limit)))


def held_collections(connection: Connection, *, limit: int) -> list[str]:
    """Collections whose lifetime is over and that a locked rule keeps, as ``scope:name``."""
    query = (
        select(scopes.c.name.label("scope"), dids.c.name)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(_expired(), _held_by_a_locked_rule())
        .order_by(dids.c.expired_at)
        .limit(limit)
    )
    return [f"{row.scope}:{row.name}" for row in connection.execute(query)]


def still_expired(connection: Connection, did_id: int) -> RowMapping | None:
    """Give a locked collection if its lifetime is over and no rule on it is locked."""
    query = did_query().where(dids.c.id == did_id, _expired(), ~_held_by_a_locked_rule())
    return connection.execute(query).mappings().one_or_none()


def rules_on(connection: Connection, did_id: int) -> Sequence[RowMapping]:
    """Lock the rules on a DID and give them."""
    query = rule_query().where(rules.c.did_id == did_id).with_for_update(of=rules)
    return connection.execute(query).mappings().all()


def rules_on_files(connection: Connection, file_ids: Sequence[int]) -> Sequence[RowMapping]:
    """Lock the rules on any of some files, in the order of their ids, and give them."""
    query = rule_query().where(rules.c.did_id.in_(id_rows(connection, file_ids))).order_by(rules.c.id)
    return connection.execute(query.with_for_update(of=rules)).mappings().all()


def parents_of(connection: Connection, did_id: int) -> list[int]:
    """Ids of what holds a DID directly."""
    return list(
        connection.scalars(
            select(contents.c.parent_id).where(contents.c.child_id == did_id).order_by(contents.c.parent_id)
        )
    )


def erase(connection: Connection, did_id: int) -> None:
    """Move a DID that nothing holds, that holds nothing and has no rules to those that are deleted."""
    columns = [dids.c[name] for name in _KEPT]
    gone = (
        select(*columns, did_meta.c.meta, now())
        .outerjoin(did_meta, did_meta.c.did_id == dids.c.id)
        .where(dids.c.id == did_id)
    )
    connection.execute(
        insert(deleted_dids).from_select([*_KEPT, "meta", "deleted_at"], gone, include_defaults=False)
    )
    # what rules above it had decided for it as a group
    connection.execute(delete(dataset_locks).where(dataset_locks.c.group_id == did_id))
    connection.execute(delete(unplaced_groups).where(unplaced_groups.c.group_id == did_id))
    connection.execute(delete(did_meta).where(did_meta.c.did_id == did_id))
    connection.execute(delete(dids).where(dids.c.id == did_id))


def newest_deleted(
    connection: Connection, keys: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], tuple[int, DidType]]:
    """Id and type of the last of each name that was deleted, by id of the scope and name."""
    chosen = named(connection, keys)
    query = (
        select(deleted_dids.c.id, deleted_dids.c.scope_id, deleted_dids.c.name, deleted_dids.c.type)
        .join(
            chosen,
            and_(deleted_dids.c.scope_id == chosen.c.scope_id, deleted_dids.c.name == chosen.c.name),
        )
        .order_by(deleted_dids.c.deleted_at, deleted_dids.c.id)
    )
    return {(row.scope_id, row.name): (row.id, row.type) for row in connection.execute(query)}


def resurrect(connection: Connection, ids: Sequence[int]) -> None:
    """Bring deleted collections back, with the ids and the metadata that they had, and without an end."""
    columns = [deleted_dids.c[name] for name in _KEPT]
    chosen = deleted_dids.c.id.in_(ids)
    # only of files does anybody ask for the spread
    rows = select(*columns, literal(0), now()).where(chosen).order_by(deleted_dids.c.id)
    connection.execute(
        insert(dids).from_select([*_KEPT, "spread", "updated_at"], rows, include_defaults=False)
    )
    documents = select(deleted_dids.c.id, deleted_dids.c.meta).where(chosen, deleted_dids.c.meta.is_not(None))
    connection.execute(insert(did_meta).from_select(["did_id", "meta"], documents, include_defaults=False))
    connection.execute(delete(deleted_dids).where(chosen))


def ids_ever(connection: Connection, scope: str, name: str) -> list[int]:
    """Ids of the DIDs that have or had a name."""
    at = select(scopes.c.id).where(scopes.c.name == scope).scalar_subquery()
    query = union_all(
        select(dids.c.id).where(dids.c.scope_id == at, dids.c.name == name),
        select(deleted_dids.c.id).where(deleted_dids.c.scope_id == at, deleted_dids.c.name == name),
    )
    return list(connection.scalars(query))


def contents_ever(ids: Sequence[int]) -> Select[Any]:
    """Query for what DIDs hold and have held: ``detached_at`` is null for what they hold."""
    past = select(
        contents_history.c.child_id,
        contents_history.c.attached_at.label("attached_at"),
        contents_history.c.detached_at.label("detached_at"),
    ).where(contents_history.c.parent_id.in_(ids))
    present = select(contents.c.child_id, contents.c.created_at, null()).where(contents.c.parent_id.in_(ids))
    ever = union_all(past, present).subquery("ever")
    gone = deleted_dids
    shown = [
        func.coalesce(dids.c[name], gone.c[name]).label(name) for name in ("name", "bytes", "adler32", "md5")
    ]
    return (
        select(
            scopes.c.name.label("scope"),
            *shown,
            func.coalesce(dids.c.type, gone.c.type).label("type"),
            ever.c.attached_at,
            ever.c.detached_at,
        )
        .select_from(ever)
        .outerjoin(dids, dids.c.id == ever.c.child_id)
        .outerjoin(gone, gone.c.id == ever.c.child_id)
        .join(scopes, scopes.c.id == func.coalesce(dids.c.scope_id, gone.c.scope_id))
        .order_by(ever.c.child_id, ever.c.attached_at)
    )
