"""Accounts, identities and the scopes of an account, in Rucio's REST protocol."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.services import accounts, rules

router = APIRouter(prefix="/accounts", tags=["accounts"])


class NewAccount(BaseModel):
    """Body of an account to add; ``role`` is Arriero's."""

    model_config = ConfigDict(extra="forbid")

    type: str
    email: str | None = None
    role: str | None = None


class NewIdentity(BaseModel):
    """Body of an identity to add."""

    model_config = ConfigDict(extra="forbid")

    identity: str
    authtype: str
    email: str | None = None
    default: bool = False
    password: str | None = None


@router.get("", summary="Accounts")
def list_accounts(
    context: ContextDep,
    actor: ActorDep,
    account_type: str | None = None,
    identity: str | None = None,
) -> Response:
    del actor
    return json_stream(accounts.list_accounts(context, kind=account_type, identity=identity))


@router.get("/whoami", summary="The account that is calling")
def whoami(context: ContextDep, actor: ActorDep) -> Response:
    return json_response(accounts.get_account(context, actor.account))


@router.get("/{account}", summary="One account")
def get_account(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    del actor
    return json_response(accounts.get_account(context, account))


@router.post("/{account}", summary="Add an account", openapi_extra=sends(NewAccount))
def add_account(context: ContextDep, actor: ActorDep, account: PathText, body: BodyDep) -> Response:
    new = parse(NewAccount, body)
    accounts.add_account(context, actor, account, kind=new.type, email=new.email, role=new.role)
    return Response(status_code=201)


@router.put("/{account}", summary="Change an account")
def update_account(context: ContextDep, actor: ActorDep, account: PathText, body: BodyDep) -> Response:
    accounts.update_account(context, actor, account, parse(dict[str, Any], body))
    return Response()


@router.get("/{account}/identities", summary="Who may act as an account")
def list_identities(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    return json_stream(accounts.list_identities(context, actor, account))


@router.post("/{account}/identities", summary="Let an identity act as an account")
def add_identity(context: ContextDep, actor: ActorDep, account: PathText, body: BodyDep) -> Response:
    new = parse(NewIdentity, body)
    accounts.add_identity(
        context,
        actor,
        account,
        identity=new.identity,
        kind=new.authtype,
        password=new.password,
        is_default=new.default,
    )
    return Response(status_code=201)


@router.get("/{account}/scopes", summary="Scopes of an account")
def list_scopes(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    del actor
    return json_response([row["scope"] for row in accounts.list_scopes(context, account)])


@router.post("/{account}/scopes/{scope}", summary="Add a scope")
def add_scope(context: ContextDep, actor: ActorDep, account: PathText, scope: PathText) -> Response:
    accounts.add_scope(context, actor, account, scope)
    return Response(status_code=201)


@router.get("/{account}/rules", summary="Rules of an account")
def list_rules(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    del actor
    return json_stream(rules.list_rules(context, {"account": account}))
