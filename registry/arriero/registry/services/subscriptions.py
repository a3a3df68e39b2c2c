"""Subscriptions: standing wishes for data that is to come. Kept and listed here; the scheduler applies them.

What is written here tells the scheduler where to look: a subscription that becomes active, or whose filter changes, waits
for whoever is changing DIDs at this moment, so that no DID falls between the past and what is noted.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import orjson
from sqlalchemy import Connection, RowMapping

from arriero.registry.errors import Conflict, NotFound
from arriero.registry.ports import Bell
from arriero.registry.schema.tables import rules
from arriero.registry.services import audit
from arriero.registry.services.accounts import require_account
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rules import wire_rule
from arriero.registry.services.subscription_options import checked_options
from arriero.registry.services.subscription_specs import check_name
from arriero.registry.states import SubscriptionState
from arriero.registry.store import rules as rule_store
from arriero.registry.store import subscription_items as items
from arriero.registry.store import subscriptions as store
from arriero.registry.store.streaming import streamed


def add_subscription(
    context: Context, actor: Actor, account: str, name: str, options: Mapping[str, Any]
) -> UUID:
    """Add a subscription.

    Parameters
    ----------
    account
        Whose it is, and whose rules it makes.
    options
        Rucio's: ``filter`` and ``replication_rules`` (see `subscription_specs`), ``comments``, ``lifetime`` (days; none
        or false for ever), ``retroactive`` (every DID that there is is looked at once), ``dry_run`` (an event tells what
        would be done, and nothing is), ``priority`` (0 to 9, lower goes first; 3).

    Raises
    ------
    NotFound
        There is no such account.
    InvalidInput, InvalidExpression
        Names the key that is wrong.
    Conflict
        The account has one of that name.
    """
    uuid = uuid4()

    def work(connection: Connection) -> None:
        authorize(actor, Action.SUBSCRIPTION_ADD, Target(f"{account}/{name}", owner=account))
        account_id = require_account(connection, account)
        check_name(name)
        values = checked_options(
            connection, {"filter": None, "replication_rules": None, **options}, is_new=True
        )
        items.wait_for_registrations(connection)
        store.lock_account(connection, account_id)
        if store.find(connection, account, name) is not None:
            raise Conflict(
                f"account {account} has a subscription {name} already: update it, or choose another name",
                rucio_class="SubscriptionDuplicate",
            )
        added = store.insert_subscription(
            connection, {"uuid": uuid, "name": name, "account_id": account_id, **values}
        )
        if values.get("retroactive"):
            items.note_past(connection, added)
        audit.record(
            connection, actor, Action.SUBSCRIPTION_ADD, f"{account}/{name}", id=uuid.hex, **_said(options)
        )

    context.database.run(work)
    if options.get("retroactive"):
        context.doorbell.ring(Bell.SUBSCRIPTIONS)
    return uuid


def update_subscription(
    context: Context, actor: Actor, account: str, name: str, options: Mapping[str, Any]
) -> None:
    """Change a subscription; what it was is kept in the audit.

    Parameters
    ----------
    options
        As of `add_subscription`, and ``state`` (ACTIVE or INACTIVE). What is None stays as it is; ``lifetime`` false is
        for ever; ``retroactive`` true has the past looked at again, from its beginning. What waits for one that becomes
        INACTIVE is forgotten.

    Raises
    ------
    NotFound
        There is none of that name.
    InvalidInput, InvalidExpression
        Names the key that is wrong; nothing has changed.
    """

    def work(connection: Connection) -> None:
        authorize(actor, Action.SUBSCRIPTION_UPDATE, Target(f"{account}/{name}", owner=account))
        given = {key: value for key, value in options.items() if value is not None}
        if _WIDENING & given.keys():
            items.wait_for_registrations(connection)
        row = _required(connection, account, name, lock=True)
        values = checked_options(connection, given, is_new=False)
        if row["state"] is SubscriptionState.BROKEN and _SPEC & values.keys():
            # corrected, as far as anybody can tell
            values = {"state": SubscriptionState.ACTIVE, "code": None, "reason": None, **values}
        if values:
            store.update_subscription(connection, row["id"], values)
        _tell(connection, row["id"], values.get("state", row["state"]), values)
        before = {key: row[_COLUMNS[key]] for key in given if key in _COLUMNS}
        audit.record(
            connection,
            actor,
            Action.SUBSCRIPTION_UPDATE,
            f"{account}/{name}",
            before=before,
            after=_said(given),
        )

    context.database.run(work)
    context.doorbell.ring(Bell.SUBSCRIPTIONS)


_SPEC = frozenset({"filter", "replication_rules"})
_WIDENING = frozenset({"filter", "state", "retroactive"})
"""Options that may have DIDs looked at which nobody looks at now."""


def _tell(
    connection: Connection, subscription_id: int, state: SubscriptionState, values: Mapping[str, Any]
) -> None:
    """Have the queue follow a change."""
    if state is SubscriptionState.INACTIVE:
        items.forget(connection, subscription_id)
        return
    items.wake(connection, subscription_id)
    if values.get("retroactive"):
        items.note_past(connection, subscription_id)


def end_subscriptions(context: Context) -> int:
    """Put the subscriptions to rest whose lifetime is over; give how many."""

    def work(connection: Connection) -> int:
        ended = store.end_expired(connection)
        for subscription_id in ended:
            items.forget(connection, subscription_id)
        return len(ended)

    return context.database.run(work)


_COLUMNS = {
    "filter": "filter",
    "replication_rules": "replication_rules",
    "comments": "comments",
    "retroactive": "retroactive",
    "dry_run": "dry_run",
    "priority": "priority",
    "state": "state",
}


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _missing(account: str | None, name: str) -> NotFound:
    who = "nobody has a" if account is None else f"account {account[:40]} has no"
    return NotFound(f"{who} subscription {name[:80]!a}", rucio_class="SubscriptionNotFound")


def _required(connection: Connection, account: str, name: str, *, lock: bool = False) -> RowMapping:
    row = store.find(connection, account, name, lock=lock)
    if row is None:
        raise _missing(account, name)
    return row


def list_subscriptions(
    context: Context, *, account: str | None = None, name: str | None = None
) -> Iterator[dict[str, Any]]:
    """List subscriptions, the oldest first.

    Raises
    ------
    NotFound
        None is there, of an account or of a name that was asked for.
    """
    with context.database.snapshot() as connection:
        if account is not None:
            require_account(connection, account)
        query = store.subscription_query(account, name)
        if name is not None and connection.execute(query.limit(1)).first() is None:
            raise _missing(account, name)
        with streamed(connection, query) as rows:
            for row in rows:
                yield _wire(row)


def get_subscription(context: Context, text: str) -> dict[str, Any]:
    """Describe a subscription by its id.

    Raises
    ------
    NotFound
        There is none.
    """
    missing = NotFound(f"there is no subscription {text[:40]!a}", rucio_class="SubscriptionNotFound")
    try:
        uuid = UUID(text)
    except ValueError as error:
        raise missing from error
    with context.database.snapshot() as connection:
        row = store.find_by_uuid(connection, uuid)
    if row is None:
        raise missing
    return _wire(row)


def _wire(row: RowMapping) -> dict[str, Any]:
    return {
        "id": row["uuid"].hex,
        "name": row["name"],
        "account": row["account"],
        # as Rucio has them: JSON in a text
        "filter": orjson.dumps(row["filter"]).decode(),
        "replication_rules": orjson.dumps(row["replication_rules"]).decode(),
        "policyid": row["priority"],
        "state": row["state"],
        "error_code": row["code"],
        "error": row["reason"],
        "retroactive": row["retroactive"],
        "dry_run": row["dry_run"],
        "comments": row["comments"],
        "last_processed": row["last_processed"],
        "lifetime": row["expires_at"],
        "expired_at": row["expires_at"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def list_subscription_rules(context: Context, account: str, name: str) -> Iterator[dict[str, Any]]:
    """List the rules that came from a subscription.

    Raises
    ------
    NotFound
        There is no such subscription.
    """
    with context.database.snapshot() as connection:
        row = _required(connection, account, name)
        query = rule_store.rule_query().where(rules.c.subscription_id == row["id"])
        with streamed(connection, query) as found:
            for rule in found:
                yield wire_rule(rule)


def list_waiting(context: Context, account: str, name: str) -> Iterator[dict[str, Any]]:
    """List what waits for a subscription: DIDs that it could not be applied to, and how far it is with the past.

    Raises
    ------
    NotFound
        There is no such subscription.
    """
    with context.database.snapshot() as connection:
        row = _required(connection, account, name)
        with streamed(connection, items.waiting(row["id"])) as found:
            for one in found:
                is_one = one["first_did_id"] == one["last_did_id"]
                yield {
                    "scope": one["scope"],
                    "name": one["name"],
                    "remaining_dids": None if is_one else one["last_did_id"] - one["first_did_id"] + 1,
                    "attempt": one["attempt"],
                    "not_before": one["not_before"],
                    "code": one["code"],
                    "reason": one["reason"],
                    "created_at": one["created_at"],
                }


def list_rule_states(
    context: Context, account: str, name: str | None, *, details: bool = False
) -> Iterator[dict[str, Any]]:
    """List how many rules of each subscription are in each state.

    Parameters
    ----------
    name
        Only of this one; None for all of the account.
    details
        With the subscription's own state, times and comments; one that has no rules is listed too.

    Raises
    ------
    NotFound
        There is no such account or subscription.
    """
    with context.database.snapshot() as connection:
        require_account(connection, account)
        if name is not None:
            _required(connection, account, name)
        for row in connection.execute(store.rule_states(account, name)).mappings():
            if row["state"] is None and not details:
                continue
            counted = {key: row[key] for key in ("account", "name", "state", "count")}
            yield (
                counted
                if not details
                else {
                    **counted,
                    "subscription_state": row["subscription_state"],
                    "last_processed": row["last_processed"],
                    "lifetime": row["expires_at"],
                    "expired_at": row["expires_at"],
                    "comments": row["comments"],
                }
            )
