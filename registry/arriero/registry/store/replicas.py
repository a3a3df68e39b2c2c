"""Registering replicas by sets, and changing their states."""

from collections.abc import Sequence

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    String,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    update,
)

from arriero.registry.dialect import Load, bulk_insert_new, insert_into, reserve_ids
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import butler_rses, did_meta, dids, locks, replicas, rules, scopes
from arriero.registry.states import DidType, LockState, ReplicaState
from arriero.registry.store.json import json_of
from arriero.registry.store.staging import stage, staged_files

_REVIVED = (ReplicaState.UNAVAILABLE, ReplicaState.TEMPORARY_UNAVAILABLE, ReplicaState.COPYING)
"""States from which a replica becomes AVAILABLE when a client says that it is there."""


def new_file_scopes(connection: Connection) -> Sequence[str]:
    """Scopes in which staged files would be new."""
    query = (
        select(scopes.c.name)
        .join(staged_files, staged_files.c.scope_id == scopes.c.id)
        .outerjoin(dids, and_(dids.c.scope_id == staged_files.c.scope_id, dids.c.name == staged_files.c.name))
        .where(dids.c.id.is_(None))
        .distinct()
    )
    return connection.scalars(query).all()


_FILE_COLUMNS = [
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
    "spread",
    "created_at",
    "updated_at",
]
_REPLICA_COLUMNS = [
    "file_id",
    "rse_id",
    "bytes",
    "state",
    "path",
    "created_at",
    "updated_at",
    "announced_at",
]

NewFileRow = tuple[int, str, int, str | None, str | None, int, str, str | None, str | None]
"""A file to register: scope_id, name, bytes, adler32, md5, spread, state, path, meta."""


def add_new_files(
    connection: Connection, account_id: int, rse_id: int, rows: Sequence[NewFileRow]
) -> range | None:
    """Add files and their replicas at an RSE, if the database can give ids beforehand and knows none of the files.

    Returns
    -------
    range
        That holds the ids of the files; ids of others may be in it too. None: nothing was added, and the way over
        ``staged_files`` will tell what is there already.
    """
    ids = reserve_ids(connection, dids, len(rows))
    if not ids:
        return None
    at = connection.scalar(select(cast(now(), String)))
    file, account = DidType.FILE.value, str(account_id)
    files = (
        (file_id, row[0], row[1], file, account, "f", "f", row[2], row[3], row[4], row[5], at, at)
        for file_id, row in zip(ids, rows, strict=True)
    )
    coming = ReplicaState.COPYING.value
    there = (
        (file_id, rse_id, row[2], row[6], row[7], at, at, at if row[6] == coming else None)
        for file_id, row in zip(ids, rows, strict=True)
    )
    meta = ((file_id, row[8]) for file_id, row in zip(ids, rows, strict=True) if row[8] is not None)
    added = bulk_insert_new(
        connection,
        [
            Load(dids, _FILE_COLUMNS, files),
            Load(replicas, _REPLICA_COLUMNS, there),
            Load(did_meta, ["did_id", "meta"], meta),
        ],
    )
    return range(ids[0], ids[-1] + 1) if added else None


def stage_new_files(connection: Connection, rows: Sequence[NewFileRow]) -> None:
    """Fill ``staged_files`` with files to register."""
    columns = ["scope_id", "name", "bytes", "adler32", "md5", "spread", "state", "path", "meta"]
    stage(connection, staged_files, columns, rows)


def insert_files(connection: Connection, account_id: int) -> int:
    """Insert the staged files that are new as DIDs, and give every staged row its id; give how many were new."""
    staged = staged_files.c
    at = select(now()).scalar_subquery()
    rows = (
        select(
            staged.scope_id,
            staged.name,
            literal(DidType.FILE.value),
            literal(account_id),
            literal(False),
            literal(False),
            staged.bytes,
            staged.adler32,
            staged.md5,
            staged.spread,
            at,
            at,
        )
        .where(literal(True))
        .order_by(staged.scope_id, staged.name)
    )
    statement = insert_into(connection, dids).from_select(_FILE_COLUMNS[1:], rows)
    new = connection.execute(
        statement.on_conflict_do_nothing(index_elements=["scope_id", "name"]),
        execution_options={"preserve_rowcount": True},
    ).rowcount
    resolve_files(connection)
    return new


