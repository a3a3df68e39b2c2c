"""Limits and usage of accounts, in Rucio's REST protocol."""

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.services import account_limits as limits
from arriero.registry.services import account_usage as usage
from arriero.registry.services.account_usage import wire_limit

router = APIRouter(prefix="/accounts/{account}", tags=["accounts"])

MAX_BYTES = 2**62


class AccountLimit(BaseModel):
    """Body of a limit, bytes; -1 is none."""

    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(ge=-1, le=MAX_BYTES)


@router.get("/limits/local", summary="Limits of an account by RSE")
def get_local_limits(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    del actor
    found = limits.get_local_limits(context, account)
    return json_response({rse: wire_limit(limit) for rse, limit in found.items()})


@router.get("/limits/local/{rse}", summary="Limit of an account at an RSE")
def get_local_limit(context: ContextDep, actor: ActorDep, account: PathText, rse: PathText) -> Response:
    del actor
    limit = limits.get_local_limit(context, account, rse)
    return json_response({rse: None if limit is None else wire_limit(limit)})


@router.post(
    "/limits/local/{rse}",
    status_code=201,
    summary="Limit an account at an RSE",
    openapi_extra=sends(AccountLimit),
)
def set_local_limit(
    context: ContextDep, actor: ActorDep, account: PathText, rse: PathText, body: BodyDep
) -> Response:
    limits.set_local_limit(context, actor, account, rse, parse(AccountLimit, body).bytes)
    return Response(status_code=201)


@router.delete("/limits/local/{rse}", summary="Remove the limit of an account at an RSE")
def delete_local_limit(context: ContextDep, actor: ActorDep, account: PathText, rse: PathText) -> Response:
    limits.delete_local_limit(context, actor, account, rse)
    return Response()


@router.get("/limits/global", summary="Limits of an account by RSE expression")
def get_global_limits(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    del actor
    found = limits.get_global_limits(context, account)
    return json_response({expression: wire_limit(limit) for expression, limit in found.items()})


@router.get("/limits/global/{expression:path}", summary="Limit of an account at the RSEs of an expression")
def get_global_limit(
    context: ContextDep, actor: ActorDep, account: PathText, expression: PathText
) -> Response:
    del actor
    limit = limits.get_global_limits(context, account).get(expression)
    return json_response({expression: None if limit is None else wire_limit(limit)})


@router.post(
    "/limits/global/{expression:path}",
    status_code=201,
    summary="Limit an account at the RSEs of an expression together",
    openapi_extra=sends(AccountLimit),
)
def set_global_limit(
    context: ContextDep, actor: ActorDep, account: PathText, expression: PathText, body: BodyDep
) -> Response:
    limits.set_global_limit(context, actor, account, expression, parse(AccountLimit, body).bytes)
    return Response(status_code=201)


@router.delete(
    "/limits/global/{expression:path}", summary="Remove the limit of an account at the RSEs of an expression"
)
def delete_global_limit(
    context: ContextDep, actor: ActorDep, account: PathText, expression: PathText
) -> Response:
    limits.delete_global_limit(context, actor, account, expression)
    return Response()


@router.get("/usage/local", summary="What an account uses by RSE, against its limits")
def list_local_usage(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    del actor
    return json_stream(usage.list_local_usage(context, account))


@router.get("/usage/local/{rse}", summary="What an account uses at an RSE, against its limit")
def get_local_usage(context: ContextDep, actor: ActorDep, account: PathText, rse: PathText) -> Response:
    del actor
    return json_stream(usage.list_local_usage(context, account, rse))


@router.get("/usage/global", summary="What an account uses by RSE expression, against its global limits")
def list_global_usage(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    del actor
    return json_stream(usage.list_global_usage(context, account))


@router.get("/usage/global/{expression:path}", summary="What an account uses at the RSEs of an expression")
def get_global_usage(
    context: ContextDep, actor: ActorDep, account: PathText, expression: PathText
) -> Response:
    del actor
    return json_stream(usage.list_global_usage(context, account, expression))


@router.get("/usage/history/{rse}", summary="What an account has used at an RSE over time")
def usage_history(context: ContextDep, actor: ActorDep, account: PathText, rse: PathText) -> Response:
    del actor
    return json_response(usage.usage_history(context, account, rse))
