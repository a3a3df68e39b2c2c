"""Replacing one rule by another: moving it to other RSEs, and reducing its copies.

A move adds a child; the parent goes once the child is OK and everything that it asks for is there (`release_parents`,
a sweep). A reduction is done at once or not at all.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import structlog
from sqlalchemy import Connection, RowMapping, select

from arriero.registry.errors import Conflict, InvalidInput, Unsupported
from arriero.registry.ports import Bell
from arriero.registry.schema.base import now
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.dry_runs import undone
from arriero.registry.services.rule_removal import end_rule
from arriero.registry.services.rule_specs import RuleSpec, check_copies
from arriero.registry.services.rules import add_within, parse_rule_id, require_rule
from arriero.registry.states import Role, RuleState
from arriero.registry.store import audit as audit_store
from arriero.registry.store import dids as did_store
from arriero.registry.store import rule_work as work_store
from arriero.registry.store import rules as store
from arriero.registry.store.rule_history import append_history

log = structlog.get_logger(__name__)


def move_rule(
    context: Context, actor: Actor, rule_id: str, expression: str, overrides: Mapping[str, Any]
) -> UUID:
    """Have a rule replaced by one on other RSEs.

    Parameters
    ----------
    expression
        Where.
    overrides
        Fields of `RuleSpec` that are to differ from the rule's.

    Returns
    -------
    UUID
        The child, which is evaluated by itself. The rule goes when it is OK.

    Raises
    ------
    NotFound
        There is no such rule, or no such account.
    Conflict
        The rule cannot be replaced as it is, or the new one could not be added.
    InvalidInput, InvalidExpression
        The new rule cannot be meant.
    """
    uuid = parse_rule_id(rule_id)

    def work(connection: Connection) -> UUID:
        row = _held(connection, actor, uuid, Action.RULE_MOVE)
        spec = spec_of(connection, row, account=overrides.get("account"))
        # that limits are ignored was decided for the RSEs of the rule, not for others
        ignores = spec.ignore_account_limit and actor.role is Role.ADMIN
        spec = replace(spec, **{"rse_expression": expression, "ignore_account_limit": ignores, **overrides})
        if spec.rse_expression == row["rse_expression"]:
            raise _failed(uuid, f"it is on {expression[:200]} already")
        [child] = add_within(connection, actor, spec, [(row["scope"], row["name"])])
        [child_id] = store.ids_of(connection, [child])
        store.update_rule(connection, row["id"], {"child_rule_id": child_id})
        _note(connection, actor, row, "moved", f"moves to {spec.rse_expression}: rule {child.hex}")
        audit.record(
            connection, actor, Action.RULE_MOVE, uuid.hex, child=child.hex, rse_expression=spec.rse_expression
        )
        return child

    child = context.database.run(work)
    context.doorbell.ring(Bell.EVALUATIONS)
    return child


def reduce_rule(
    context: Context, actor: Actor, rule_id: str, copies: int, *, exclude_expression: str | None = None
) -> UUID:
    """Replace a rule by one with fewer copies, at once, or change nothing.

    Parameters
    ----------
    copies
        Fewer than the rule has.
    exclude_expression
        RSEs that are to hold none of them.

    Returns
    -------
    UUID
        The new rule: every lock of it is OK.

    Raises
    ------
    NotFound
        There is no such rule.
    Conflict
        The copies that are there are not enough for it.
    InvalidInput, InvalidExpression
        The new rule cannot be meant.
    Unsupported
        This process has no rule engine.
    """
    begin = _reduction(context, actor, rule_id, copies, exclude_expression)

    def work(connection: Connection) -> UUID:
        row, spec, new, new_id = begin(connection)
        work_store.hand_over_heirs(connection, row["id"], new_id)
        end_rule(
            connection,
            row,
            purge=row["purge_replicas"],
            account=actor.account,
            reason=f"reduced to {copies} copies: rule {new.hex}",
        )
        audit.record(
            connection,
            actor,
            Action.RULE_REDUCE,
            row["uuid"].hex,
            new=new.hex,
            copies=copies,
            rse_expression=spec.rse_expression,
        )
        return new

    new = context.database.run(work)
    context.doorbell.ring(Bell.EVALUATIONS)
    return new


def plan_reduction(
    context: Context, actor: Actor, rule_id: str, copies: int, *, exclude_expression: str | None = None
) -> dict[str, Any]:
    """Tell what `reduce_rule` would keep and what it would let go; nothing is changed.

    It is done, counted and undone: what a reduction would refuse is refused here too, and one that is asked for
    afterwards chooses the same.

    Parameters
    ----------
    copies, exclude_expression
        As of `reduce_rule`.

    Returns
    -------
    dict
        ``rule_id``, ``scope``, ``name``, ``copies``, ``rse_expression`` and ``purge_replicas`` of the new rule, and
        ``rses``: for each RSE ``rse``, and as files and bytes what the new rule would hold (``kept_...``), what it would
        not hold any more (``let_go_...``), and what of that no rule would hold, so that deletion may take it
        (``unheld_...``).

    Raises
    ------
    NotFound, Conflict, InvalidInput, InvalidExpression, Unsupported
        As `reduce_rule`.
    """
    begin = _reduction(context, actor, rule_id, copies, exclude_expression)

    def work(connection: Connection) -> dict[str, Any]:
        row, spec, new, new_id = begin(connection)
        return {
            "rule_id": new.hex,
            "scope": row["scope"],
            "name": row["name"],
            "copies": spec.copies,
            "rse_expression": spec.rse_expression,
            "purge_replicas": row["purge_replicas"],
            "rses": [dict(one) for one in work_store.exchanged_locks(connection, row["id"], new_id)],
        }

    return undone(context, work)


class _Begun(NamedTuple):
    """A reduction whose new rule is there, beside the old one."""

    row: RowMapping
    spec: RuleSpec
    new: UUID
    new_id: int


def _reduction(
    context: Context, actor: Actor, rule_id: str, copies: int, exclude_expression: str | None
) -> Callable[[Connection], _Begun]:
    """Give the first half of a reduction: it adds the new rule and places it on what is there, or refuses."""
    uuid = parse_rule_id(rule_id)
    engine = context.engine
    if engine is None:
        raise Unsupported("this registry runs without a rule engine: rules cannot be reduced here")
    check_copies(copies)

    def begin(connection: Connection) -> _Begun:
        row = _held(connection, actor, uuid, Action.RULE_REDUCE)
        if copies >= row["copies"]:
            raise _failed(uuid, f"it has {row['copies']} copies, and {copies} are not fewer")
        expression = row["rse_expression"]
        if exclude_expression:
            expression = f"({expression})\\({exclude_expression})"
        spec = replace(spec_of(connection, row), rse_expression=expression, copies=copies)
        store.lock_replicas_of(connection, row["id"])
        # nothing is written to any RSE: it does not matter whether one is blocked, or what the account may still have
        target = (row["scope"], row["name"])
        # the same id whenever it is asked: where RSEs are equally good, the id chooses, in a plan as in earnest
        same = uuid5(uuid, f"{copies} {expression}")
        uuids = None if store.known_uuids(connection, [same]) else [same]
        [new] = add_within(connection, actor, spec, [target], uuids=uuids, needs_no_copy=True)
        [new_id] = store.ids_of(connection, [new])
        refused = engine.place_at_once(connection, new_id, instead_of=row["id"])
        if refused is not None:
            raise _failed(uuid, refused)
        return _Begun(row, spec, new, new_id)

    return begin


def _held(connection: Connection, actor: Actor, uuid: UUID, action: Action) -> RowMapping:
    """Give a rule that may be replaced, with its DID and its row held."""
    row = require_rule(connection, uuid)
    authorize(actor, action, Target(uuid.hex, owner=row["account"]))
    # the DID before the rule (DESIGN section 11); who has removed the rule meanwhile has won
    did_store.lock_dids(connection, [row["did_id"]])
    row = require_rule(connection, uuid, lock=True)
    authorize(actor, action, Target(uuid.hex, owner=row["account"]))
    if row["child_uuid"] is not None:
        raise _failed(uuid, f"rule {row['child_uuid'].hex} replaces it already")
    if row["locked"]:
        raise _failed(uuid, "it is locked; unlock it first (rule update --locked False)")
    if row["state"] is RuleState.WAITING_APPROVAL:
        raise _failed(uuid, "it waits for approval")
    return row


def _failed(uuid: UUID, why: str) -> Conflict:
    return Conflict(f"rule {uuid.hex} is not replaced: {why}", rucio_class="RuleReplaceFailed")


def spec_of(connection: Connection, row: RowMapping, *, account: str | None = None) -> RuleSpec:
    """Give what a rule asks for, with what is left of its life.

    Parameters
    ----------
    account
        Whose it is to be; None for whose it is. A subscription asks for rules of its own account only.

    Raises
    ------
    Conflict
        Nothing is left.
    """
    lifetime_s = None
    if row["expires_at"] is not None:
        at = connection.execute(select(now())).scalar_one()
        lifetime_s = (row["expires_at"] - at).total_seconds()
        if lifetime_s <= 0:
            raise _failed(row["uuid"], "its lifetime is over")
    account = account or row["account"]
    return RuleSpec(
        rse_expression=row["rse_expression"],
        copies=row["copies"],
        account=account,
        grouping=row["grouping"],
        weight=row["weight"],
        lifetime_s=lifetime_s,
        priority=row["priority"],
        activity=row["activity"],
        source_replica_expression=row["source_replica_expression"],
        notification=row["notification"],
        purge_replicas=row["purge_replicas"],
        ignore_availability=row["ignore_availability"],
        ignore_account_limit=row["ignore_account_limit"],
        comment=row["comments"],
        meta=row["meta"],
        subscription=row["subscription_uuid"] if account == row["account"] else None,
    )


def _note(connection: Connection, actor: Actor, row: RowMapping, code: str, reason: str) -> None:
    append_history(
        connection,
        row["uuid"],
        account=actor.account,
        from_state=row["state"],
        to_state=row["state"],
        code=code,
        reason=reason[:1000],
    )


def check_child(connection: Connection, row: RowMapping, given: object) -> int | None:
    """Give the id of a rule that is to replace another; None when none is to.

    Parameters
    ----------
    row
        The other. Both are held, so that two changes at once do not close a circle.
    given
        An id, or None.

    Raises
    ------
    NotFound
        There is no such rule.
    InvalidInput, Conflict
        It cannot replace that one.
    """
    if given is None:
        return None
    child = require_rule(connection, parse_rule_id(str(given)))
    if row["child_rule_id"] not in (None, child["id"]):
        raise Conflict(
            f"rule {row['child_uuid'].hex} replaces it already: part them first (--child-rule-id None)",
            rucio_class="InputValidationError",
        )
    if child["did_id"] != row["did_id"]:
        raise InvalidInput(f"rule {child['uuid'].hex} is on another DID and cannot replace this one")
    if work_store.leads_to(connection, child["id"], row["id"]):
        raise InvalidInput(f"rule {child['uuid'].hex} is itself to be replaced by this one")
    return int(child["id"])


def release_parents(context: Context, *, limit: int = 100) -> int:
    """Take away rules whose child has done everything, each in a transaction of its own; for a sweep.

    Parameters
    ----------
    limit
        At most so many.

    Returns
    -------
    int
        How many were taken away. One that cannot be is logged and passed over, and tried again by the next sweep.
    """
    faulty: set[int] = set()
    chosen: list[int] = []

    def work(connection: Connection) -> bool:
        found = work_store.one_replaced(connection, skip=faulty)
        if found is None:
            return False
        chosen[:] = [found["id"]]
        row = require_rule(connection, found["uuid"])
        reason = f"replaced by rule {found['child'].hex}, which is OK"
        work_store.hand_over_heirs(connection, row["id"], found["child_rule_id"])
        audit_store.append(
            connection,
            account=None,
            action=Action.RULE_REMOVE,
            target=row["uuid"].hex,
            allowed=True,
            detail={"reason": reason, "owner": row["account"]},
        )
        end_rule(connection, row, purge=row["purge_replicas"], account=None, reason=reason)
        return True

    released = 0
    while released + len(faulty) < limit:
        chosen.clear()
        try:
            if not context.database.run(work):
                break
            released += 1
        except Exception:
            # the boundary between rules: one that cannot be taken away must not keep the others
            if not chosen:
                raise
            log.exception("replaced rule not removed", rule_id=chosen[0])
            faulty.update(chosen)
    return released