def resolve_files(connection: Connection) -> None:
    """Give the rows of ``staged_files`` the ids of the DIDs that they name."""
    connection.execute(
        update(staged_files)
        .values(file_id=dids.c.id)
        .where(dids.c.scope_id == staged_files.c.scope_id, dids.c.name == staged_files.c.name)
    )


def file_fault(connection: Connection) -> RowMapping | None:
    """First staged file that the catalogue knows otherwise.

    Returns
    -------
    row
        ``scope``, ``name``, ``type``, and what the catalogue and the call (``said_...``) say of bytes and checksums.
    """
    staged = staged_files.c
    query = (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            dids.c.type,
            dids.c.bytes,
            dids.c.adler32,
            dids.c.md5,
            staged.bytes.label("said_bytes"),
            staged.adler32.label("said_adler32"),
            staged.md5.label("said_md5"),
        )
        .select_from(staged_files)
        .join(dids, dids.c.id == staged.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(
            or_(
                dids.c.type != DidType.FILE,
                dids.c.bytes != staged.bytes,
                dids.c.adler32 != staged.adler32,
                dids.c.md5 != staged.md5,
            )
        )
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def learn_checksums(connection: Connection) -> None:
    """Keep the checksums that the catalogue did not have of the staged files."""
    staged = staged_files.c
    connection.execute(
        update(dids)
        .values(
            adler32=func.coalesce(dids.c.adler32, staged.adler32),
            md5=func.coalesce(dids.c.md5, staged.md5),
            updated_at=now(),
        )
        .where(
            dids.c.id == staged.file_id,
            or_(
                and_(dids.c.adler32.is_(None), staged.adler32.is_not(None)),
                and_(dids.c.md5.is_(None), staged.md5.is_not(None)),
            ),
        )
    )


def insert_replicas(connection: Connection, rse_id: int) -> None:
    """Insert the staged files as replicas at an RSE; one that is there and declared AVAILABLE now becomes so."""
    staged = staged_files.c
    at = select(now()).scalar_subquery()
    rows = (
        select(
            staged.file_id,
            literal(rse_id),
            staged.bytes,
            staged.state,
            staged.path,
            at,
            at,
            case((staged.state == ReplicaState.COPYING.value, at)),
        )
        .where(literal(True))
        .order_by(staged.file_id)
    )
    statement = insert_into(connection, replicas).from_select(_REPLICA_COLUMNS, rows)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["file_id", "rse_id"],
            set_={
                "state": statement.excluded.state,
                "path": func.coalesce(statement.excluded.path, replicas.c.path),
                # what was verified lay elsewhere
                "verified_at": case(
                    (statement.excluded.path != replicas.c.path, null()), else_=replicas.c.verified_at
                ),
                "code": None,
                "reason": None,
                "updated_at": now(),
            },
            where=and_(
                replicas.c.state.in_(_REVIVED),
                statement.excluded.state == ReplicaState.AVAILABLE.value,
            ),
        )
    )


