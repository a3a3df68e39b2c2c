"""Adds the rules that a subscription makes: all DIDs of a page at once, and by halves where some of them are refused."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Connection, literal, select, update

from arriero.registry.dialect import id_rows, insert_into
from arriero.registry.errors import Conflict, InvalidInput, NotAllowed, NotFound
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import dids, rules, subscription_matches
from arriero.registry.services.accounts import require_account
from arriero.registry.services.rule_filters import parse_grouping
from arriero.registry.services.rule_specs import DEFAULT_ACTIVITY, RuleSpec
from arriero.registry.services.rules import add_within
from arriero.registry.store import dids as did_store
from arriero.registry.store import events
from arriero.registry.store import rules as rule_store
from arriero.rse.errors import InvalidExpression
from arriero.scheduler.core.subscription_filters import DidFacts, UnusableSubscription
from arriero.scheduler.core.subscriptions import Held, Storage, Wanted, WantedRule, wanted_rules
from arriero.scheduler.subscription_page import Subscription, is_unchanged, still_there

MAX_TRIES = 128
"""Calls that add one rule to the DIDs of a page; more than it takes to try each of `PAGE_AGAIN_DIDS` alone."""

DRY_RUN_EVENT = "subscription-dry-run"
"""Type of the event that says what a subscription would do with a DID."""

_WHATEVER_THE_DID = frozenset({"InsufficientTargetRSEs", "RSEWriteBlocked", "ManualRuleApprovalBlocked"})
"""Rucio's names of refusals that say nothing of the DIDs: they are the same for each."""

_OF_THE_SPEC = (InvalidInput, InvalidExpression, NotAllowed, NotFound)
"""What is wrong with a subscription itself."""


@dataclass(slots=True)
class Outcome:
    """What became of the DIDs that a subscription takes."""

    failed: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Code and reason for each that has not all of its rules."""
    fault: UnusableSubscription | None = None
    """What is wrong with the subscription itself."""
    added: int = 0
    """Rules."""
    would: str | None = None
    """What a dry run would have done."""

    def fail(self, ids: Sequence[int], code: str, reason: str) -> None:
        """Note that some DIDs have not all of their rules; the first reason of each counts."""
        for did_id in ids:
            self.failed.setdefault(did_id, (code, reason))


def apply(
    connection: Connection, subscription: Subscription, taken: Sequence[DidFacts], storage: Storage
) -> Outcome:
    """Give the DIDs that a subscription takes their rules, in a transaction that has begun.

    What cannot be had is in the outcome; what is there already is passed over. Ring for evaluations after the commit.
    """
    outcome = Outcome()
    ids = [did.did_id for did in taken]
    if not is_unchanged(connection, subscription):
        outcome.fail(ids, "changed", "the subscription was changed at this moment")
        return outcome
    did_store.lock_dids(connection, ids)
    there = still_there(connection, ids)
    present = [did for did in taken if did.did_id in there]
    try:
        wanted = _plan(connection, subscription, present, storage)
        for did_id, one in wanted.items():
            for unmet in one.unmet:
                outcome.fail([did_id], unmet.code, unmet.reason)
        groups: dict[WantedRule, list[int]] = {}
        for did_id, one in wanted.items():
            for rule in one.rules:
                groups.setdefault(rule, []).append(did_id)
        if subscription.dry_run:
            _say(connection, subscription, present, wanted, outcome)
            return outcome
        for rule in sorted(groups, key=lambda one: one.template):
            _add(connection, subscription, rule, groups[rule], there=there, outcome=outcome)
    except UnusableSubscription as fault:
        outcome.fault = fault
        outcome.fail(list(there), fault.code, fault.reason)
    _remember(connection, subscription, [did_id for did_id in there if did_id not in outcome.failed])
    return outcome


def _plan(
    connection: Connection, subscription: Subscription, present: Sequence[DidFacts], storage: Storage
) -> dict[int, Wanted]:
    templates, seed = subscription.templates, subscription.uuid.hex
    if not any(one.split or one.chained_idx is not None for one in templates):
        # the same for every DID
        one = wanted_rules(templates, storage, seed=seed, key="")
        return {did.did_id: one for did in present}
    held = _held(connection, subscription, [did.did_id for did in present])
    return {
        did.did_id: wanted_rules(
            templates,
            storage,
            seed=seed,
            key=f"{did.scope}:{did.name}",
            held=held.get(did.did_id, frozenset()),
        )
        for did in present
    }


def _held(connection: Connection, subscription: Subscription, ids: Sequence[int]) -> dict[int, Held]:
    query = select(rules.c.did_id, rules.c.rse_expression, rules.c.source_replica_expression).where(
        rules.c.did_id.in_(id_rows(connection, ids)),
        rules.c.subscription_id == subscription.id,
        rules.c.copies == 1,
    )
    found: dict[int, set[tuple[str, str | None]]] = {}
    for did_id, expression, source in connection.execute(query):
        found.setdefault(did_id, set()).add((expression, source))
    return {did_id: frozenset(pairs) for did_id, pairs in found.items()}


def _add(
    connection: Connection,
    subscription: Subscription,
    rule: WantedRule,
    ids: Sequence[int],
    *,
    there: Mapping[int, tuple[str, str]],
    outcome: Outcome,
) -> None:
    """Add one rule to some DIDs: at once, or by halves where some of them refuse it."""
    spec = spec_of(subscription, rule)
    try:
        account_id = require_account(connection, spec.account or subscription.account)
    except NotFound as error:
        raise UnusableSubscription(error.stable_code, error.message) from error
    queue = deque([list(ids)])
    tries = 0
    refusal = ("", "")
    while queue:
        group = queue.popleft()
        present = set(rule_store.duplicates(connection, group, account_id, spec.rse_expression, spec.copies))
        group = [did_id for did_id in group if did_id not in present]
        if not group:
            continue
        if tries >= MAX_TRIES:
            outcome.fail(group, *refusal)
            continue
        tries += 1
        try:
            outcome.added += _try(connection, subscription, spec, [there[did_id] for did_id in group])
        except _OF_THE_SPEC as error:
            raise UnusableSubscription(*_said(rule, error)) from error
        except Conflict as error:
            refusal = _said(rule, error)
            if len(group) == 1 or error.rucio_class in _WHATEVER_THE_DID:
                outcome.fail(group, *refusal)
            else:
                middle = len(group) // 2
                queue += [group[:middle], group[middle:]]


def _said(rule: WantedRule, error: Exception) -> tuple[str, str]:
    # the code of `InvalidExpression` is its class's, that of the registry's errors may be the error's own
    code = getattr(error, "stable_code", None) or getattr(error, "code", "refused")
    return str(code), f"template {rule.template}: {error}"


def _try(
    connection: Connection, subscription: Subscription, spec: RuleSpec, targets: Sequence[tuple[str, str]]
) -> int:
    if subscription.actor is None:
        raise UnusableSubscription(
            "account_barred", f"account {subscription.account} is suspended or deleted"
        )
    with connection.begin_nested():
        added = add_within(connection, subscription.actor, spec, targets)
    if spec.subscription is None:
        # a rule of another account: not asked for as that account's own subscription
        chosen = rules.c.uuid.in_(added)
        connection.execute(update(rules).where(chosen).values(subscription_id=subscription.id))
    return len(added)


def spec_of(subscription: Subscription, rule: WantedRule) -> RuleSpec:
    """Write a rule in full: what the template says, and Rucio's defaults."""
    template = subscription.raw_templates[rule.template - 1]
    account = template.get("account") or subscription.account
    own: UUID | None = subscription.uuid if account == subscription.account else None
    options: dict[str, Any] = {}
    if template.get("lifetime") is not None:
        options["lifetime_s"] = float(template["lifetime"])
    for key in ("priority", "meta", *_FLAGS):
        if template.get(key) is not None:
            options[key] = template[key]
    return RuleSpec(
        rse_expression=rule.rse_expression,
        copies=rule.copies,
        account=account,
        grouping=parse_grouping(template.get("grouping")),
        weight=rule.weight,
        activity=template.get("activity") or DEFAULT_ACTIVITY,
        source_replica_expression=rule.source,
        notification=template.get("notify") or "N",
        delay_injection_s=float(template.get("delay_injection") or 0),
        comment=template.get("comments") or template.get("comment") or subscription.comments,
        subscription=own,
        **options,
    )


