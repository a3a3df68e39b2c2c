"""Subscriptions: standing wishes for data that is to come. Kept and listed here, never applied."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import orjson
from sqlalchemy import Connection, RowMapping, literal

from arriero.registry.errors import Conflict, NotFound
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import rules
from arriero.registry.services import audit
from arriero.registry.services.accounts import require_account
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rules import wire_rule
from arriero.registry.services.subscription_specs import check_filter, check_name, check_templates, refused
from arriero.registry.states import SUBSCRIPTION_LETTERS, SubscriptionState
from arriero.registry.store import rules as rule_store
from arriero.registry.store import subscriptions as store
from arriero.registry.store.streaming import streamed

MAX_COMMENT_CHARACTERS = 4000
MAX_LIFETIME_DAYS = 36_500
PRIORITIES = range(10)
"""Lower goes first."""

_KEYS = frozenset(
    {
        "filter",
        "replication_rules",
        "comments",
        "lifetime",
        "retroactive",
        "dry_run",
        "priority",
        "state",
    }
)


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
        or false for ever), ``retroactive``, ``dry_run``, ``priority`` (0 to 9, lower goes first; 3).

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
        values = _values(connection, {"filter": None, "replication_rules": None, **options}, is_new=True)
        store.lock_account(connection, account_id)
        if store.find(connection, account, name) is not None:
            raise Conflict(
                f"account {account} has a subscription {name} already: update it, or choose another name",
                rucio_class="SubscriptionDuplicate",
            )
        store.insert_subscription(
            connection, {"uuid": uuid, "name": name, "account_id": account_id, **values}
        )
        audit.record(
            connection, actor, Action.SUBSCRIPTION_ADD, f"{account}/{name}", id=uuid.hex, **_said(options)
        )

    context.database.run(work)
    return uuid


def update_subscription(
    context: Context, actor: Actor, account: str, name: str, options: Mapping[str, Any]
) -> None:
    """Change a subscription; what it was is kept in the audit.

    Parameters
    ----------
    options
        As of `add_subscription`, and ``state`` (ACTIVE or INACTIVE). What is None stays as it is; ``lifetime`` false is
        for ever.

    Raises
    ------
    NotFound
        There is none of that name.
    InvalidInput, InvalidExpression
        Names the key that is wrong; nothing has changed.
    """

    def work(connection: Connection) -> None:
        authorize(actor, Action.SUBSCRIPTION_UPDATE, Target(f"{account}/{name}", owner=account))
        row = store.find(connection, account, name, lock=True)
        if row is None:
            raise _missing(account, name)
        given = {key: value for key, value in options.items() if value is not None}
        values = _values(connection, given, is_new=False)
        if values:
            store.update_subscription(connection, row["id"], values)
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


def _values(connection: Connection, options: Mapping[str, Any], *, is_new: bool) -> dict[str, Any]:
    unknown = sorted(set(options) - _KEYS)
    if unknown:
        raise refused(unknown[0][:64], f"unknown; the options are {', '.join(sorted(_KEYS))}")
    values: dict[str, Any] = {}
    if "filter" in options:
        values["filter"] = check_filter(options["filter"])
    if "replication_rules" in options:
        values["replication_rules"] = check_templates(connection, options["replication_rules"])
    if options.get("lifetime") is not None:
        values["expires_at"] = _expiry(options["lifetime"])
    for key, check in _PLAIN.items():
        if options.get(key) is not None:
            values[key] = check(key, options[key])
    if options.get("state") is not None:
        if is_new:
            raise refused("state", "a new subscription is ACTIVE")
        values |= {"state": _state(options["state"]), "code": None, "reason": None}
    return values


def _expiry(lifetime: object) -> Any:
    if lifetime is False:
        return None
    is_number = isinstance(lifetime, (int, float)) and not isinstance(lifetime, bool)
    if not is_number or not 0 <= float(str(lifetime)) <= MAX_LIFETIME_DAYS:
        raise refused("lifetime", f"a number of days from 0 to {MAX_LIFETIME_DAYS}, or false for ever")
    return after(literal(float(str(lifetime)) * 86_400))


def _comments(key: str, given: object) -> str:
    if not isinstance(given, str) or len(given) > MAX_COMMENT_CHARACTERS:
        raise refused(key, f"a text of at most {MAX_COMMENT_CHARACTERS} characters")
    return given


def _yes_or_no(key: str, given: object) -> bool:
    if not isinstance(given, bool):
        raise refused(key, "true or false")
    return given


def _priority(key: str, given: object) -> int:
    # the official command line sends its option as it was typed
    number = int(given) if isinstance(given, str) and given.isascii() and given.isdigit() else given
    if isinstance(number, bool) or not isinstance(number, int) or number not in PRIORITIES:
        raise refused(key, f"a whole number from 0 to {PRIORITIES[-1]}, lower goes first")
    return number


_PLAIN: Mapping[str, Callable[[str, object], Any]] = {
    "comments": _comments,
    "retroactive": _yes_or_no,
    "dry_run": _yes_or_no,
    "priority": _priority,
}


def _state(given: object) -> SubscriptionState:
    letters = {letter: state for state, letter in SUBSCRIPTION_LETTERS.items()}
    word = str(given).upper()
    state = letters.get(word) or SubscriptionState.__members__.get(word)
    if state not in (SubscriptionState.ACTIVE, SubscriptionState.INACTIVE):
        raise refused("state", "ACTIVE or INACTIVE")
    return state


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
        row = store.find(connection, account, name)
        if row is None:
            raise _missing(account, name)
        query = rule_store.rule_query().where(rules.c.subscription_id == row["id"])
        with streamed(connection, query) as found:
            for rule in found:
                yield wire_rule(rule)


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
        if name is not None and store.find(connection, account, name) is None:
            raise _missing(account, name)
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
