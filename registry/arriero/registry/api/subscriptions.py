"""Subscriptions in Rucio's REST protocol."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.services import subscriptions

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"])


class SubscriptionBody(BaseModel):
    """Body of a subscription, or of a change of one."""

    model_config = ConfigDict(extra="ignore")

    options: dict[str, Any]


@router.get("", summary="All subscriptions")
def list_subscriptions(context: ContextDep, actor: ActorDep) -> StreamingResponse:
    del actor
    return json_stream(subscriptions.list_subscriptions(context))


@router.get("/name/{name}", summary="Subscriptions of one name, of any account")
def list_by_name(context: ContextDep, actor: ActorDep, name: PathText) -> StreamingResponse:
    del actor
    return json_stream(subscriptions.list_subscriptions(context, name=name))


@router.get("/Id/{subscription_id}", summary="One subscription, by its id")
def get_by_id(context: ContextDep, actor: ActorDep, subscription_id: PathText) -> Response:
    del actor
    return json_response(subscriptions.get_subscription(context, subscription_id))


@router.get("/{account}", summary="Subscriptions of an account")
def list_of_account(context: ContextDep, actor: ActorDep, account: PathText) -> StreamingResponse:
    del actor
    return json_stream(subscriptions.list_subscriptions(context, account=account))


@router.get("/{account}/rules/states", summary="States of the rules of an account's subscriptions")
def list_states(
    context: ContextDep, actor: ActorDep, account: PathText, *, include_details: bool = False
) -> StreamingResponse:
    del actor
    return json_stream(subscriptions.list_rule_states(context, account, None, details=include_details))


@router.get("/{account}/{name}/rules", summary="Rules of a subscription")
def list_rules(context: ContextDep, actor: ActorDep, account: PathText, name: PathText) -> StreamingResponse:
    del actor
    return json_stream(subscriptions.list_subscription_rules(context, account, name))


@router.get("/{account}/{name}/waiting", summary="What waits for a subscription, with the reasons")
def list_waiting(
    context: ContextDep, actor: ActorDep, account: PathText, name: PathText
) -> StreamingResponse:
    del actor
    return json_stream(subscriptions.list_waiting(context, account, name))


@router.get("/{account}/{name}/rules/states", summary="States of the rules of a subscription")
def list_states_of_one(
    context: ContextDep, actor: ActorDep, account: PathText, name: PathText, *, include_details: bool = False
) -> StreamingResponse:
    del actor
    return json_stream(subscriptions.list_rule_states(context, account, name, details=include_details))


@router.get("/{account}/{name}", summary="One subscription")
def get_subscription(
    context: ContextDep, actor: ActorDep, account: PathText, name: PathText
) -> StreamingResponse:
    del actor
    return json_stream(subscriptions.list_subscriptions(context, account=account, name=name))


@router.post(
    "/{account}/{name}", status_code=201, summary="Add a subscription", openapi_extra=sends(SubscriptionBody)
)
def add_subscription(
    context: ContextDep, actor: ActorDep, account: PathText, name: PathText, body: BodyDep
) -> Response:
    options = parse(SubscriptionBody, body).options
    added = subscriptions.add_subscription(context, actor, account, name, options)
    return PlainTextResponse(added.hex, 201)


@router.put(
    "/{account}/{name}",
    status_code=201,
    summary="Change a subscription",
    openapi_extra=sends(SubscriptionBody),
)
def update_subscription(
    context: ContextDep, actor: ActorDep, account: PathText, name: PathText, body: BodyDep
) -> Response:
    options = parse(SubscriptionBody, body).options
    subscriptions.update_subscription(context, actor, account, name, options)
    return Response(status_code=201)
