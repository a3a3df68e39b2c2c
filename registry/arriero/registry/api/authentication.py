"""Logging in, as the official client does it: everything travels in headers."""

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from arriero.registry.api.streams import json_response, wire_date
from arriero.registry.dependencies import ContextDep, sent_token
from arriero.registry.errors import NoCredential
from arriero.registry.services.authentication import login, token_expiry

router = APIRouter(prefix="/auth", tags=["authentication"])


@router.get("/userpass", summary="Exchange a user name and password for a token")
def userpass(
    context: ContextDep,
    x_rucio_account: Annotated[str | None, Header()] = None,
    x_rucio_username: Annotated[str, Header()] = "",
    x_rucio_password: Annotated[str, Header()] = "",
) -> Response:
    issued = login(
        context, account=x_rucio_account or None, username=x_rucio_username, password=x_rucio_password
    )
    headers = {
        "X-Rucio-Auth-Account": issued.account,
        "X-Rucio-Auth-Token": issued.token,
        "X-Rucio-Auth-Token-Expires": wire_date(issued.expires_at),
    }
    return Response(b"", media_type="application/octet-stream", headers=headers)


@router.get("/validate", summary="Whether a token holds, and until when")
def validate(request: Request, context: ContextDep) -> Response:
    token = sent_token(request)
    if token is None:
        raise NoCredential("there is no token to validate: send one as X-Rucio-Auth-Token")
    account, expires_at = token_expiry(context, token)
    return json_response({"account": account, "lifetime": expires_at})
