"""Routes of arrivals: the ledger for people, the queue for agents."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import Field, TypeAdapter

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.api.watches import Watch
from arriero.registry.arrival_words import AdoptArrivals, ChangeArrivals, HeldArrivals, WakeArrivals
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, parse
from arriero.registry.models import MAX_CLAIM, ArrivalFilter, ArrivalOutcome, ClaimArrivals, ExtendArrivals
from arriero.registry.services import arrival_changes as changes
from arriero.registry.services import arrivals

router = APIRouter(prefix="/arrivals", tags=["arrivals"])

LONGEST_WAIT_S = 1.0
"""How long an agent that was killed while it waited is waited for, seconds."""

_CLAIM = TypeAdapter(ClaimArrivals)
_OUTCOMES: TypeAdapter[list[ArrivalOutcome]] = TypeAdapter(
    Annotated[list[ArrivalOutcome], Field(max_length=MAX_CLAIM)]
)
_EXTENSION = TypeAdapter(ExtendArrivals)
_HELD = TypeAdapter(HeldArrivals)
_FOUND = TypeAdapter(AdoptArrivals)
_CHANGE = TypeAdapter(ChangeArrivals)
_WAKE = TypeAdapter(WakeArrivals)


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
    watch: Watch = request.app.state.arrivals_watch
    deadline = time.monotonic() + claim.wait_s
    while True:
        files = await run_in_threadpool(arrivals.claim_arrivals, context, actor, butler_id, claim)
        left = deadline - time.monotonic()
        if files or left <= 0:
            return json_response([file.model_dump(mode="json") for file in files])
        await watch.wait(butler_id, min(LONGEST_WAIT_S, left))
        # nothing is leased to an agent that was killed while it waited
        if await request.is_disconnected():
            return json_response([])


@router.post("/report", summary="Report what became of claimed arrivals", openapi_extra=sends(_OUTCOMES))
def report_arrivals(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    outcomes = parse(_OUTCOMES, body)
    return json_response({"rejected": arrivals.report_arrivals(context, actor, outcomes)})


@router.post(
    "/release",
    summary="Mark arrivals as released whose datasets have been taken out of the Butler",
    openapi_extra=sends(_HELD),
)
def release_arrivals(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    return json_response({"rejected": changes.release(context, actor, parse(_HELD, body))})


@router.post(
    "/ingest-again",
    summary="Have arrivals ingested again whose datasets the Butler has lost",
    openapi_extra=sends(_HELD),
)
def ingest_again(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    return json_response({"rejected": changes.ingest_again(context, actor, parse(_HELD, body))})


@router.post(
    "/adopt",
    summary="Write down what a Butler has, whatever the ledger said",
    openapi_extra=sends(_FOUND),
)
def adopt_arrivals(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    return json_response({"rejected": changes.adopt(context, actor, parse(_FOUND, body))})


@router.post(
    "/change", summary="Have arrivals tried again, parked, or left out", openapi_extra=sends(_CHANGE)
)
def change_arrivals(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    return json_response(changes.change(context, actor, parse(_CHANGE, body)).model_dump(mode="json"))


@router.post(
    "/wake",
    summary="Have what is parked tried again, whose prerequisites have come",
    openapi_extra=sends(_WAKE),
)
def wake_arrivals(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    return json_response(changes.wake(context, actor, parse(_WAKE, body)).model_dump(mode="json"))


@router.post("/extend", summary="Extend the leases of claimed arrivals", openapi_extra=sends(_EXTENSION))
def extend_arrivals(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    extension = parse(_EXTENSION, body)
    return json_response({"lost": arrivals.extend_arrivals(context, actor, extension)})
