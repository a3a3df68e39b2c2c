"""Accounts, identities and the scopes of an account, in Rucio's REST protocol."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.services import account_attributes, accounts, identities, rules

router = APIRouter(prefix="/accounts", tags=["accounts"])


class NewAccount(BaseModel):
    """Body of an account to add; ``role`` is Arriero's."""

    model_config = ConfigDict(extra="forbid")

    type: str
    email: str | None = None
    role: str | None = None


class AccountChanges(BaseModel):
    """Body of what changes of an account; ``role`` is Arriero's."""

    model_config = ConfigDict(extra="forbid")

    status: str | None = None
    email: str | None = None
    account_type: str | None = None
    role: str | None = None


class Attribute(BaseModel):
    """Body of an attribute; its key is that of the path."""

    model_config = ConfigDict(extra="forbid")

    key: str | None = None
    value: str | bool | int | float


class OldIdentity(BaseModel):
    """Body of an identity to take away."""

    model_config = ConfigDict(extra="forbid")

    identity: str
    authtype: str


class NewIdentity(BaseModel):
    """Body of an identity to add."""

    model_config = ConfigDict(extra="forbid")

    identity: str
    authtype: str
    email: str | None = None
    default: bool = False
    password: str | None = None


@router.get("", summary="Accounts; the query filters by type, identity, status and any attribute")
def list_accounts(
    request: Request,
    context: ContextDep,
    actor: ActorDep,
    account_type: str | None = None,
    identity: str | None = None,
) -> Response:
    # declared for the OpenAPI document: the query may name a status and any attribute too
    del actor, account_type, identity
    return json_stream(accounts.list_accounts(context, dict(request.query_params)))


@router.get("/whoami", summary="The account that is calling")
def whoami(context: ContextDep, actor: ActorDep) -> Response:
    return json_response(accounts.get_account(context, actor.account))


@router.get("/{account}", summary="One account")
def get_account(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    del actor
    return json_response(accounts.get_account(context, account))


@router.post("/{account}", status_code=201, summary="Add an account", openapi_extra=sends(NewAccount))
def add_account(context: ContextDep, actor: ActorDep, account: PathText, body: BodyDep) -> Response:
    new = parse(NewAccount, body)
    accounts.add_account(context, actor, account, kind=new.type, email=new.email, role=new.role)
    return Response(status_code=201)


@router.put("/{account}", summary="Change an account", openapi_extra=sends(AccountChanges))
def update_account(context: ContextDep, actor: ActorDep, account: PathText, body: BodyDep) -> Response:
    changes = parse(AccountChanges, body).model_dump(exclude_unset=True)
    accounts.update_account(context, actor, account, changes)
    return Response()


@router.delete("/{account}", summary="Delete an account: its name stays, nobody logs in as it")
def delete_account(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    accounts.delete_account(context, actor, account)
    return Response()


@router.get("/{account}/attr", summary="Attributes of an account")
def list_attributes(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    del actor
    return json_response(account_attributes.list_attributes(context, account))


@router.post(
    "/{account}/attr/{key}",
    status_code=201,
    summary="Add an attribute to an account",
    openapi_extra=sends(Attribute),
)
def add_attribute(
    context: ContextDep, actor: ActorDep, account: PathText, key: PathText, body: BodyDep
) -> Response:
    account_attributes.add_attribute(context, actor, account, key, parse(Attribute, body).value)
    return Response(status_code=201)


@router.delete("/{account}/attr/{key}", summary="Remove an attribute of an account")
def delete_attribute(context: ContextDep, actor: ActorDep, account: PathText, key: PathText) -> Response:
    account_attributes.delete_attribute(context, actor, account, key)
    return Response()


@router.get("/{account}/identities", summary="Who may act as an account")
def list_identities(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    return json_stream(identities.list_identities(context, actor, account))


@router.post(
    "/{account}/identities",
    status_code=201,
    summary="Let an identity act as an account",
    openapi_extra=sends(NewIdentity),
)
def add_identity(context: ContextDep, actor: ActorDep, account: PathText, body: BodyDep) -> Response:
    new = parse(NewIdentity, body)
    identities.add_identity(
        context,
        actor,
        account,
        identity=new.identity,
        kind=new.authtype,
        password=new.password,
        is_default=new.default,
        email=new.email,
    )
    return Response(status_code=201)


@router.delete(
    "/{account}/identities",
    summary="Let an identity no longer act as an account",
    openapi_extra=sends(OldIdentity),
)
def delete_identity(context: ContextDep, actor: ActorDep, account: PathText, body: BodyDep) -> Response:
    old = parse(OldIdentity, body)
    identities.delete_identity(context, actor, account, identity=old.identity, kind=old.authtype)
    return Response()


@router.get("/{account}/scopes", summary="Scopes of an account")
def list_scopes(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    del actor
    return json_response([row["scope"] for row in accounts.list_scopes(context, account)])


@router.post("/{account}/scopes/{scope}", status_code=201, summary="Add a scope")
def add_scope(context: ContextDep, actor: ActorDep, account: PathText, scope: PathText) -> Response:
    accounts.add_scope(context, actor, account, scope)
    return Response(status_code=201)


@router.get("/{account}/rules", summary="Rules of an account")
def list_rules(context: ContextDep, actor: ActorDep, account: PathText) -> Response:
    del actor
    return json_stream(rules.list_rules(context, {"account": account}))
