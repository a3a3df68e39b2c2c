"""Changing rules that are there: their life, their owner, their place in the queue, suspending and resuming.

Nothing is changed when one of the options cannot be.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, literal
from sqlalchemy.exc import IntegrityError

from arriero.registry.errors import Conflict, InvalidInput, Unsupported
from arriero.registry.ports import Bell
from arriero.registry.schema.base import after, now
from arriero.registry.services import audit
from arriero.registry.services.account_limits import require_room
from arriero.registry.services.accounts import require_account
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.lookups import require_did
from arriero.registry.services.rule_filters import parse_state
from arriero.registry.services.rule_moves import check_child, spec_of
from arriero.registry.services.rule_specs import (
    MAX_LIFETIME_S,
    check_activity,
    check_comment,
    check_meta,
    check_priority,
    check_sources,
)
from arriero.registry.services.rules import added_meanwhile, duplicate_rule, parse_rule_id, require_rule
from arriero.registry.states import RESTING, RuleState
from arriero.registry.store import rule_work as work_store
from arriero.registry.store import rules as store
from arriero.registry.store.evaluations import look_at_rules, look_at_stuck
from arriero.registry.store.rses import load_rses
from arriero.registry.store.rule_history import append_history

BY_HAND = "by_hand"
"""Code of a rule whose state somebody has set."""

CANCELLED_REST_S = 3600.0
"""How long a rule rests whose copies were taken back, seconds; a boost has it go on at once."""

_CHANGES = frozenset(
    {
        "account",
        "activity",
        "boost_rule",
        "cancel_requests",
        "child_rule_id",
        "comment",
        "comments",
        "lifetime",
        "locked",
        "meta",
        "priority",
        "purge_replicas",
        "source_replica_expression",
        "state",
    }
)


def update_rule(context: Context, actor: Actor, rule_id: str, options: Mapping[str, Any]) -> None:
    """Change a rule.

    Parameters
    ----------
    options
        Rucio's: ``lifetime`` (seconds from now, below 0 is in the past; null for never), ``locked``, ``comment``,
        ``meta``, ``priority``, ``activity``, ``purge_replicas``, ``source_replica_expression``, ``account``,
        ``child_rule_id``, ``boost_rule`` (try at once what is STUCK), and ``state``: SUSPENDED, or STUCK (have it
        looked at at once), each with ``cancel_requests`` (take back what has not begun), or INJECT (go on).

    Raises
    ------
    NotFound
        There is no such rule, account or child.
    InvalidInput
        An option that does not exist, or a value that it cannot have.
    Conflict
        The rule is not in a state for this.
    Unsupported
        Rucio has the option and Arriero not.
    """
    uuid = parse_rule_id(rule_id)
    if "eol_at" in options:
        raise Unsupported("eol_at, of Rucio's lifetime model, is not in Arriero: give the rule a lifetime")
    unknown = sorted(set(options) - _CHANGES)
    if unknown:
        raise InvalidInput(
            f"{', '.join(unknown)[:200]!a}: no option of a rule; they are {', '.join(sorted(_CHANGES))}",
            rucio_class="UnsupportedOperation",
        )

    def work(connection: Connection) -> None:
        if options.get("child_rule_id") is not None:
            # both at once, in order: who links the two the other way round waits
            work_store.lock_rules(connection, [uuid, parse_rule_id(str(options["child_rule_id"]))])
        row = require_rule(connection, uuid, lock=True)
        authorize(actor, Action.RULE_UPDATE, Target(uuid.hex, owner=row["account"]))
        values = _values(connection, options) | _links(connection, actor, row, options)
        state = _new_state(row["state"], options)
        if options.get("cancel_requests"):
            # replicas before requests (DESIGN section 11)
            store.lock_replicas_of(connection, row["id"])
        if values:
            store.update_rule(connection, row["id"], values)
        inherited: dict[str, Any] = {key: values[key] for key in ("priority", "activity") if key in values}
        if inherited:
            store.set_of_requests(connection, row["id"], inherited)
        _set_work(connection, actor, row, state, options)
        said = ", ".join(f"{key}={value}" for key, value in options.items())
        append_history(
            connection,
            uuid,
            account=actor.account,
            from_state=row["state"],
            to_state=state or row["state"],
            code="update" if state is None else BY_HAND,
            reason=f"by hand: {said}"[:1000],
        )
        audit.record(connection, actor, Action.RULE_UPDATE, uuid.hex, **options)

    try:
        context.database.run(work)
    except IntegrityError as error:
        raise added_meanwhile() from error
    context.doorbell.ring(Bell.EVALUATIONS)


def _values(connection: Connection, options: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that a rule is given without a look at anything but the RSEs."""
    values: dict[str, Any] = {}
    if "lifetime" in options:
        values["expires_at"] = _expiry(options)
    for key in ("locked", "purge_replicas"):
        if key in options:
            values[key] = _yes_or_no(key, options)
    for key in ("boost_rule", "cancel_requests"):
        _yes_or_no(key, options)
    for key in ("comment", "comments"):
        if key in options:
            check_comment(options[key])
            values["comments"] = options[key]
    if "meta" in options:
        check_meta(options["meta"])
        values["meta"] = options["meta"]
    if "priority" in options:
        values["priority"] = _whole("priority", options["priority"])
        check_priority(values["priority"])
    if "activity" in options:
        check_activity(options["activity"])
        values["activity"] = options["activity"]
    if "source_replica_expression" in options:
        expression = options["source_replica_expression"]
        if expression is not None:
            check_sources(load_rses(connection), expression)
        values["source_replica_expression"] = expression
    return values


