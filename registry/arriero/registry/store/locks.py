"""Locks in the database: what rules hold of files, and where they have placed datasets."""

from typing import Any

from sqlalchemy import CTE, Select, Subquery, and_, case, exists, func, select, union_all

from arriero.registry.schema.tables import (
    accounts,
    contents,
    dataset_locks,
    dids,
    locks,
    rses,
    rules,
    scopes,
)
from arriero.registry.states import DidType, LockState


def locks_of(rule_id: int) -> Select[Any]:
    """Query for the locks of a rule, in the order of the files."""
    return _file_locks().where(locks.c.rule_id == rule_id).order_by(locks.c.file_id, locks.c.rse_id)


def locks_on(file_id: int) -> Select[Any]:
    """Query for the locks that rules have on a file."""
    return _file_locks().where(locks.c.file_id == file_id).order_by(locks.c.rule_id, locks.c.rse_id)


def _file_locks() -> Select[Any]:
    return (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.id.label("rse_id"),
            rses.c.name.label("rse"),
            rules.c.uuid,
            accounts.c.name.label("account"),
            locks.c.state,
            locks.c.bytes,
            locks.c.code,
            locks.c.reason,
            locks.c.created_at,
        )
        .join(dids, dids.c.id == locks.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == locks.c.rse_id)
        .join(rules, rules.c.id == locks.c.rule_id)
        .join(accounts, accounts.c.id == rules.c.account_id)
    )


def dataset_locks_of(below: CTE) -> Select[Any]:
    """Query for where rules have placed datasets.

    Parameters
    ----------
    below
        The datasets among other DIDs: columns ``id`` and ``type``. With grouping ALL a rule places a container as a
        whole, and with it each dataset below.
    """
    wanted = select(below.c.id).where(below.c.type == DidType.DATASET).subquery("wanted")
    up = select(wanted.c.id.label("dataset_id"), wanted.c.id.label("group_id")).cte("above", recursive=True)
    up = up.union(
        select(up.c.dataset_id, contents.c.parent_id).join(contents, contents.c.child_id == up.c.group_id)
    )
    placed = (
        select(dataset_locks.c.rule_id, dataset_locks.c.rse_id, up.c.dataset_id, dataset_locks.c.created_at)
        .join(up, up.c.group_id == dataset_locks.c.group_id)
        .subquery("placed")
    )
    return _described(placed)


def dataset_locks_at(rse_id: int) -> Select[Any]:
    """Query for the datasets that rules have placed at an RSE."""
    here = dataset_locks.c.rse_id == rse_id
    groups = (
        select(dids.c.id.label("group_id"), dids.c.id)
        .where(
            dids.c.type == DidType.CONTAINER,
            dids.c.id.in_(select(dataset_locks.c.group_id).where(here)),
        )
        .cte("groups", recursive=True)
    )
    child = dids.alias("child")
    groups = groups.union(
        select(groups.c.group_id, child.c.id)
        .join(contents, contents.c.parent_id == groups.c.id)
        .join(child, and_(child.c.id == contents.c.child_id, child.c.type != DidType.FILE))
    )
    columns = [dataset_locks.c.rule_id, dataset_locks.c.rse_id]
    by_itself = (
        select(*columns, dids.c.id.label("dataset_id"), dataset_locks.c.created_at)
        .join(dids, dids.c.id == dataset_locks.c.group_id)
        .where(here, dids.c.type == DidType.DATASET)
    )
    with_a_container = (
        select(*columns, groups.c.id.label("dataset_id"), dataset_locks.c.created_at)
        .join(groups, groups.c.group_id == dataset_locks.c.group_id)
        .join(dids, dids.c.id == groups.c.id)
        .where(here, dids.c.type == DidType.DATASET)
    )
    return _described(union_all(by_itself, with_a_container).subquery("placed"))


def _described(placed: Subquery) -> Select[Any]:
    held = contents.alias("held")
    file = dids.alias("file")

    def has(state: LockState) -> Any:
        return exists().where(
            locks.c.rule_id == placed.c.rule_id,
            locks.c.rse_id == placed.c.rse_id,
            locks.c.state == state,
            locks.c.file_id.in_(
                select(contents.c.child_id).where(contents.c.parent_id == placed.c.dataset_id)
            ),
        )

    # most rules are OK: then nobody looks at their locks
    state = case(
        (and_(rules.c.locks_stuck == 0, rules.c.locks_replicating == 0), LockState.OK.value),
        (has(LockState.STUCK), LockState.STUCK.value),
        (has(LockState.REPLICATING), LockState.REPLICATING.value),
        else_=LockState.OK.value,
    )
    length = (
        select(func.count())
        .select_from(held)
        .where(held.c.parent_id == placed.c.dataset_id)
        .scalar_subquery()
    )
    size = (
        select(func.coalesce(func.sum(file.c.bytes), 0))
        .select_from(held)
        .join(file, file.c.id == held.c.child_id)
        .where(held.c.parent_id == placed.c.dataset_id)
        .scalar_subquery()
    )
    return (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.id.label("rse_id"),
            rses.c.name.label("rse"),
            rules.c.uuid,
            accounts.c.name.label("account"),
            state.label("state"),
            length.label("length"),
            size.label("bytes"),
            dids.c.accessed_at,
            placed.c.created_at,
            rules.c.updated_at,
        )
        .select_from(placed)
        .join(rules, rules.c.id == placed.c.rule_id)
        .join(accounts, accounts.c.id == rules.c.account_id)
        .join(dids, dids.c.id == placed.c.dataset_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == placed.c.rse_id)
        .order_by(placed.c.rule_id, placed.c.dataset_id, placed.c.rse_id)
    )