def replica_fault(connection: Connection, rse_id: int) -> RowMapping | None:
    """First staged file whose replica at an RSE is not what was declared: BAD, BEING_DELETED, or at another path.

    Returns
    -------
    row
        ``scope``, ``name``, ``state`` and ``path``.
    """
    query = (
        select(scopes.c.name.label("scope"), dids.c.name, replicas.c.state, replicas.c.path)
        .select_from(staged_files)
        .join(
            replicas,
            and_(replicas.c.file_id == staged_files.c.file_id, replicas.c.rse_id == rse_id),
        )
        .join(dids, dids.c.id == replicas.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(
            or_(
                replicas.c.state.in_((ReplicaState.BAD, ReplicaState.BEING_DELETED)),
                replicas.c.path != staged_files.c.path,
            )
        )
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def insert_metadata(connection: Connection) -> None:
    """Insert the metadata of staged files that have none yet."""
    statement = insert_into(connection, did_meta).from_select(
        ["did_id", "meta"],
        select(staged_files.c.file_id, json_of(connection, staged_files.c.meta))
        .where(staged_files.c.meta.is_not(None))
        .order_by(staged_files.c.file_id),
    )
    connection.execute(statement.on_conflict_do_nothing(index_elements=["did_id"]))


def landed_new(rse_id: int, file_ids: range) -> Select[tuple[int, int]]:
    """Query for the files with ids in a range that are AVAILABLE at an RSE: columns ``file_id`` and ``rse_id``.

    Where no Butler is fed none of them is read.
    """
    return select(replicas.c.file_id, replicas.c.rse_id).where(
        exists().where(butler_rses.c.rse_id == rse_id),
        replicas.c.rse_id == rse_id,
        replicas.c.file_id.between(file_ids.start, file_ids.stop - 1),
        replicas.c.state == ReplicaState.AVAILABLE,
    )


def landed(rse_id: int) -> Select[tuple[int, int]]:
    """Query for the staged files that are AVAILABLE at an RSE now: columns ``file_id`` and ``rse_id``."""
    return select(staged_files.c.file_id.label("file_id"), literal(rse_id).label("rse_id")).where(
        staged_files.c.state == ReplicaState.AVAILABLE.value
    )


def locks_waiting(rse_id: int) -> Select[tuple[int, int]]:
    """Query for the locks that a staged file's new state at an RSE may move: the rule and the file."""
    return (
        select(locks.c.rule_id, locks.c.file_id)
        .join(staged_files, staged_files.c.file_id == locks.c.file_id)
        .where(
            or_(
                locks.c.state == LockState.STUCK,
                and_(locks.c.rse_id == rse_id, locks.c.state == LockState.REPLICATING),
            )
        )
    )


def lock_rules_waiting(connection: Connection, rse_id: int) -> None:
    """Hold the rules that a staged file's new state at an RSE may move.

    They have a lock on it there, or a lock on it anywhere that is stuck. It waits for a rule that is being taken away
    at this moment, and passes it over. Call it before the replicas are touched, and have the files looked at afterwards
    (DESIGN section 11: rules before replicas).
    """
    waiting = locks_waiting(rse_id).subquery("waiting")
    query = (
        select(rules.c.id)
        .where(rules.c.id.in_(select(waiting.c.rule_id)))
        .order_by(rules.c.id)
        .with_for_update(read=True, key_share=True, of=rules)
    )
    connection.execute(query).all()


def set_states(connection: Connection, rse_id: int) -> int:
    """Give the replicas of the staged files their new states; give how many there were."""
    staged = staged_files.c
    # the check constraint knows the words: a plain cast of the column's type is enough
    return connection.execute(
        update(replicas)
        .values(
            state=cast(staged.state, String),
            reason=staged.reason,
            code=None,
            updated_at=now(),
        )
        .where(replicas.c.file_id == staged.file_id, replicas.c.rse_id == rse_id)
    ).rowcount


def staged_states(connection: Connection, rse_id: int) -> Sequence[RowMapping]:
    """Lock the replicas of the staged files at an RSE; give those that cannot change as they should, at most one.

    Returns
    -------
    rows
        ``scope``, ``name``, ``state`` (None: no replica), ``wanted``.
    """
    locked = (
        select(replicas.c.file_id)
        .join(staged_files, staged_files.c.file_id == replicas.c.file_id)
        .where(replicas.c.rse_id == rse_id)
        .order_by(replicas.c.file_id)
        .with_for_update(of=replicas)
        .subquery()
    )
    connection.execute(select(func.count()).select_from(locked)).all()
    wanted = staged_files.c.state
    allowed = or_(
        replicas.c.state == wanted,
        and_(wanted == ReplicaState.AVAILABLE.value, replicas.c.state.in_((*_REVIVED, ReplicaState.BAD))),
        and_(wanted == ReplicaState.UNAVAILABLE.value, replicas.c.state == ReplicaState.COPYING),
        and_(wanted == ReplicaState.TEMPORARY_UNAVAILABLE.value, replicas.c.state == ReplicaState.AVAILABLE),
    )
    query = (
        select(scopes.c.name.label("scope"), staged_files.c.name, replicas.c.state, wanted.label("wanted"))
        .select_from(staged_files)
        .join(scopes, scopes.c.id == staged_files.c.scope_id)
        .outerjoin(
            replicas,
            and_(replicas.c.file_id == staged_files.c.file_id, replicas.c.rse_id == rse_id),
        )
        .where(or_(replicas.c.file_id.is_(None), ~allowed))
        .limit(1)
    )
    return connection.execute(query).mappings().all()
