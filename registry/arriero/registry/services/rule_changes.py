"""Changing rules that are there: their life, their place in the queue, suspending and resuming."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from arriero.registry.errors import Conflict, InvalidInput, Unsupported
from arriero.registry.ports import Bell
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import rules
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rule_specs import (
    MAX_LIFETIME_S,
    check_activity,
    check_priority,
    check_sources,
)
from arriero.registry.services.rules import parse_rule_id, require_rule
from arriero.registry.states import RULE_LETTERS, RuleState
from arriero.registry.store import rules as store
from arriero.registry.store.evaluations import raise_evaluations
from arriero.registry.store.rses import load_rses

_CHANGES = frozenset(
    {
        "lifetime",
        "locked",
        "comment",
        "comments",
        "priority",
        "activity",
        "purge_replicas",
        "source_replica_expression",
        "approve",
        "boost_rule",
        "state",
    }
)


def update_rule(context: Context, actor: Actor, rule_id: str, options: Mapping[str, Any]) -> None:
    """Change a rule.

    Parameters
    ----------
    options
        Rucio's: ``lifetime`` (seconds, or null for never), ``locked``, ``comment``, ``priority``, ``activity``,
        ``purge_replicas``, ``source_replica_expression``, ``approve``, ``boost_rule``, ``state`` (SUSPENDED, INJECT).

    Raises
    ------
    NotFound
        There is no such rule.
    Conflict
        It is not in a state for this.
    Unsupported
        Rucio has the option and Arriero not yet.
    """
    uuid = parse_rule_id(rule_id)
    unknown = sorted(set(options) - _CHANGES)
    if unknown:
        raise Unsupported(f"{', '.join(unknown)[:200]} of a rule cannot be changed in Arriero yet")

    def work(connection: Connection) -> None:
        row = require_rule(connection, uuid, lock=True)
        action = Action.RULE_APPROVE if "approve" in options else Action.RULE_UPDATE
        authorize(actor, action, Target(uuid.hex, owner=row["account"]))
        values = _values(connection, row, options)
        state, reason = _new_state(row["state"], options)
        if state is not None:
            values |= {"state": state, "code": None, "reason": reason}
            store.append_history(
                connection,
                uuid,
                account=actor.account,
                from_state=row["state"],
                to_state=state,
                reason=reason,
            )
        if values:
            store.update_rule(connection, row["id"], values)
        if "priority" in values:
            store.set_request_priority(connection, row["id"], values["priority"])
        if state is RuleState.INJECT or options.get("boost_rule"):
            raise_evaluations(connection, select(rules.c.id).where(rules.c.id == row["id"]))
        audit.record(connection, actor, action, uuid.hex, **options)

    context.database.run(work)
    context.doorbell.ring(Bell.EVALUATIONS)


def _values(connection: Connection, row: RowMapping, options: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if "lifetime" in options:
        values["expires_at"] = _expiry(row, options)
    for key in ("locked", "purge_replicas"):
        if key in options:
            if not isinstance(options[key], bool):
                raise InvalidInput(f"{key} is true or false")
            values[key] = options[key]
    for key in ("comment", "comments"):
        if key in options and "approve" not in options:
            values["comments"] = str(options[key])[:4000]
    if "priority" in options:
        values["priority"] = int(_number("priority", options["priority"]))
        check_priority(values["priority"])
    if "activity" in options:
        check_activity(str(options["activity"]))
        values["activity"] = str(options["activity"])
    if "source_replica_expression" in options:
        expression = options["source_replica_expression"]
        if expression is not None:
            check_sources(load_rses(connection), str(expression))
        values["source_replica_expression"] = expression
    return values


def _expiry(row: RowMapping, options: Mapping[str, Any]) -> Any:
    lifetime = options["lifetime"]
    if lifetime is None:
        return None
    if not 0 <= _number("lifetime", lifetime) <= MAX_LIFETIME_S:
        raise InvalidInput("lifetime is a number of seconds, or null for never")
    if row["locked"] and options.get("locked") is not False:
        raise Conflict("the rule is locked: it cannot expire", rucio_class="UnsupportedOperation")
    return after(float(lifetime))


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(f"{key} is a number")
    return float(value)


def _new_state(state: RuleState, options: Mapping[str, Any]) -> tuple[RuleState | None, str | None]:
    if "approve" in options:
        if state is not RuleState.WAITING_APPROVAL:
            raise Conflict("the rule waits for no approval", rucio_class="InvalidReplicationRule")
        if options["approve"] is True:
            return RuleState.INJECT, None
        raise Unsupported("denying a rule is not in Arriero yet: remove the rule")
    wanted = options.get("state")
    if wanted is None:
        return None, None
    if wanted in ("SUSPENDED", RULE_LETTERS[RuleState.SUSPENDED]):
        if state is RuleState.WAITING_APPROVAL:
            raise Conflict("the rule waits for approval", rucio_class="InvalidReplicationRule")
        return RuleState.SUSPENDED, "suspended by hand"
    if wanted in ("INJECT", "REPLICATING"):
        if state is not RuleState.SUSPENDED:
            raise Conflict("the rule is not suspended", rucio_class="InvalidReplicationRule")
        return RuleState.INJECT, None
    raise Unsupported(f"a rule cannot be set {str(wanted)[:20]} by hand in Arriero yet")
