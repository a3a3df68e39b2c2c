"""Rules that have had no success for long: found and SUSPENDED by sets."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, RowMapping, cast, exists, func, insert, literal, or_, select, update
from sqlalchemy import String as Text

from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import (
    accounts,
    dids,
    locks,
    rule_history,
    rules,
    scopes,
    unplaced_groups,
)
from arriero.registry.states import LockState, RuleState
from arriero.registry.store.losses import LOST


def hold_fruitless(connection: Connection, *, since_s: float, limit: int) -> Sequence[RowMapping]:
    """Hold rules that are STUCK and of which nothing has succeeded for so long, the oldest first.

    One that waits for nothing but lost files is not among them: nothing of it is tried, and what settles it comes from
    outside. Rules that somebody else is changing are passed over.

    Returns
    -------
    rows
        ``id``, ``uuid``, ``scope``, ``name``, ``account``, ``rse_expression``, ``reason``.
    """
    tried = exists().where(
        locks.c.rule_id == rules.c.id,
        locks.c.state == LockState.STUCK,
        func.coalesce(locks.c.code, "") != LOST,
    )
    unplaced = exists().where(unplaced_groups.c.rule_id == rules.c.id)
    query = (
        select(
            rules.c.id,
            rules.c.uuid,
            scopes.c.name.label("scope"),
            dids.c.name,
            accounts.c.name.label("account"),
            rules.c.rse_expression,
            rules.c.reason,
        )
        .join(dids, dids.c.id == rules.c.did_id)
        .join(scopes, scopes.c.id == dids.c.scope_id)
        .join(accounts, accounts.c.id == rules.c.account_id)
        .where(
            rules.c.state == RuleState.STUCK,
            rules.c.stuck_since <= after(literal(-since_s)),
            or_(tried, unplaced, rules.c.locks_stuck == 0),
        )
        .order_by(rules.c.id)
        .limit(limit)
        .with_for_update(of=rules, skip_locked=True)
    )
    return connection.execute(query).mappings().all()


def suspend(connection: Connection, rule_ids: Collection[int], *, code: str, said: str) -> None:
    """Have rules that are held be SUSPENDED, with history; what was in their way stays said.

    Parameters
    ----------
    said
        Begins the reason of each.
    """
    reason = func.substr(said + ": " + func.coalesce(rules.c.reason, "no reason is known"), 1, 1000)
    chosen = rules.c.id.in_(rule_ids)
    past = select(
        rules.c.uuid,
        now(),
        cast(rules.c.state, Text),
        literal(RuleState.SUSPENDED.value),
        literal(code),
        reason,
    ).where(chosen)
    columns = ["rule_uuid", "at", "from_state", "to_state", "code", "reason"]
    connection.execute(insert(rule_history).from_select(columns, past, include_defaults=False))
    connection.execute(
        update(rules)
        .where(chosen)
        .values(
            state=RuleState.SUSPENDED,
            code=code,
            reason=reason,
            stuck_at=None,
            updated_at=now(),
        )
    )
