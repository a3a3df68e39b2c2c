"""Scopes, in Rucio's REST protocol."""

from fastapi import APIRouter
from fastapi.responses import Response

from arriero.registry.api.streams import json_response
from arriero.registry.dependencies import ActorDep, ContextDep, PathText
from arriero.registry.services import accounts

router = APIRouter(prefix="/scopes", tags=["scopes"])


@router.get("", summary="Names of the scopes")
def list_scopes(context: ContextDep, actor: ActorDep) -> Response:
    del actor
    return json_response([row["scope"] for row in accounts.list_scopes(context)])


@router.get("/owner", summary="Scopes with the accounts that own them")
def list_owners(context: ContextDep, actor: ActorDep) -> Response:
    del actor
    return json_response(accounts.list_scopes(context))


@router.put("/{account}/{scope}", status_code=201, summary="Give a scope to an account")
def update_scope(context: ContextDep, actor: ActorDep, account: PathText, scope: PathText) -> Response:
    accounts.update_scope(context, actor, account, scope)
    # what Rucio's client waits for
    return Response(status_code=201)
