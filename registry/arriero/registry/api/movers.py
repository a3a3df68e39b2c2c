"""Routes of requests for the movers of sites: claim, extend, report."""

import asyncio
import time

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import TypeAdapter

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, parse
from arriero.registry.moving import ClaimRequests, ExtendRequests, ReportRequests
from arriero.registry.services import movers

router = APIRouter(prefix="/requests", tags=["requests"])

POLL_S = 0.25
"""How often a waiting claim looks, seconds."""

_CLAIM = TypeAdapter(ClaimRequests)
_EXTENSION = TypeAdapter(ExtendRequests)
_REPORT = TypeAdapter(ReportRequests)


@router.post(
    "/claim",
    summary="Lease due requests of a site's RSEs, waiting for the first",
    openapi_extra=sends(_CLAIM),
)
async def claim_requests(request: Request, context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    claim = parse(_CLAIM, body)
    site = await run_in_threadpool(movers.authorize_claim, context, actor, claim)
    deadline = time.monotonic() + claim.wait_s
    while True:
        orders = await run_in_threadpool(movers.claim_requests, context, actor, site, claim)
        left = deadline - time.monotonic()
        if orders or left <= 0:
            return json_response([order.model_dump(mode="json") for order in orders])
        await asyncio.sleep(min(POLL_S, left))
        # nothing is leased to a mover that was killed while it waited
        if await request.is_disconnected():
            return json_response([])


@router.post("/extend", summary="Extend the leases of claimed requests", openapi_extra=sends(_EXTENSION))
def extend_requests(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    extension = parse(_EXTENSION, body)
    return json_response({"lost": movers.extend_requests(context, actor, extension)})


@router.post("/report", summary="Report what became of claimed requests", openapi_extra=sends(_REPORT))
def report_requests(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    report = parse(_REPORT, body)
    return json_response({"rejected": movers.report_requests(context, actor, report)})
