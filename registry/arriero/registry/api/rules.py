"""Replication rules in Rucio's REST protocol."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.errors import InvalidInput, Unsupported
from arriero.registry.services import (
    locks,
    rule_approval,
    rule_changes,
    rule_examination,
    rule_histories,
    rule_moves,
    rule_plans,
    rule_removal,
    rules,
)
from arriero.registry.services.rule_filters import parse_grouping
from arriero.registry.services.rule_specs import DEFAULT_ACTIVITY, RuleSpec
from arriero.registry.states import RuleGrouping

router = APIRouter(prefix="/rules", tags=["rules"])


class RuleDid(BaseModel):
    """A DID that a rule is asked for."""

    scope: str
    name: str


class RuleOptions(BaseModel):
    """What a rule asks for, in Rucio's words; options that only Rucio's daemons know are read over."""

    model_config = ConfigDict(extra="ignore")

    copies: int
    rse_expression: str
    weight: str | None = None
    lifetime: float | None = None
    grouping: str | None = None
    account: str | None = None
    locked: bool = False
    source_replica_expression: str | None = None
    activity: str | None = None
    notify: str | None = None
    purge_replicas: bool = False
    ignore_availability: bool = False
    ignore_account_limit: bool = False
    comment: str | None = None
    ask_approval: bool = False
    asynchronous: bool = False
    delay_injection: float | None = Field(default=None, ge=0)
    priority: int = 3
    meta: Any = None
    subscription_id: UUID | None = None
    split_container: bool = False
    eol_at: Any = None


class NewRule(RuleOptions):
    """Body of rules to add; the last two are Arriero's."""

    dids: list[RuleDid]
    dry_run: bool = False
    """Only tell what they would do."""
    rule_ids: list[str] | None = None
    """Ids that they are to have, from a dry run."""


class Removal(BaseModel):
    """Body of a removal; ``now`` is Arriero's: without Rucio's hour to think again."""

    model_config = ConfigDict(extra="ignore")

    purge_replicas: bool | None = None
    now: bool = False


class Changes(BaseModel):
    """Body of a change."""

    options: dict[str, Any]


class Decision(BaseModel):
    """The options of a change that approves or denies; nothing else can be changed with it."""

    model_config = ConfigDict(extra="forbid")

    approve: bool
    comment: str | None = None


class Override(BaseModel):
    """What is to differ in the rule that takes another's place; in the words of `RuleOptions`."""

    model_config = ConfigDict(extra="allow")

    rse_expression: str | None = None
    copies: int | None = None
    account: str | None = None
    grouping: str | None = None
    weight: str | None = None
    lifetime: float | None = None
    locked: bool | None = None
    source_replica_expression: str | None = None
    activity: str | None = None
    notify: str | None = None
    purge_replicas: bool | None = None
    ignore_availability: bool | None = None
    ignore_account_limit: bool | None = None
    comment: str | None = None
    ask_approval: bool | None = None
    asynchronous: bool | None = None
    delay_injection: float | None = Field(default=None, ge=0)
    priority: int | None = None
    meta: Any = None
    subscription_id: UUID | None = None


class Move(BaseModel):
    """Body of a move."""

    model_config = ConfigDict(extra="ignore")

    rse_expression: str
    override: Override | None = None


class Reduction(BaseModel):
    """Body of a reduction; ``dry_run`` is Arriero's."""

    model_config = ConfigDict(extra="ignore")

    copies: int
    exclude_expression: str | None = None
    dry_run: bool = False
    """Only tell what would be kept and what let go."""


_FIELDS: Mapping[str, str] = {
    "lifetime": "lifetime_s",
    "notify": "notification",
    "delay_injection": "delay_injection_s",
    "subscription_id": "subscription",
}
"""Rucio's words, and ours where they differ."""

_MAY_BE_NONE = frozenset(
    {"weight", "lifetime", "source_replica_expression", "comment", "meta", "subscription_id"}
)


def _overrides(given: Override | None) -> dict[str, Any]:
    """Give the fields of `RuleSpec` that are to differ.

    Raises
    ------
    InvalidInput
        One cannot, or cannot have that value.
    """
    if given is None:
        return {}
    if given.model_extra:
        unknown = ", ".join(sorted(given.model_extra))
        raise InvalidInput(f"{unknown[:200]!a} cannot be overridden", rucio_class="UnsupportedOperation")
    found: dict[str, Any] = {}
    for key in given.model_fields_set - {"asynchronous"}:
        value = getattr(given, key)
        if value is None and key not in _MAY_BE_NONE:
            continue
        if key == "grouping":
            value = _grouping(value)
        elif key == "notify":
            value = _notification(value)
        found[_FIELDS.get(key, key)] = value
    return found


def _grouping(text: str | None) -> RuleGrouping:
    try:
        return parse_grouping(text)
    except ValueError as error:
        raise InvalidInput(
            "grouping is ALL, DATASET or NONE", rucio_class="InvalidReplicationRule"
        ) from error


def _notification(text: str | None) -> str:
    letter = (text or "N").upper()[:1]
    if letter not in rules.NOTIFICATIONS:
        raise InvalidInput("notify is N, Y, C or P", rucio_class="InvalidReplicationRule")
    return letter


