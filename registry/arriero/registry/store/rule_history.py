"""The history of rules: every change with who, when and why, and what a rule was when it came to be and when it went."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, case, insert, literal, null, or_, select

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import accounts, rule_history, rules, subscriptions
from arriero.registry.states import RuleState

_COLUMNS = (
    "at",
    "rule_uuid",
    "account",
    "from_state",
    "to_state",
    "code",
    "reason",
    "did_id",
    "owner",
    "rse_expression",
    "locks_ok",
    "locks_replicating",
    "locks_stuck",
    "rule_created_at",
)


def append_history(
    connection: Connection,
    uuid: UUID,
    *,
    account: str | None,
    from_state: RuleState | None,
    to_state: RuleState | None,
    code: str | None = None,
    reason: str | None = None,
) -> None:
    """Append a change of a rule: who, from what, to what, why."""
    connection.execute(
        insert(rule_history).values(
            rule_uuid=uuid,
            account=account,
            from_state=from_state,
            to_state=to_state,
            code=code,
            reason=reason,
        )
    )


def append_births(connection: Connection, uuids: Collection[UUID], *, account: str) -> None:
    """Append that rules have come to be, in one statement."""
    by_subscription = literal("added by subscription ") + subscriptions.c.name
    how = case((subscriptions.c.id.is_(None), literal("added")), else_=by_subscription)
    waits = rules.c.state == RuleState.WAITING_APPROVAL
    reason = case((waits, how + literal("; it waits for approval")), else_=how)
    _append(connection, rules.c.uuid.in_(uuids), account, (null(), rules.c.state), ("added", reason))


def append_end(connection: Connection, rule_id: int, *, account: str | None, reason: str) -> None:
    """Append that a rule goes, while its row is there."""
    _append(connection, rules.c.id == rule_id, account, (rules.c.state, null()), ("removed", literal(reason)))


def _append(
    connection: Connection,
    which: ColumnElement[bool],
    account: str | None,
    states: tuple[Any, Any],
    why: tuple[str, ColumnElement[str]],
) -> None:
    code, reason = why
    described = (
        select(
            now(),
            rules.c.uuid,
            literal(account, rule_history.c.account.type),
            *states,
            literal(code, rule_history.c.code.type),
            reason,
            rules.c.did_id,
            accounts.c.name,
            rules.c.rse_expression,
            rules.c.locks_ok,
            rules.c.locks_replicating,
            rules.c.locks_stuck,
            rules.c.created_at,
        )
        .join(accounts, accounts.c.id == rules.c.account_id)
        .outerjoin(subscriptions, subscriptions.c.id == rules.c.subscription_id)
        .where(which)
        .order_by(rules.c.id)
    )
    connection.execute(insert(rule_history).from_select(list(_COLUMNS), described))


def changes_of(uuid: UUID) -> Select[Any]:
    """Query for everything that happened to a rule, the oldest first."""
    return select(rule_history).where(rule_history.c.rule_uuid == uuid).order_by(rule_history.c.id)


def lives_of(did_id: int) -> Select[Any]:
    """Query for when rules on a DID came to be and when they went, the oldest first."""
    return (
        select(rule_history)
        .where(
            rule_history.c.did_id == did_id,
            or_(rule_history.c.from_state.is_(None), rule_history.c.to_state.is_(None)),
        )
        .order_by(rule_history.c.id)
    )
