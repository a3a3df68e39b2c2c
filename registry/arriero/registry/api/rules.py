"""Replication rules in Rucio's REST protocol."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.errors import InvalidInput
from arriero.registry.services import locks, rule_changes, rule_removal, rules
from arriero.registry.services.rule_specs import DEFAULT_ACTIVITY, RuleSpec

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
    delay_injection: float | None = Field(default=None, ge=0)
    priority: int = 3
    meta: Any = None


class NewRule(RuleOptions):
    """Body of rules to add."""

    dids: list[RuleDid]


class Removal(BaseModel):
    """Body of a removal; ``now`` is Arriero's: without Rucio's hour to think again."""

    model_config = ConfigDict(extra="ignore")

    purge_replicas: bool | None = None
    now: bool = False


class Changes(BaseModel):
    """Body of a change."""

    options: dict[str, Any]


def rule_spec(options: RuleOptions) -> RuleSpec:
    """Read what a rule asks for.

    Raises
    ------
    InvalidInput
        The grouping or the notification is not one.
    """
    try:
        grouping = rules.parse_grouping(options.grouping)
    except ValueError as error:
        raise InvalidInput(
            "grouping is ALL, DATASET or NONE", rucio_class="InvalidReplicationRule"
        ) from error
    notification = (options.notify or "N").upper()[:1]
    if notification not in rules.NOTIFICATIONS:
        raise InvalidInput("notify is N, Y, C or P", rucio_class="InvalidReplicationRule")
    return RuleSpec(
        rse_expression=options.rse_expression,
        copies=options.copies,
        account=options.account,
        grouping=grouping,
        weight=options.weight,
        lifetime_s=options.lifetime,
        priority=options.priority,
        activity=options.activity or DEFAULT_ACTIVITY,
        source_replica_expression=options.source_replica_expression,
        notification=notification,
        locked=options.locked,
        purge_replicas=options.purge_replicas,
        ignore_availability=options.ignore_availability,
        ignore_account_limit=options.ignore_account_limit,
        ask_approval=options.ask_approval,
        delay_injection_s=options.delay_injection or 0,
        comment=options.comment,
        meta=options.meta,
    )


@router.get("", summary="Rules, by filters")
def list_rules(context: ContextDep, actor: ActorDep, request: Request) -> Response:
    del actor
    return json_stream(rules.list_rules(context, dict(request.query_params)))


@router.post("", summary="Add rules")
def add_rules(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    new = parse(NewRule, body)
    targets = [(did.scope, did.name) for did in new.dids]
    uuids = rules.add_rules(context, actor, rule_spec(new), targets)
    return json_response([uuid.hex for uuid in uuids], 201)


@router.get("/{rule_id}", summary="One rule")
def get_rule(context: ContextDep, actor: ActorDep, rule_id: PathText) -> Response:
    del actor
    return json_response(rules.get_rule(context, rule_id))


@router.put("/{rule_id}", summary="Change a rule")
def update_rule(context: ContextDep, actor: ActorDep, rule_id: PathText, body: BodyDep) -> Response:
    rule_changes.update_rule(context, actor, rule_id, parse(Changes, body).options)
    return Response()


@router.delete("/{rule_id}", summary="Remove a rule")
def remove_rule(context: ContextDep, actor: ActorDep, rule_id: PathText, body: BodyDep) -> Response:
    removal = parse(Removal, body) if body else Removal()
    rule_removal.remove_rule(context, actor, rule_id, purge_replicas=removal.purge_replicas, now=removal.now)
    return Response()


@router.get("/{rule_id}/locks", summary="Locks of a rule")
def list_locks(context: ContextDep, actor: ActorDep, rule_id: PathText) -> Response:
    del actor
    return json_stream(locks.list_rule_locks(context, rule_id))
