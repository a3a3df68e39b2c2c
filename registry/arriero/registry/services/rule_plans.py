"""What rules would do if they were added now."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from arriero.registry.errors import Unsupported
from arriero.registry.ports import RuleEngine
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.dry_runs import undone
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_within, check_targets
from arriero.registry.store import rules as store


def plan_rules(
    context: Context, actor: Actor, spec: RuleSpec, targets: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Tell what a rule on each of some DIDs would do; nothing is added.

    The rules are inserted and looked at by the code that evaluates them, in a transaction that is rolled back. So
    everything that adding them would refuse is refused here too.

    Returns
    -------
    list of dict
        One plan for each DID: ``rule_id`` (added under this id, the rule makes the same choices where RSEs are equally
        good), ``state``, ``reason``, ``files``, ``bytes`` and ``rses``.

    Raises
    ------
    Unsupported
        This process has no rule engine.
    NotFound, InvalidInput, InvalidExpression, Conflict
        As `arriero.registry.services.rules.add_rules`.
    """
    engine = context.engine
    if engine is None:
        raise Unsupported("this registry runs without a rule engine: dry runs cannot be made here")
    check_targets(targets)

    return undone(context, lambda connection: _plans(connection, engine, actor, spec, targets))


def _plans(
    connection: Connection,
    engine: RuleEngine,
    actor: Actor,
    spec: RuleSpec,
    targets: Sequence[tuple[str, str]],
) -> list[dict[str, Any]]:
    chosen = list(dict.fromkeys(targets))
    uuids = add_within(connection, actor, spec, chosen)
    plans = []
    for (scope, name), uuid in zip(chosen, uuids, strict=True):
        [rule_id] = store.ids_of(connection, [uuid])
        plan = engine.plan(connection, rule_id)
        plans.append({"rule_id": uuid.hex, "scope": scope, "name": name, **asdict(plan)})
    return plans
