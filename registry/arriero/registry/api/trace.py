"""Routes for looking: the way of one file, and how much there is of everything."""

from fastapi import APIRouter
from fastapi.responses import Response

from arriero.registry.api.streams import json_response
from arriero.registry.dependencies import ActorDep, ContextDep, PathText
from arriero.registry.services.counts import count_everything
from arriero.registry.services.trace import trace_file

router = APIRouter(tags=["trace"])


@router.get(
    "/trace/{scope}/{name:path}", summary="The way of one file: every step with its state, reason and age"
)
def trace(context: ContextDep, _actor: ActorDep, scope: PathText, name: PathText) -> Response:
    return json_response(trace_file(context, scope, name).model_dump(mode="json"))


@router.get("/counts", summary="True counts of DIDs, replicas, rules, requests and arrivals")
def counts(context: ContextDep, _actor: ActorDep) -> Response:
    return json_response(count_everything(context).model_dump(mode="json"))
