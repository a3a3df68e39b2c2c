"""Lost files: of which every copy that is known is bad. Written, found again and accepted by sets.

A row of ``lost_files`` says that somebody was told; whether the file is lost still, its replicas say (`is_lost`).
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    cast,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import String as Text

from arriero.registry.dialect import id_rows, insert_into
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import (
    accounts,
    bad_replicas,
    contents,
    dids,
    locks,
    lost_files,
    replicas,
    requests,
    rses,
    rules,
    scopes,
)
from arriero.registry.states import BadReplicaState, LockState, ReplicaState, RuleState
from arriero.registry.store import events

LOST = "lost"
"""Code of STUCK locks on files that are lost; no retry looks at them."""

REASON = "no good copy of it is known"

_GOOD = (ReplicaState.AVAILABLE, ReplicaState.TEMPORARY_UNAVAILABLE)


def is_lost(file_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Condition that a file is lost, now."""
    return and_(exists().where(lost_files.c.file_id == file_id), ~_has(file_id, good=True))


def file_is_lost(connection: Connection, file_id: int) -> bool:
    """Whether a file is lost, now."""
    return connection.scalar(select(is_lost(literal(file_id, BigInteger)))) is True


def _has(file_id: ColumnElement[int], *, good: bool) -> ColumnElement[bool]:
    """Condition that a file has a good copy, or (not ``good``) one that may yet be: announced by a client."""
    replica = replicas.alias("known")
    asked_for = exists().where(
        requests.c.file_id == replica.c.file_id, requests.c.destination_id == replica.c.rse_id
    )
    there = replica.c.state.in_(_GOOD)
    hoped_for = and_(replica.c.state == ReplicaState.COPYING, ~asked_for)
    return exists().where(replica.c.file_id == file_id, there if good else or_(there, hoped_for))


def note(connection: Connection, files: Select[tuple[int]]) -> Sequence[int]:
    """Write down, and tell, those of some files of which every copy is bad; give the ids of those that were not before.

    A copy that is being made from a bad one is no hope: if it succeeds after all, the file is found again.

    Parameters
    ----------
    files
        Query for their ids, each once.
    """
    among = files.subquery("among")
    (file_id,) = among.c
    declared = bad_replicas.alias("declared")
    said = (
        select(func.min(rses.c.name + func.coalesce(literal(" (") + declared.c.reason + ")", "")))
        .select_from(declared)
        .join(rses, rses.c.id == declared.c.rse_id)
        .where(declared.c.file_id == file_id, declared.c.state == BadReplicaState.BAD)
        .correlate(among)
        .scalar_subquery()
    )
    bad = exists().where(bad_replicas.c.file_id == file_id, bad_replicas.c.state == BadReplicaState.BAD)
    rows = (
        select(file_id, func.substr(literal(f"{REASON}: bad at ") + said, 1, 1000), now())
        .where(bad, ~_has(file_id, good=False))
        .order_by(file_id)
    )
    statement = insert_into(connection, lost_files).from_select(["file_id", "reason", "lost_at"], rows)
    found = connection.scalars(
        statement.on_conflict_do_nothing(index_elements=["file_id"]).returning(lost_files.c.file_id)
    )
    lost = sorted(found)
    if lost:
        _tell(connection, lost)
    return lost


def _tell(connection: Connection, file_ids: Collection[int]) -> None:
    """Write Rucio's LOST: one for each dataset that a file is in, and one for a file in none."""
    keys = ("scope", "name", "dataset_scope", "dataset_name", "reason")
    keyed = [
        (f"{row['scope']}:{row['name']}", {key: row[key] for key in keys})
        for row in described(connection, file_ids)
    ]
    events.append(connection, "LOST", keyed)


def lately_declared(seconds: float, limit: int) -> Select[tuple[int]]:
    """Query for files of which a replica was declared bad lately: two that were at one moment did not see each other."""
    return (
        select(bad_replicas.c.file_id)
        .where(
            bad_replicas.c.state == BadReplicaState.BAD,
            bad_replicas.c.created_at > after(literal(-seconds)),
            ~exists().where(lost_files.c.file_id == bad_replicas.c.file_id),
            ~_has(bad_replicas.c.file_id, good=False),
        )
        .distinct()
        .limit(limit)
    )


def described(connection: Connection, file_ids: Collection[int]) -> Sequence[RowMapping]:
    """Lost files, each with every dataset that it is in, or none.

    Returns
    -------
    rows
        ``scope``, ``name``, ``bytes``, ``reason``, ``dataset_scope``, ``dataset_name``.
    """
    parent, parent_scope = dids.alias("parent"), scopes.alias("parent_scope")
    query = (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            dids.c.bytes,
            lost_files.c.reason,
            parent_scope.c.name.label("dataset_scope"),
            parent.c.name.label("dataset_name"),
        )
        .join(dids, dids.c.id == lost_files.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .outerjoin(contents, contents.c.child_id == dids.c.id)
        .outerjoin(parent, parent.c.id == contents.c.parent_id)
        .outerjoin(parent_scope, parent_scope.c.id == parent.c.scope_id)
        .where(lost_files.c.file_id.in_(id_rows(connection, sorted(file_ids))))
        .order_by(dids.c.id, parent.c.id)
    )
    return connection.execute(query).mappings().all()