def _links(
    connection: Connection, actor: Actor, row: RowMapping, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Columns that point at other rows."""
    values: dict[str, Any] = {}
    if options.get("account") is not None and options["account"] != row["account"]:
        name = str(options["account"])
        authorize(actor, Action.RULE_ADD, Target(row["uuid"].hex, owner=name))
        values["account_id"] = require_account(connection, name)
        key = (values["account_id"], row["rse_expression"], row["copies"])
        if store.duplicates(connection, [row["did_id"]], *key):
            raise duplicate_rule(row["copies"], row["rse_expression"], f"{row['scope']}:{row['name']}")
        target = require_did(connection, row["scope"], row["name"])
        spec = spec_of(connection, row, account=name)
        require_room(connection, actor, values["account_id"], spec, [target])
        values["subscription_id"] = None
    if "child_rule_id" in options:
        values["child_rule_id"] = check_child(connection, row, options["child_rule_id"])
    return values


def _expiry(options: Mapping[str, Any]) -> Any:
    lifetime = options["lifetime"]
    if lifetime is None:
        return None
    if not -MAX_LIFETIME_S <= _number("lifetime", lifetime) <= MAX_LIFETIME_S:
        raise InvalidInput(
            "lifetime is a number of seconds, or null for never", rucio_class="InvalidReplicationRule"
        )
    return after(literal(float(lifetime)))


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 2**63:
        raise InvalidInput(f"{key} is a number")
    return float(value)


def _whole(key: str, value: Any) -> int:
    number = _number(key, value)
    if number != int(number):
        raise InvalidInput(f"{key} is a whole number")
    return int(number)


def _yes_or_no(key: str, options: Mapping[str, Any]) -> bool:
    value = options.get(key, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"{key} is true or false")
    return value


def _new_state(state: RuleState, options: Mapping[str, Any]) -> RuleState | None:
    wanted = options.get("state")
    if wanted is None:
        if options.get("cancel_requests"):
            raise InvalidInput("cancel_requests goes with state STUCK or SUSPENDED")
        return None
    try:
        found = parse_state(str(wanted))
    except ValueError as error:
        raise InvalidInput(f"{str(wanted)[:40]!a} is no state of a rule") from error
    if state is RuleState.WAITING_APPROVAL:
        raise Conflict(
            "the rule waits for approval: approve or deny it", rucio_class="InvalidReplicationRule"
        )
    if found in (RuleState.SUSPENDED, RuleState.STUCK):
        return found
    if found in (RuleState.INJECT, RuleState.REPLICATING):
        if state is not RuleState.SUSPENDED:
            raise Conflict("the rule is not suspended", rucio_class="InvalidReplicationRule")
        return RuleState.INJECT
    raise InvalidInput(
        f"a rule cannot be set {found} by hand: it is when it is", rucio_class="UnsupportedOperation"
    )


def _set_work(
    connection: Connection,
    actor: Actor,
    row: RowMapping,
    state: RuleState | None,
    options: Mapping[str, Any],
) -> None:
    """Do what a state or a boost means for the rule's locks and copies."""
    taken_back = 0
    if options.get("cancel_requests"):
        taken_back = work_store.cancel_waiting(connection, row["id"])
    if state is not None:
        reason = f"set {state} by {actor.account}" if state is not RuleState.INJECT else None
        values: dict[str, Any] = {"state": state, "code": BY_HAND if reason else None, "reason": reason}
        if state is RuleState.STUCK and row["state"] is not RuleState.STUCK:
            values["stuck_at"] = values["stuck_since"] = now()
        if state is RuleState.INJECT:
            # whoever has it go on gives it the whole time again
            values["stuck_since"] = None
        store.update_rule(connection, row["id"], values)
    boosted = bool(options.get("boost_rule"))
    if boosted or state is RuleState.INJECT:
        work_store.retry_stuck(connection, row["id"], only_cancelled=not boosted)
    if (state or row["state"]) in RESTING or not (boosted or state is not None):
        return
    # what was taken back rests until its time comes, with the rule
    delay_s = 0 if boosted or not taken_back else CANCELLED_REST_S
    if state is RuleState.INJECT or row["state"] in RESTING:
        # what changed while it rested is not all kept
        look_at_rules(connection, [row["id"]], delay_s=delay_s)
    if state is not RuleState.INJECT:
        look_at_stuck(connection, [row["id"]], delay_s=delay_s)
