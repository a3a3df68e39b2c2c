"""Letting rules that wait for approval go on, or taking them away.

An administrator may, and whoever is named by the attribute ``rule_approvers`` of every RSE of the rule's expression.
"""

from sqlalchemy import Connection, RowMapping, select

from arriero.registry.errors import Conflict
from arriero.registry.ports import Bell
from arriero.registry.schema.tables import rules
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.rule_removal import end_rule
from arriero.registry.services.rule_specs import check_comment
from arriero.registry.services.rules import parse_rule_id, require_rule
from arriero.registry.states import RuleState
from arriero.registry.store import rules as store
from arriero.registry.store.evaluations import look_at_rules
from arriero.registry.store.rses import load_rses
from arriero.registry.store.rule_history import append_history
from arriero.rse.errors import InvalidExpression
from arriero.rse.expression import parse

APPROVERS_ATTRIBUTE = "rule_approvers"
"""Rucio's: names of accounts with commas between."""


def decide_rule(
    context: Context, actor: Actor, rule_id: str, *, approve: bool, reason: str | None = None
) -> None:
    """Approve a rule, which is then evaluated, or deny it, which takes it away.

    Parameters
    ----------
    reason
        Kept in the history.

    Raises
    ------
    NotFound
        There is no such rule.
    Conflict
        It does not wait for approval.
    """
    uuid = parse_rule_id(rule_id)
    check_comment(reason)

    def work(connection: Connection) -> None:
        row = require_rule(connection, uuid, lock=True)
        # what a rule that waits for approval belongs to is its RSEs
        owner = actor.account if _looks_after(connection, actor, row) else None
        authorize(actor, Action.RULE_APPROVE, Target(uuid.hex, owner=owner))
        if row["state"] is not RuleState.WAITING_APPROVAL:
            raise Conflict(f"rule {uuid.hex} waits for no approval", rucio_class="InvalidReplicationRule")
        audit.record(connection, actor, Action.RULE_APPROVE, uuid.hex, approve=approve, reason=reason)
        said = "approved" if approve else "denied"
        said = f"{said}: {reason}" if reason else said
        if not approve:
            end_rule(connection, row, purge=False, account=actor.account, reason=said[:1000])
            return
        # who approves it has decided about the limits of its account too (docs/adr/0012)
        approved = {"state": RuleState.INJECT, "code": None, "reason": None, "ignore_account_limit": True}
        store.update_rule(connection, row["id"], approved)
        append_history(
            connection,
            uuid,
            account=actor.account,
            from_state=row["state"],
            to_state=RuleState.INJECT,
            code="approved",
            reason=said[:1000],
        )
        look_at_rules(connection, select(rules.c.id).where(rules.c.id == row["id"]))

    context.database.run(work)
    context.doorbell.ring(Bell.EVALUATIONS)


def _looks_after(connection: Connection, actor: Actor, row: RowMapping) -> bool:
    known = load_rses(connection)
    try:
        names = parse(row["rse_expression"]).evaluate(rse.as_info() for rse in known.values())
    except InvalidExpression:
        return False
    return all(
        actor.account
        in [name.strip() for name in known[rse].attributes.get(APPROVERS_ATTRIBUTE, "").split(",")]
        for rse in names
    )