_FLAGS = ("locked", "purge_replicas", "ignore_availability", "ignore_account_limit", "ask_approval")


def _remember(connection: Connection, subscription: Subscription, ids: Sequence[int]) -> None:
    """Note that a subscription was applied to some DIDs; those of which that is known are passed over."""
    rows = (
        select(dids.c.id, literal(subscription.id, BigInteger), now())
        .where(dids.c.id.in_(id_rows(connection, ids)))
        .order_by(dids.c.id)
    )
    columns = ["did_id", "subscription_id", "created_at"]
    known = insert_into(connection, subscription_matches).from_select(columns, rows, include_defaults=False)
    connection.execute(known.on_conflict_do_nothing(index_elements=["did_id", "subscription_id"]))


def _say(
    connection: Connection,
    subscription: Subscription,
    present: Sequence[DidFacts],
    wanted: Mapping[int, Wanted],
    outcome: Outcome,
) -> None:
    """Tell what a dry run would do: an event for each DID, and the first of them on the subscription."""
    keyed: list[tuple[str, dict[str, Any]]] = []
    for did in present:
        made = [
            {"rse_expression": one.rse_expression, "copies": one.copies, "template": one.template}
            for one in wanted[did.did_id].rules
        ]
        payload = {
            "subscription": subscription.uuid.hex,
            "subscription_name": subscription.name,
            "account": subscription.account,
            "scope": did.scope,
            "name": did.name,
            "rules": made,
            "unmet": [one.reason for one in wanted[did.did_id].unmet],
        }
        keyed.append((f"{did.scope}:{did.name}", payload))
    events.append(connection, DRY_RUN_EVENT, keyed)
    # it is in the event; there is nothing to try again
    outcome.failed.clear()
    if present:
        first = present[0]
        shown = ", ".join(
            f"{one.copies} on {one.rse_expression[:80]}" for one in wanted[first.did_id].rules[:5]
        )
        outcome.would = f"dry run: {len(present)} DIDs fit at the last look; {first.scope}:{first.name[:200]} would get {shown or 'nothing'}"