def rule_spec(options: RuleOptions) -> RuleSpec:
    """Read what a rule asks for.

    Raises
    ------
    InvalidInput
        The grouping or the notification is not one.
    Unsupported
        Rucio has the option and Arriero not.
    """
    if options.split_container:
        raise Unsupported("split_container is not in Arriero: grouping DATASET places each dataset by itself")
    if options.eol_at is not None:
        raise Unsupported("eol_at, of Rucio's lifetime model, is not in Arriero: give the rule a lifetime")
    return RuleSpec(
        rse_expression=options.rse_expression,
        copies=options.copies,
        account=options.account,
        grouping=_grouping(options.grouping),
        weight=options.weight,
        lifetime_s=options.lifetime,
        priority=options.priority,
        activity=options.activity or DEFAULT_ACTIVITY,
        source_replica_expression=options.source_replica_expression,
        notification=_notification(options.notify),
        locked=options.locked,
        purge_replicas=options.purge_replicas,
        ignore_availability=options.ignore_availability,
        ignore_account_limit=options.ignore_account_limit,
        ask_approval=options.ask_approval,
        delay_injection_s=options.delay_injection or 0,
        comment=options.comment,
        meta=options.meta,
        subscription=options.subscription_id,
    )


@router.get("", summary="Rules, by filters")
def list_rules(context: ContextDep, actor: ActorDep, request: Request) -> StreamingResponse:
    del actor
    return json_stream(rules.list_rules(context, dict(request.query_params)))


@router.post(
    "",
    status_code=201,
    summary="Add rules, or see what they would do",
    responses={200: {"description": "What they would do."}},
    openapi_extra=sends(NewRule),
)
def add_rules(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    new = parse(NewRule, body)
    targets = [(did.scope, did.name) for did in new.dids]
    if new.dry_run:
        return json_response(rule_plans.plan_rules(context, actor, rule_spec(new), targets))
    uuids = rules.add_rules(context, actor, rule_spec(new), targets, rule_ids=new.rule_ids)
    return json_response([uuid.hex for uuid in uuids], 201)


@router.get("/{rule_id}", summary="One rule")
def get_rule(context: ContextDep, actor: ActorDep, rule_id: PathText) -> Response:
    del actor
    return json_response(rules.get_rule(context, rule_id))


@router.put("/{rule_id}", summary="Change, approve or deny a rule", openapi_extra=sends(Changes))
def update_rule(context: ContextDep, actor: ActorDep, rule_id: PathText, body: BodyDep) -> Response:
    options = parse(Changes, body).options
    if "approve" not in options:
        rule_changes.update_rule(context, actor, rule_id, options)
        return Response()
    decision = parse(Decision, orjson.dumps(options))
    reason = decision.comment
    rule_approval.decide_rule(context, actor, rule_id, approve=decision.approve, reason=reason)
    return Response()


@router.delete("/{rule_id}", summary="Remove a rule", openapi_extra=sends(Removal, required=False))
def remove_rule(context: ContextDep, actor: ActorDep, rule_id: PathText, body: BodyDep) -> Response:
    removal = parse(Removal, body) if body else Removal()
    rule_removal.remove_rule(context, actor, rule_id, purge_replicas=removal.purge_replicas, now=removal.now)
    return Response()


@router.get("/{rule_id}/locks", summary="Locks of a rule")
def list_locks(context: ContextDep, actor: ActorDep, rule_id: PathText) -> StreamingResponse:
    del actor
    return json_stream(locks.list_rule_locks(context, rule_id))


@router.post(
    "/{rule_id}/move",
    status_code=201,
    summary="Have a rule replaced on other RSEs",
    openapi_extra=sends(Move),
)
def move_rule(context: ContextDep, actor: ActorDep, rule_id: PathText, body: BodyDep) -> Response:
    move = parse(Move, body)
    child = rule_moves.move_rule(context, actor, rule_id, move.rse_expression, _overrides(move.override))
    return json_response(child.hex, 201)


@router.post(
    "/{rule_id}/reduce",
    summary="Have fewer copies, at once, or see what that would let go",
    openapi_extra=sends(Reduction),
)
def reduce_rule(context: ContextDep, actor: ActorDep, rule_id: PathText, body: BodyDep) -> Response:
    wanted = parse(Reduction, body)
    copies, exclude = wanted.copies, wanted.exclude_expression
    if wanted.dry_run:
        plan = rule_moves.plan_reduction(context, actor, rule_id, copies, exclude_expression=exclude)
        return json_response(plan)
    new = rule_moves.reduce_rule(context, actor, rule_id, copies, exclude_expression=exclude)
    return json_response(new.hex)


@router.get("/{rule_id}/analysis", summary="What holds a rule up")
def examine_rule(context: ContextDep, actor: ActorDep, rule_id: PathText) -> Response:
    del actor
    return json_response(rule_examination.examine_rule(context, rule_id))


@router.get("/{rule_id}/history", summary="What happened to a rule: who, when and why")
def list_rule_history(context: ContextDep, actor: ActorDep, rule_id: PathText) -> StreamingResponse:
    del actor
    return json_stream(rule_histories.list_history(context, rule_id))


@router.get("/{scope}/{name:path}/history", summary="Rules on a DID, also those that have gone")
def list_history(context: ContextDep, actor: ActorDep, scope: PathText, name: PathText) -> StreamingResponse:
    del actor
    return json_stream(rule_histories.list_did_history(context, scope, name))
