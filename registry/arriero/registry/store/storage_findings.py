"""What is wrong at storages, in the database: noted, confirmed, acted on and settled, by sets."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    RowMapping,
    Select,
    Text,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    update,
)

from arriero.registry.dialect import id_rows, insert_into
from arriero.registry.schema.base import UtcDateTime, now
from arriero.registry.schema.tables import (
    dids,
    replicas,
    rses,
    scopes,
    storage_findings,
)
from arriero.registry.states import FindingKind, FindingState, ReplicaState
from arriero.registry.store.replica_sets import staged_replicas
from arriero.registry.store.storage_audits import found_at_storage

_OF_REPLICA = storage_findings.c.file_id.is_not(None)
_DARK = storage_findings.c.file_id.is_(None)
_OPEN = storage_findings.c.state != FindingState.DECLARED

_COLUMNS = [
    "rse_id",
    "kind",
    "state",
    "file_id",
    "path",
    "bytes",
    "adler32",
    "times",
    "first_seen_at",
    "last_seen_at",
    "audit_id",
    "created_at",
    "updated_at",
]


def drop_settled(connection: Connection, rse_id: int | None = None) -> int:
    """Forget findings of replicas that are gone, made again, or verified since; give how many."""
    there = exists().where(
        replicas.c.file_id == storage_findings.c.file_id, replicas.c.rse_id == storage_findings.c.rse_id
    )
    is_verified = there.where(
        replicas.c.state == ReplicaState.AVAILABLE, replicas.c.verified_at > storage_findings.c.last_seen_at
    )
    is_made_again = and_(
        storage_findings.c.state == FindingState.DECLARED,
        there.where(replicas.c.state == ReplicaState.AVAILABLE),
    )
    query = delete(storage_findings).where(_OF_REPLICA, or_(~there, is_made_again, is_verified))
    if rse_id is not None:
        query = query.where(storage_findings.c.rse_id == rse_id)
    return connection.execute(query).rowcount


def drop_unseen(connection: Connection, rse_id: int, kinds: Collection[FindingKind]) -> None:
    """Forget what earlier audits of an RSE found and the one in ``found_at_storage`` does not.

    What was found by reading bytes is for reading to settle: a storage may give a digest that is older than the bytes.

    Parameters
    ----------
    kinds
        Those that the audit could have found.
    """
    seen_replica = exists().where(found_at_storage.c.file_id == storage_findings.c.file_id)
    seen_dark = exists().where(found_at_storage.c.path == storage_findings.c.path)
    earlier = (
        storage_findings.c.rse_id == rse_id,
        storage_findings.c.audit_id.is_not(None),
        storage_findings.c.kind.in_(kinds),
        _OPEN,
    )
    connection.execute(delete(storage_findings).where(*earlier, _OF_REPLICA, ~seen_replica))
    connection.execute(delete(storage_findings).where(*earlier, _DARK, ~seen_dark))


def note(connection: Connection, rse_id: int, audit_id: int | None, at: datetime) -> None:
    """Write down what is in ``found_at_storage``: for the first time, or once more.

    Something else about the same file begins anew. A replica of which something is written down proves nothing any more:
    no other copy may go because of it.

    Parameters
    ----------
    audit_id
        The audit that saw it; None: its bytes were read.
    at
        When the storage looked like this.
    """
    for is_replica in (True, False):
        connection.execute(_noted(connection, rse_id, audit_id, at, is_replica=is_replica))
    found = found_at_storage.c.file_id
    connection.execute(
        update(replicas)
        .where(
            replicas.c.rse_id == rse_id,
            replicas.c.verified_at.is_not(None),
            replicas.c.file_id.in_(select(found).where(found.is_not(None))),
        )
        # nothing has become of it: audits go on judging it
        .values(verified_at=null(), updated_at=replicas.c.updated_at)
    )


def _noted(
    connection: Connection, rse_id: int, audit_id: int | None, at: datetime, *, is_replica: bool
) -> Executable:
    """Insert what was found of replicas, or of dark files; what is there already was found once more."""
    found = found_at_storage.c
    instant = literal(at, UtcDateTime())
    rows = (
        select(
            literal(rse_id),
            found.kind,
            literal(FindingState.SEEN.value),
            found.file_id,
            found.path,
            found.bytes,
            found.adler32,
            literal(1),
            instant,
            instant,
            cast(literal(audit_id), BigInteger),
            select(now()).scalar_subquery(),
            select(now()).scalar_subquery(),
        )
        .where(found.file_id.is_not(None) if is_replica else found.file_id.is_(None))
        .order_by(found.file_id, found.path)
    )
    statement = insert_into(connection, storage_findings).from_select(_COLUMNS, rows)
    known, new = storage_findings.c, statement.excluded
    same = known.kind == new.kind
    return statement.on_conflict_do_update(
        index_elements=["rse_id", "file_id" if is_replica else "path"],
        index_where=_OF_REPLICA if is_replica else _DARK,
        set_={
            "kind": new.kind,
            "state": case((same, cast(known.state, Text)), else_=FindingState.SEEN.value),
            "bytes": new.bytes,
            "adler32": new.adler32,
            "times": case((same, known.times + 1), else_=1),
            "first_seen_at": case((same, known.first_seen_at), else_=new.first_seen_at),
            "last_seen_at": new.last_seen_at,
            "audit_id": new.audit_id,
            "code": case((same, known.code), else_=null()),
            "reason": case((same, known.reason), else_=null()),
            "updated_at": new.updated_at,
        },
        where=and_(known.last_seen_at < new.last_seen_at, _OPEN),
    )


def confirm(connection: Connection, rse_id: int, at: datetime, *, apart_s: float) -> None:
    """Confirm what was seen at a moment and, at least so long before, for the first time."""
    connection.execute(
        update(storage_findings)
        .where(
            storage_findings.c.rse_id == rse_id,
            storage_findings.c.state == FindingState.SEEN,
            storage_findings.c.last_seen_at == at,
            storage_findings.c.times > 1,
            storage_findings.c.first_seen_at <= at - timedelta(seconds=apart_s),
        )
        .values(state=FindingState.CONFIRMED.value, updated_at=now())
    )


def _is_proven() -> ColumnElement[bool]:
    """Condition that another copy was verified, and nothing was found wrong with it."""
    another, doubt = replicas.alias("another"), storage_findings.alias("doubt")
    doubted = exists().where(doubt.c.file_id == another.c.file_id, doubt.c.rse_id == another.c.rse_id)
    return exists().where(
        another.c.file_id == storage_findings.c.file_id,
        another.c.rse_id != storage_findings.c.rse_id,
        another.c.state == ReplicaState.AVAILABLE,
        another.c.verified_at.is_not(None),
        ~doubted,
    )


def _to_act_on() -> ColumnElement[bool]:
    return or_(
        storage_findings.c.state == FindingState.CONFIRMED,
        and_(storage_findings.c.state == FindingState.SUSPECTED, _is_proven()),
    )


def to_act_on(connection: Connection, rse_id: int, *, limit: int) -> Sequence[RowMapping]:
    """Findings of replicas that are confirmed and of which nothing is said yet, the oldest first.

    Those whose catalogue is suspected come again when another copy has been proven since.

    Returns
    -------
    rows
        ``id``, ``kind``, ``file_id``, ``audit_id``, ``is_proven`` (another copy was verified, and nothing was found wrong
        with it), ``is_shared`` (another replica is wrong in the same way).
    """
    other = storage_findings.alias("other")
    is_shared = exists().where(
        other.c.file_id == storage_findings.c.file_id,
        other.c.rse_id != storage_findings.c.rse_id,
        other.c.kind == storage_findings.c.kind,
        other.c.bytes.is_not_distinct_from(storage_findings.c.bytes),
        other.c.adler32.is_not_distinct_from(storage_findings.c.adler32),
    )
    query = (
        select(
            storage_findings.c.id,
            storage_findings.c.kind,
            storage_findings.c.file_id,
            storage_findings.c.audit_id,
            _is_proven().label("is_proven"),
            is_shared.label("is_shared"),
        )
        .where(
            storage_findings.c.rse_id == rse_id,
            _OF_REPLICA,
            _to_act_on(),
        )
        .order_by(storage_findings.c.id)
        .limit(limit)
    )
    return connection.execute(query).mappings().all()


def rses_to_act_on(connection: Connection) -> list[int]:
    """Ids of the RSEs that have findings of replicas of which something is to be said (`to_act_on`)."""
    query = select(storage_findings.c.rse_id).where(_OF_REPLICA, _to_act_on())
    return sorted(connection.scalars(query.distinct()))


def shown(connection: Connection, finding_id: int) -> str:
    """Name of a finding as it is shown: ``scope:name@rse``."""
    query = (
        select(scopes.c.name + ":" + dids.c.name + "@" + rses.c.name)
        .select_from(storage_findings)
        .join(rses, rses.c.id == storage_findings.c.rse_id)
        .join(dids, dids.c.id == storage_findings.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .where(storage_findings.c.id == finding_id)
    )
    return connection.scalar(query) or f"finding {finding_id}"


def outdated_places(connection: Connection) -> list[int]:
    """Places of the staged replicas that have changed since they were found to be wrong, or are not any more."""
    query = (
        select(staged_replicas.c.place)
        .select_from(staged_replicas)
        .join(
            replicas,
            and_(
                replicas.c.file_id == staged_replicas.c.file_id, replicas.c.rse_id == staged_replicas.c.rse_id
            ),
        )
        .outerjoin(
            storage_findings,
            and_(
                storage_findings.c.file_id == staged_replicas.c.file_id,
                storage_findings.c.rse_id == staged_replicas.c.rse_id,
            ),
        )
        .where(
            or_(
                storage_findings.c.id.is_(None),
                replicas.c.updated_at > storage_findings.c.last_seen_at,
            )
        )
    )
    return list(connection.scalars(query))


def say(
    connection: Connection,
    finding_ids: Sequence[int],
    state: FindingState,
    *,
    code: str | None = None,
    reason: str | None = None,
) -> None:
    """Write what became of findings."""
    connection.execute(
        update(storage_findings)
        .where(storage_findings.c.id.in_(id_rows(connection, sorted(finding_ids))))
        .values(state=state.value, code=code, reason=reason, updated_at=now())
    )


def forget(connection: Connection, finding_ids: Sequence[int]) -> None:
    """Take findings away."""
    chosen = id_rows(connection, sorted(finding_ids))
    connection.execute(delete(storage_findings).where(storage_findings.c.id.in_(chosen)))


def not_declared(connection: Connection, finding_ids: Sequence[int]) -> list[int]:
    """Those of some findings whose replica is not BAD."""
    query = select(storage_findings.c.id).where(
        storage_findings.c.id.in_(id_rows(connection, sorted(finding_ids))),
        ~exists().where(
            replicas.c.file_id == storage_findings.c.file_id,
            replicas.c.rse_id == storage_findings.c.rse_id,
            replicas.c.state == ReplicaState.BAD,
        ),
    )
    return list(connection.scalars(query))


def findings_query(
    *,
    rse_id: int | None = None,
    kind: FindingKind | None = None,
    state: FindingState | None = None,
    audit_id: int | None = None,
) -> Select[Any]:
    """Query for findings, the oldest first, with the names of their files."""
    found = storage_findings.c
    query = (
        select(
            found.id,
            rses.c.name.label("rse"),
            found.kind,
            found.state,
            scopes.c.name.label("scope"),
            dids.c.name,
            func.coalesce(found.path, replicas.c.path).label("path"),
            found.bytes,
            found.adler32,
            dids.c.bytes.label("catalogue_bytes"),
            dids.c.adler32.label("catalogue_adler32"),
            found.times,
            found.first_seen_at,
            found.last_seen_at,
            found.audit_id.label("audit"),
            found.code,
            found.reason,
        )
        .join(rses, rses.c.id == found.rse_id)
        .outerjoin(dids, dids.c.id == found.file_id)
        .outerjoin(scopes, scopes.c.id == dids.c.scope_id)
        .outerjoin(replicas, and_(replicas.c.file_id == found.file_id, replicas.c.rse_id == found.rse_id))
        .order_by(found.id)
    )
    for column, value in (
        (found.rse_id, rse_id),
        (found.kind, kind),
        (found.state, state),
        (found.audit_id, audit_id),
    ):
        if value is not None:
            query = query.where(column == value)
    return query


def forget_of_staged_replicas(connection: Connection) -> None:
    """Take away what was found of the staged replicas: their bytes are what they should be."""
    connection.execute(
        delete(storage_findings).where(
            exists().where(
                staged_replicas.c.file_id == storage_findings.c.file_id,
                staged_replicas.c.rse_id == storage_findings.c.rse_id,
            ),
            _OF_REPLICA,
        )
    )
