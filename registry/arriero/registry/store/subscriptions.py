"""Subscriptions in the database, and the rules that came from them."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping, Select, func, insert, select, update

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import accounts, rules, subscriptions
from arriero.registry.states import SubscriptionState
from arriero.registry.store.subscription_items import LIVE


def subscription_query(account: str | None = None, name: str | None = None) -> Select[Any]:
    """Query for subscriptions with the names of their accounts, in the order of their ids.

    Parameters
    ----------
    account, name
        Only of this account, only of this name; None for all.
    """
    query = (
        select(subscriptions, accounts.c.name.label("account"))
        .join(accounts, accounts.c.id == subscriptions.c.account_id)
        .order_by(subscriptions.c.id)
    )
    if account is not None:
        query = query.where(accounts.c.name == account)
    return query if name is None else query.where(subscriptions.c.name == name)


def lock_account(connection: Connection, account_id: int) -> None:
    """Have others that add a subscription to the account wait."""
    query = select(accounts.c.id).where(accounts.c.id == account_id).with_for_update(key_share=True)
    connection.execute(query).all()


def find(connection: Connection, account: str, name: str, *, lock: bool = False) -> RowMapping | None:
    """One subscription, None when there is none."""
    query = subscription_query(account, name)
    if lock:
        query = query.with_for_update(of=subscriptions)
    return connection.execute(query).mappings().one_or_none()


def find_by_uuid(connection: Connection, uuid: UUID) -> RowMapping | None:
    """One subscription, None when there is none."""
    return (
        connection.execute(subscription_query().where(subscriptions.c.uuid == uuid)).mappings().one_or_none()
    )


def insert_subscription(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a subscription and give its id."""
    added = insert(subscriptions).values(**values).returning(subscriptions.c.id)
    return int(connection.execute(added).scalar_one())


def update_subscription(connection: Connection, subscription_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a subscription."""
    connection.execute(update(subscriptions).where(subscriptions.c.id == subscription_id).values(**values))


def end_expired(connection: Connection) -> list[int]:
    """Put the subscriptions to rest whose lifetime is over, and give their ids."""
    over = select(subscriptions.c.id).where(
        subscriptions.c.state.in_(LIVE), subscriptions.c.expires_at <= select(now()).scalar_subquery()
    )
    ended = list(connection.scalars(over.order_by(subscriptions.c.id).with_for_update()))
    if ended:
        connection.execute(
            update(subscriptions)
            .where(subscriptions.c.id.in_(ended))
            .values(state=SubscriptionState.INACTIVE, code="expired", reason="its lifetime is over")
        )
    return ended


def rule_states(account: str, name: str | None) -> Select[Any]:
    """Query for how many rules of each subscription are in each state; one without rules has a row without a state."""
    query = (
        select(
            accounts.c.name.label("account"),
            subscriptions.c.name,
            rules.c.state,
            func.count(rules.c.id).label("count"),
            subscriptions.c.state.label("subscription_state"),
            subscriptions.c.last_processed,
            subscriptions.c.expires_at,
            subscriptions.c.comments,
        )
        .select_from(subscriptions)
        .join(accounts, accounts.c.id == subscriptions.c.account_id)
        .outerjoin(rules, rules.c.subscription_id == subscriptions.c.id)
        .where(accounts.c.name == account)
        .group_by(accounts.c.name, subscriptions.c.id, rules.c.state)
        .order_by(subscriptions.c.id, rules.c.state)
    )
    return query if name is None else query.where(subscriptions.c.name == name)
