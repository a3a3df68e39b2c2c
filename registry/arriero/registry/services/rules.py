"""Replication rules: adding, finding and changing them. Doing them is the scheduler's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, RowMapping
from sqlalchemy import select as sql_select
from sqlalchemy.sql import Select

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.ports import Bell
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import accounts, dids, rules, scopes
from arriero.registry.services import audit
from arriero.registry.services.accounts import require_account
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_did, require_dids
from arriero.registry.services.rule_specs import RuleSpec, check_copies, check_spec
from arriero.registry.states import (
    GROUPING_LETTERS,
    RULE_LETTERS,
    DidType,
    RuleGrouping,
    RuleState,
)
from arriero.registry.store import contents
from arriero.registry.store import dids as did_store
from arriero.registry.store import rules as store
from arriero.registry.store.evaluations import raise_evaluations
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
    context: Context, actor: Actor, spec: RuleSpec, targets: Sequence[tuple[str, str]]
) -> list[UUID]:
    """Add a rule on each of some DIDs; all of them, or none. Evaluation follows by itself.

    Parameters
    ----------
    targets
        Pairs of scope and name.

    Returns
    -------
    list of UUID
        In the order of the DIDs.

    Raises
    ------
    NotFound
        A DID or the account is not there.
    InvalidInput, InvalidExpression
        The rule cannot be meant.
    Conflict
        The account has that rule already, or there are too few RSEs that can be written to.
    """
    if not 1 <= len(targets) <= MAX_DIDS:
        raise InvalidInput(f"a rule is added on 1 to {MAX_DIDS} DIDs in one call")
    uuids = context.database.run(lambda connection: add_within(connection, actor, spec, targets))
    context.doorbell.ring(Bell.EVALUATIONS)
    return uuids


def add_within(
    connection: Connection, actor: Actor, spec: RuleSpec, targets: Sequence[tuple[str, str]]
) -> list[UUID]:
    """Do what `add_rules` does within a transaction that has begun; ring the bell after the commit."""
    account = spec.account or actor.account
    first = f"{targets[0][0]}:{targets[0][1]}"
    authorize(actor, Action.RULE_ADD, Target(first, owner=account))
    account_id = require_account(connection, account)
    found = require_dids(connection, targets)
    check_spec(connection, spec)
    # what is attached at the same moment waits here, or is seen by the evaluation
    did_store.lock_dids(connection, [row["id"] for row in found.values()])
    uuids = [_insert(connection, actor, spec, account_id, found[target]) for target in dict.fromkeys(targets)]
    if not spec.ask_approval:
        new = sql_select(rules.c.id).where(rules.c.uuid.in_(uuids))
        raise_evaluations(connection, new, delay_s=spec.delay_injection_s)
    audit.record(
        connection,
        actor,
        Action.RULE_ADD,
        first,
        rules=[uuid.hex for uuid in uuids],
        rse_expression=spec.rse_expression,
        copies=spec.copies,
    )
    return uuids


def _insert(connection: Connection, actor: Actor, spec: RuleSpec, account_id: int, did: RowMapping) -> UUID:
    if store.rule_exists(connection, did["id"], account_id, spec.rse_expression, spec.copies):
        raise Conflict(
            f"there is a rule for {spec.copies} copies on {spec.rse_expression} of {did['scope']}:{did['name']} "
            "for this account already",
            rucio_class="DuplicateRule",
        )
    uuid = uuid4()
    state = RuleState.WAITING_APPROVAL if spec.ask_approval else RuleState.INJECT
    store.insert_rule(
        connection,
        {
            "uuid": uuid,
            "did_id": did["id"],
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
            "expires_at": None if spec.lifetime_s is None else after(spec.lifetime_s),
        },
    )
    store.append_history(connection, uuid, account=actor.account, from_state=None, to_state=state)
    return uuid


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
    child = row["child_uuid"]
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
        "subscription_id": None,
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
        Any of ``account``, ``scope``, ``name``, ``state``, ``rse_expression``, ``activity``, ``did_type``,
        ``grouping`` and ``copies``; states as words or Rucio's letters.

    Raises
    ------
    InvalidInput
        A filter that does not exist, or a value that it cannot have.
    NotFound
        There is no such account.
    """
    query = _filtered(store.rule_query(), filters)
    with context.database.snapshot() as connection:
        if "account" in filters:
            require_account(connection, filters["account"])
        with streamed(connection, query) as rows:
            for row in rows:
                yield wire_rule(row)


def _filtered(query: Select[Any], filters: Mapping[str, str]) -> Select[Any]:
    columns = {
        "account": accounts.c.name,
        "scope": scopes.c.name,
        "name": dids.c.name,
        "state": rules.c.state,
        "rse_expression": rules.c.rse_expression,
        "activity": rules.c.activity,
        "did_type": dids.c.type,
        "grouping": rules.c.grouping,
        "copies": rules.c.copies,
    }
    for key, text in filters.items():
        if key not in columns:
            raise InvalidInput(f"rules cannot be filtered by {key[:80]!a}; they can by {', '.join(columns)}")
        query = query.where(columns[key] == _filter_value(key, text))
    return query


def _filter_value(key: str, text: str) -> Any:
    try:
        if key == "state":
            letters = {letter: state for state, letter in RULE_LETTERS.items()}
            return letters.get(text) or RuleState(text.upper())
        if key == "grouping":
            return parse_grouping(text)
        if key == "did_type":
            return DidType(text.upper())
        return check_copies(int(text)) if key == "copies" else text
    except ValueError as error:
        raise InvalidInput(f"{key} cannot be {text[:40]!a}") from error


def parse_grouping(text: str | None) -> RuleGrouping:
    """Read a grouping: a word, or Rucio's letter; DATASET by default.

    Raises
    ------
    ValueError
        It is neither.
    """
    if text is None:
        return RuleGrouping.DATASET
    letters = {letter: grouping for grouping, letter in GROUPING_LETTERS.items()}
    return letters.get(text) or RuleGrouping(text.upper())


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
