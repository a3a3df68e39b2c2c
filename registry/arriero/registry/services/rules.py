"""Replication rules: adding, finding and changing them. Doing them is the scheduler's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, RowMapping, literal
from sqlalchemy import select as sql_select
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.ports import Bell
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import rules
from arriero.registry.services import audit
from arriero.registry.services.account_limits import require_room
from arriero.registry.services.accounts import require_account
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_did, require_dids
from arriero.registry.services.rule_filters import filtered
from arriero.registry.services.rule_specs import RuleSpec, check_spec
from arriero.registry.states import RuleState
from arriero.registry.store import contents
from arriero.registry.store import dids as did_store
from arriero.registry.store import rules as store
from arriero.registry.store import subscriptions as subscription_store
from arriero.registry.store.evaluations import look_at_rules
from arriero.registry.store.rule_history import append_births
from arriero.registry.store.streaming import streamed

NOTIFICATIONS: Mapping[str, str] = {"N": "NO", "Y": "YES", "C": "CLOSE", "P": "PROGRESS"}
"""Rucio's letters for when the owner is told, and its words on the wire."""

MAX_DIDS = 1000
"""DIDs of one call that adds rules."""


def parse_rule_id(text: str) -> UUID:
    """Read a rule's id: 32 hexadecimal digits, with or without dashes.

    Raises
    ------
    NotFound
        Nothing could have it.
    """
    try:
        return UUID(text)
    except ValueError as error:
        raise rule_missing(text) from error


def rule_missing(text: str) -> NotFound:
    """Error for a rule that is not there."""
    return NotFound(f"there is no rule {text[:40]!a}", rucio_class="RuleNotFound")


def require_rule(connection: Connection, uuid: UUID, *, lock: bool = False) -> RowMapping:
    """Give a rule with the names of what it points at.

    Raises
    ------
    NotFound
        There is none.
    """
    row = store.rule_row(connection, uuid, lock=lock)
    if row is None:
        raise rule_missing(uuid.hex)
    return row


def add_rules(
    context: Context,
    actor: Actor,
    spec: RuleSpec,
    targets: Sequence[tuple[str, str]],
    *,
    rule_ids: Sequence[str] | None = None,
) -> list[UUID]:
    """Add a rule on each of some DIDs; all of them, or none. Evaluation follows by itself.

    Parameters
    ----------
    targets
        Pairs of scope and name.
    rule_ids
        Ids that the rules are to have, as a dry run gave them; None makes new ones.

    Returns
    -------
    list of UUID
        In the order of the DIDs.

    Raises
    ------
    NotFound
        A DID, the account or the subscription is not there.
    InvalidInput, InvalidExpression
        The rule cannot be meant.
    Conflict
        The account has that rule already, or there are too few RSEs that can be written to.
    """
    check_targets(targets)
    uuids = None if rule_ids is None else [parse_rule_id(text) for text in rule_ids]
    try:
        added = context.database.run(
            lambda connection: add_within(connection, actor, spec, targets, uuids=uuids)
        )
    except IntegrityError as error:
        raise added_meanwhile() from error
    context.doorbell.ring(Bell.EVALUATIONS)
    return added


def check_targets(targets: Sequence[tuple[str, str]]) -> None:
    """Verify that a rule can be added on so many DIDs in one call.

    Raises
    ------
    InvalidInput
        It cannot.
    """
    if not 1 <= len(targets) <= MAX_DIDS:
        raise InvalidInput(f"a rule is added on 1 to {MAX_DIDS} DIDs in one call")


def add_within(
    connection: Connection,
    actor: Actor,
    spec: RuleSpec,
    targets: Sequence[tuple[str, str]],
    *,
    uuids: Sequence[UUID] | None = None,
    needs_no_copy: bool = False,
) -> list[UUID]:
    """Do what `add_rules` does within a transaction that has begun; ring the bell after the commit.

    Parameters
    ----------
    needs_no_copy
        The rules will lie on what is there already: nothing is written to any RSE for them.
    """
    account = spec.account or actor.account
    first = f"{targets[0][0]}:{targets[0][1]}"
    authorize(actor, Action.RULE_ADD, Target(first, owner=account))
    account_id = require_account(connection, account)
    found = require_dids(connection, targets)
    check_spec(connection, replace(spec, ignore_availability=True) if needs_no_copy else spec)
    chosen = [found[target] for target in dict.fromkeys(targets)]
    # what is attached at the same moment waits here, or is seen by the evaluation
    did_store.lock_dids(connection, [row["id"] for row in chosen])
    _refuse_duplicates(connection, spec, account_id, chosen)
    added = _new_uuids(connection, len(chosen), uuids)
    if not needs_no_copy:
        require_room(connection, actor, account_id, spec, chosen)
    _insert(connection, spec, account_id, chosen, added)
    append_births(connection, added, account=actor.account)
    if not spec.ask_approval:
        new = sql_select(rules.c.id).where(rules.c.uuid.in_(added))
        look_at_rules(connection, new, delay_s=spec.delay_injection_s)
    audit.record(
        connection,
        actor,
        Action.RULE_ADD,
        first,
        rules=[uuid.hex for uuid in added],
        rse_expression=spec.rse_expression,
        copies=spec.copies,
    )
    return added


