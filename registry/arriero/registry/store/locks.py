"""Locks in the database: what a rule holds, and which placements there are."""

from typing import Any

from sqlalchemy import Select, and_, case, exists, select

from arriero.registry.schema.tables import accounts, contents, dataset_locks, dids, locks, rses, rules, scopes
from arriero.registry.states import LockState


def locks_of(rule_id: int) -> Select[Any]:
    """Query for the locks of a rule, in the order of the files."""
    return (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.id.label("rse_id"),
            rses.c.name.label("rse"),
            locks.c.state,
            locks.c.code,
            locks.c.reason,
        )
        .join(dids, dids.c.id == locks.c.file_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == locks.c.rse_id)
        .where(locks.c.rule_id == rule_id)
        .order_by(locks.c.file_id, locks.c.rse_id)
    )


def dataset_locks_of(group_ids: list[int] | None = None, rse: str | None = None) -> Select[Any]:
    """Query for the placements of groups of files, with the worst state of the locks in each.

    Parameters
    ----------
    group_ids
        Only of these datasets or containers; None for all.
    rse
        Only at this RSE; None for all.
    """

    def has(state: LockState) -> Any:
        return exists().where(
            and_(
                locks.c.rule_id == dataset_locks.c.rule_id,
                locks.c.rse_id == dataset_locks.c.rse_id,
                locks.c.state == state,
                locks.c.file_id.in_(
                    select(contents.c.child_id).where(contents.c.parent_id == dataset_locks.c.group_id)
                ),
            )
        )

    state = case(
        (has(LockState.STUCK), LockState.STUCK.value),
        (has(LockState.REPLICATING), LockState.REPLICATING.value),
        else_=LockState.OK.value,
    )
    query = (
        select(
            scopes.c.name.label("scope"),
            dids.c.name,
            rses.c.id.label("rse_id"),
            rses.c.name.label("rse"),
            rules.c.uuid,
            accounts.c.name.label("account"),
            state.label("state"),
            dataset_locks.c.created_at,
        )
        .join(rules, rules.c.id == dataset_locks.c.rule_id)
        .join(accounts, accounts.c.id == rules.c.account_id)
        .join(dids, dids.c.id == dataset_locks.c.group_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(rses, rses.c.id == dataset_locks.c.rse_id)
        .order_by(dataset_locks.c.rule_id, dataset_locks.c.group_id, dataset_locks.c.rse_id)
    )
    if group_ids is not None:
        query = query.where(dataset_locks.c.group_id.in_(group_ids))
    return query if rse is None else query.where(rses.c.name == rse)
