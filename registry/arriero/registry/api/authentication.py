"""Logging in, as the official client does it: everything travels in headers."""

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from arriero.registry.api.streams import json_response, wire_date
from arriero.registry.dependencies import ContextDep, sent_token, verified_subject
from arriero.registry.errors import NoCredential
from arriero.registry.services.authentication import (
    IssuedToken,
    login,
    login_with_certificate,
    token_expiry,
)

router = APIRouter(prefix="/auth", tags=["authentication"])

AccountHeader = Annotated[str | None, Header(description="Account to act as; the default one when missing.")]


@router.get("/userpass", summary="Exchange a user name and password for a token")
def userpass(
    context: ContextDep,
    x_rucio_account: AccountHeader = None,
    x_rucio_username: Annotated[str, Header()] = "",
    x_rucio_password: Annotated[str, Header()] = "",
) -> Response:
    return _issued(
        login(context, account=x_rucio_account or None, username=x_rucio_username, password=x_rucio_password)
    )


@router.get("/x509", summary="Exchange a certificate, which a trusted proxy has verified, for a token")
def x509(request: Request, context: ContextDep, x_rucio_account: AccountHeader = None) -> Response:
    subject = verified_subject(request, context.settings, of_owner=False)
    return _issued(login_with_certificate(context, account=x_rucio_account or None, subject=subject))


@router.get("/x509_proxy", summary="The same with a grid proxy certificate, as the one whose proxy it is")
def x509_proxy(request: Request, context: ContextDep, x_rucio_account: AccountHeader = None) -> Response:
    subject = verified_subject(request, context.settings, of_owner=True)
    return _issued(login_with_certificate(context, account=x_rucio_account or None, subject=subject))


def _issued(issued: IssuedToken) -> Response:
    headers = {
        "X-Rucio-Auth-Account": issued.account,
        "X-Rucio-Auth-Token": issued.token,
        "X-Rucio-Auth-Token-Expires": wire_date(issued.expires_at),
    }
    return Response(b"", media_type="application/octet-stream", headers=headers)


@router.get("/validate", summary="Whether a token holds, and until when")
def validate(request: Request, context: ContextDep, x_rucio_account: AccountHeader = None) -> Response:
    token = sent_token(request)
    if token is None:
        raise NoCredential("there is no token to validate: send one as X-Rucio-Auth-Token")
    account, expires_at = token_expiry(context, token, x_rucio_account or None)
    return json_response({"account": account, "lifetime": expires_at})