def _insert(
    connection: Connection,
    spec: RuleSpec,
    account_id: int,
    chosen: Sequence[RowMapping],
    uuids: Sequence[UUID],
) -> None:
    state = RuleState.WAITING_APPROVAL if spec.ask_approval else RuleState.INJECT
    values = {
        "account_id": account_id,
        "rse_expression": spec.rse_expression,
        "copies": spec.copies,
        "grouping": spec.grouping,
        "weight": spec.weight,
        "state": state,
        "activity": spec.activity,
        "priority": spec.priority,
        "source_replica_expression": spec.source_replica_expression,
        "locked": spec.locked,
        "purge_replicas": spec.purge_replicas,
        "ignore_availability": spec.ignore_availability,
        "ignore_account_limit": spec.ignore_account_limit,
        "notification": spec.notification,
        "comments": spec.comment,
        "meta": spec.meta,
        "subscription_id": _subscription_of(connection, spec, account_id),
        "expires_at": None if spec.lifetime_s is None else after(literal(spec.lifetime_s)),
    }
    keys = [(uuid, row["id"]) for uuid, row in zip(uuids, chosen, strict=True)]
    store.insert_rules(connection, values, keys)


def _refuse_duplicates(
    connection: Connection, spec: RuleSpec, account_id: int, chosen: Sequence[RowMapping]
) -> None:
    names = {row["id"]: f"{row['scope']}:{row['name']}" for row in chosen}
    for did_id in store.duplicates(connection, names, account_id, spec.rse_expression, spec.copies):
        raise duplicate_rule(spec.copies, spec.rse_expression, names[did_id])


def added_meanwhile() -> Conflict:
    """Error for a rule that another call has added at the same moment."""
    return Conflict(
        "the same rule, or one of that id, was added at this moment: see `arriero rule list`",
        rucio_class="DuplicateRule",
    )


def duplicate_rule(copies: int, expression: str, did: str) -> Conflict:
    """Error for a rule that is there already."""
    return Conflict(
        f"there is a rule for {copies} copies on {expression} of {did} for this account already",
        rucio_class="DuplicateRule",
    )


def _new_uuids(connection: Connection, count: int, wanted: Sequence[UUID] | None) -> list[UUID]:
    if wanted is None:
        return [uuid4() for _ in range(count)]
    if len(set(wanted)) != count:
        raise InvalidInput(f"rule_ids are {len(set(wanted))} different ids, and there are {count} DIDs")
    if taken := store.known_uuids(connection, wanted):
        raise Conflict(f"there is or was a rule {taken[0].hex}: ask for a new plan", code="rule_id_taken")
    return list(wanted)


def _subscription_of(connection: Connection, spec: RuleSpec, account_id: int) -> int | None:
    if spec.subscription is None:
        return None
    row = subscription_store.find_by_uuid(connection, spec.subscription)
    if row is None or row["account_id"] != account_id:
        raise NotFound(
            f"the account has no subscription {spec.subscription.hex}", rucio_class="SubscriptionNotFound"
        )
    return int(row["id"])


def get_rule(context: Context, rule_id: str) -> dict[str, Any]:
    """Describe a rule in Rucio's shape.

    Raises
    ------
    NotFound
        There is none.
    """
    uuid = parse_rule_id(rule_id)
    with context.database.snapshot() as connection:
        return wire_rule(require_rule(connection, uuid))


def wire_rule(row: RowMapping) -> dict[str, Any]:
    """Write a rule in Rucio's shape, with words for states."""
    child, subscription = row["child_uuid"], row["subscription_uuid"]
    return {
        "id": row["uuid"].hex,
        "account": row["account"],
        "scope": row["scope"],
        "name": row["name"],
        "did_type": row["did_type"],
        "bytes": row["did_bytes"],
        "rse_expression": row["rse_expression"],
        "copies": row["copies"],
        "grouping": row["grouping"],
        "weight": row["weight"],
        "state": row["state"],
        "error": row["reason"],
        "error_code": row["code"],
        "locks_ok_cnt": row["locks_ok"],
        "locks_replicating_cnt": row["locks_replicating"],
        "locks_stuck_cnt": row["locks_stuck"],
        "activity": row["activity"],
        "priority": row["priority"],
        "source_replica_expression": row["source_replica_expression"],
        "locked": row["locked"],
        "purge_replicas": row["purge_replicas"],
        "ignore_availability": row["ignore_availability"],
        "ignore_account_limit": row["ignore_account_limit"],
        "notification": NOTIFICATIONS.get(row["notification"], "NO"),
        "comments": row["comments"],
        "meta": row["meta"],
        "child_rule_id": None if child is None else child.hex,
        "subscription_id": None if subscription is None else subscription.hex,
        "split_container": False,
        "eol_at": None,
        "stuck_at": row["stuck_at"],
        "expires_at": row["expires_at"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def list_rules(context: Context, filters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """List rules, the oldest first.

    Parameters
    ----------
    filters
        See `arriero.registry.services.rule_filters.filtered`.

    Raises
    ------
    InvalidInput
        A filter that does not exist, or a value that it cannot have.
    NotFound
        There is no such account.
    """
    query = filtered(store.rule_query(), filters)
    with context.database.snapshot() as connection:
        if "account" in filters and "*" not in filters["account"]:
            require_account(connection, filters["account"])
        with streamed(connection, query) as rows:
            for row in rows:
                yield wire_rule(row)


def list_did_rules(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """List the rules on a DID itself.

    Raises
    ------
    NotFound
        There is no such DID.
    """
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        query = store.rule_query().where(rules.c.did_id == row["id"])
        with streamed(connection, query) as found:
            for rule in found:
                yield wire_rule(rule)


def list_associated_rules(context: Context, scope: str, name: str) -> Iterator[dict[str, Any]]:
    """List the rules that hold a file, on itself or on anything above it.

    Raises
    ------
    NotFound
        There is no such DID.
    """
    with context.database.snapshot() as connection:
        row = require_did(connection, scope, name)
        above = contents.ancestors([row["id"]])
        query = store.rule_query().where(rules.c.did_id.in_(sql_select(above.c.id)))
        with streamed(connection, query) as found:
            for rule in found:
                yield wire_rule(rule)
