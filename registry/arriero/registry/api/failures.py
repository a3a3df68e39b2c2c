"""How errors leave, each by its kind (`arriero.registry.api.refusals` has what they look like).

Refusals are written into the audit here, after the transaction in which they happened was rolled back.
"""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.exceptions import HTTPException

from arriero.registry.api.middleware import headers_of_every_answer
from arriero.registry.api.refusals import refusal, refusal_of
from arriero.registry.errors import (
    Busy,
    InvalidInput,
    NoCredential,
    NotAuthenticated,
    NotFound,
    RegistryError,
    Unsupported,
)
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Denied
from arriero.registry.services.context import Context
from arriero.registry.unsupported import reason_for
from arriero.rse.errors import InvalidExpression, InvalidName, RSEError

log = structlog.get_logger(__name__)

RUCIO_ROOTS = frozenset(
    {
        "accounts",
        "archives",
        "auth",
        "config",
        "credentials",
        "dids",
        "dirac",
        "export",
        "heartbeats",
        "identities",
        "import",
        "lifetime_exceptions",
        "locks",
        "meta",
        "meta_conventions",
        "nongrid_traces",
        "opendata",
        "ping",
        "redirect",
        "replicas",
        "requests",
        "rses",
        "rules",
        "scopes",
        "subscriptions",
        "tmp_dids",
        "traces",
        "transfers",
        "vos",
    }
)
"""First segments of Rucio's REST paths (41.5): below them a route that is missing is work to do, not a typing error."""


def install(app: FastAPI, context: Context) -> None:
    """Register the handlers."""
    app.state.strangers = audit.StrangerLog(context)
    app.add_exception_handler(RegistryError, _registry_error)
    app.add_exception_handler(RSEError, _rse_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(DBAPIError, _database_error)
    app.add_exception_handler(NoConnection, _database_error)
    app.add_exception_handler(Exception, _unexpected)


def _what(request: Request) -> str:
    return f"{request.method} {request.scope['path']}"


def _registry_error(request: Request, error: Any) -> Response:
    context = request.app.state.context
    if isinstance(error, Denied):
        log.warning("refused", account=error.actor.account, action=error.action, target=error.target.name)
        audit.record_denial(context, error)
    elif isinstance(error, NotAuthenticated):
        log.info("not authenticated", what=_what(request))
        if not isinstance(error, NoCredential):
            request.app.state.strangers.record(what=_what(request), request_id=request.state.request_id)
    elif error.http_status >= 500 and not isinstance(error, Unsupported):
        log.error("call failed", what=_what(request), code=error.stable_code, reason=error.message)
    return refusal_of(error)


def _rse_error(_request: Request, error: Any) -> Response:
    rucio_class = "RucioException"
    if isinstance(error, InvalidExpression):
        rucio_class = "InvalidRSEExpression"
    elif isinstance(error, InvalidName):
        rucio_class = "InvalidPath"
    return refusal(error.http_status, rucio_class, error.message, code=error.code, retryable=error.retryable)


def _invalid_request(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return _registry_error(request, InvalidInput(f"{place}: {first['msg']}"))


def _http_error(request: Request, error: Any) -> Response:
    if error.status_code in {404, 405}:
        root = request.scope["path"].lstrip("/").partition("/")[0]
        if root in RUCIO_ROOTS:
            reason = reason_for(request.method, request.scope["path"])
            return _registry_error(request, Unsupported(f"{_what(request)[:200]}: {reason}"))
        return _registry_error(request, NotFound(f"{_what(request)[:200]}: there is nothing here; see /docs"))
    return refusal(error.status_code, "RucioException", str(error.detail), code="http_error", retryable=False)


def _database_error(request: Request, error: Any) -> Response:
    if isinstance(error, DataError):
        log.warning("value refused by the database", what=_what(request))
        return _registry_error(request, InvalidInput("a value was sent that the catalogue cannot hold"))
    log.error("database failed", what=_what(request), exc_info=error)
    return _registry_error(request, Busy("the database did not answer as it should: try again"))


def _unexpected(request: Request, error: Exception) -> Response:
    request_id = request.state.request_id
    log.error("unexpected failure", what=_what(request), request_id=request_id, exc_info=error)
    answer = refusal(
        500,
        "RucioException",
        f"something went wrong that should not; the log has it under request id {request_id}",
        code="internal_error",
        retryable=False,
    )
    # this one leaves outside of the middleware
    for name, value in headers_of_every_answer(request_id):
        answer.headers[name.decode()] = value.decode()
    return answer