def name_on_locks(connection: Connection, rule_ids: Collection[int], file_ids: Select[tuple[int]]) -> None:
    """Have the STUCK locks of rules on lost files say so.

    Parameters
    ----------
    rule_ids
        Their rows are held.
    file_ids
        Which files.
    """
    if not rule_ids:
        return
    chosen = id_rows(connection, sorted(rule_ids))
    connection.execute(
        update(locks)
        .where(
            locks.c.rule_id.in_(chosen),
            locks.c.state == LockState.STUCK,
            locks.c.file_id.in_(file_ids),
            lost_files.c.file_id == locks.c.file_id,
        )
        .values(code=LOST, reason=lost_files.c.reason)
    )
    count = (
        select(func.count())
        .where(locks.c.rule_id == rules.c.id, locks.c.state == LockState.STUCK, locks.c.code == LOST)
        .scalar_subquery()
    )
    said = cast(count, Text) + f" locks: {REASON}; register one, or accept the loss (arriero did accept-loss)"
    connection.execute(
        update(rules)
        .where(rules.c.id.in_(chosen), rules.c.state == RuleState.STUCK)
        .values(code=LOST, reason=said, updated_at=now())
    )


def _unnamed() -> Select[tuple[int, int]]:
    """Query for STUCK locks on lost files that say something else: rule and file."""
    return (
        select(locks.c.rule_id, locks.c.file_id)
        .join(lost_files, lost_files.c.file_id == locks.c.file_id)
        .where(
            locks.c.state == LockState.STUCK,
            func.coalesce(locks.c.code, "") != LOST,
            ~_has(lost_files.c.file_id, good=True),
        )
    )


def hold_rules_to_name(connection: Connection, *, limit: int) -> frozenset[int]:
    """Hold rules that have such locks; those that somebody else is changing are passed over."""
    unnamed = _unnamed().subquery("unnamed")
    query = (
        select(rules.c.id)
        .where(rules.c.id.in_(select(unnamed.c.rule_id)))
        .order_by(rules.c.id)
        .limit(limit)
        .with_for_update(of=rules, key_share=True, skip_locked=True)
    )
    return frozenset(connection.scalars(query))


def all_files() -> Select[tuple[int]]:
    """Query for the ids of all lost files."""
    return select(lost_files.c.file_id)


def found_again(connection: Connection, *, limit: int) -> list[int]:
    """Ids of files that were lost and have a good copy now."""
    query = select(lost_files.c.file_id).where(_has(lost_files.c.file_id, good=True))
    return list(connection.scalars(query.order_by(lost_files.c.file_id).limit(limit)))


def stuck_on(connection: Connection, file_ids: Collection[int]) -> Select[tuple[int, int]]:
    """Query for the STUCK locks on files: the rule and the file."""
    return select(locks.c.rule_id, locks.c.file_id).where(
        locks.c.state == LockState.STUCK, locks.c.file_id.in_(id_rows(connection, sorted(file_ids)))
    )


def hold_rules_stuck_on(connection: Connection, file_ids: Collection[int]) -> frozenset[int]:
    """Hold the rules that have STUCK locks on files, so that none is taken away; give their ids."""
    stuck = stuck_on(connection, file_ids).subquery("stuck")
    query = (
        select(rules.c.id)
        .where(rules.c.id.in_(select(stuck.c.rule_id)))
        .order_by(rules.c.id)
        .with_for_update(read=True, key_share=True, of=rules)
    )
    return frozenset(connection.scalars(query))


def forget(connection: Connection, file_ids: Collection[int]) -> None:
    """Have files be lost no more."""
    connection.execute(
        delete(lost_files).where(lost_files.c.file_id.in_(id_rows(connection, sorted(file_ids))))
    )


def open_among(connection: Connection, file_ids: Collection[int]) -> frozenset[int]:
    """Hold those of some files that are lost and whose loss nobody has accepted; give their ids."""
    query = (
        select(lost_files.c.file_id)
        .where(
            lost_files.c.file_id.in_(id_rows(connection, sorted(file_ids))),
            lost_files.c.accepted_at.is_(None),
            ~_has(lost_files.c.file_id, good=True),
        )
        .order_by(lost_files.c.file_id)
        .with_for_update(of=lost_files)
    )
    return frozenset(connection.scalars(query))


def accept(connection: Connection, file_ids: Collection[int], *, account_id: int, reason: str | None) -> None:
    """Write down that files are not to be waited for any more."""
    connection.execute(
        update(lost_files)
        .where(lost_files.c.file_id.in_(id_rows(connection, sorted(file_ids))))
        .values(accepted_at=now(), account_id=account_id, accepted_reason=reason)
    )


def parents_of(connection: Connection, file_ids: Collection[int]) -> list[int]:
    """Ids of the datasets that files are in."""
    query = select(contents.c.parent_id).where(contents.c.child_id.in_(id_rows(connection, sorted(file_ids))))
    return sorted(connection.scalars(query.distinct()))


def losses_query(*, scope: str | None, accepted: bool) -> Select[Any]:
    """Query for lost files, the oldest loss first."""
    query = (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            dids.c.bytes,
            lost_files.c.reason,
            lost_files.c.lost_at,
            lost_files.c.accepted_at,
            accounts.c.name.label("accepted_by"),
            lost_files.c.accepted_reason,
        )
        .join(dids, dids.c.id == lost_files.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .outerjoin(accounts, accounts.c.id == lost_files.c.account_id)
        .where(~_has(lost_files.c.file_id, good=True))
        .order_by(lost_files.c.lost_at, lost_files.c.file_id)
    )
    if scope is not None:
        query = query.where(scopes.c.name == scope)
    return query if accepted else query.where(lost_files.c.accepted_at.is_(None))
