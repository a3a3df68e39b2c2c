"""Routes of arrivals: the ledger for people, the queue for agents."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import Field, TypeAdapter

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, parse
from arriero.registry.models import MAX_CLAIM, ArrivalFilter, ArrivalOutcome, ClaimArrivals, ExtendArrivals
from arriero.registry.services import arrivals

router = APIRouter(prefix="/arrivals", tags=["arrivals"])

POLL_S = 0.25
"""How often a waiting claim looks, seconds."""

_CLAIM = TypeAdapter(ClaimArrivals)
_OUTCOMES: TypeAdapter[list[ArrivalOutcome]] = TypeAdapter(
    Annotated[list[ArrivalOutcome], Field(max_length=MAX_CLAIM)]
)
_EXTENSION = TypeAdapter(ExtendArrivals)


@router.get("", summary="The ledger of arrivals, by id")
def list_arrivals(
    context: ContextDep, _actor: ActorDep, chosen: Annotated[ArrivalFilter, Query()]
) -> Response:
    found = arrivals.list_arrivals(context, chosen)
    return json_stream((arrival.model_dump(mode="json") for arrival in found), paged=True)


@router.post(
    "/claim", summary="Lease due arrivals of a butler, waiting for the first", openapi_extra=sends(_CLAIM)
)
async def claim_arrivals(request: Request, context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    claim = parse(_CLAIM, body)
    butler_id = await run_in_threadpool(arrivals.authorize_claim, context, actor, claim.butler)
    deadline = time.monotonic() + claim.wait_s
    while True:
        files = await run_in_threadpool(arrivals.claim_arrivals, context, actor, butler_id, claim)
        left = deadline - time.monotonic()
        if files or left <= 0 or await request.is_disconnected():
            return json_response([file.model_dump(mode="json") for file in files])
        await asyncio.sleep(min(POLL_S, left))


@router.post("/report", summary="Report what became of claimed arrivals", openapi_extra=sends(_OUTCOMES))
def report_arrivals(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    outcomes = parse(_OUTCOMES, body)
    return json_response({"rejected": arrivals.report_arrivals(context, actor, outcomes)})


@router.post("/extend", summary="Extend the leases of claimed arrivals", openapi_extra=sends(_EXTENSION))
def extend_arrivals(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    extension = parse(_EXTENSION, body)
    return json_response({"lost": arrivals.extend_arrivals(context, actor, extension)})
