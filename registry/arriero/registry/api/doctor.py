"""Routes of the doctor: whether the invariants hold on this system, and mending what can be mended."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, parse
from arriero.registry.services import doctor

router = APIRouter(prefix="/doctor", tags=["doctor"])


class RepairOf(BaseModel):
    """Body of a repair."""

    model_config = ConfigDict(extra="forbid")

    checks: list[str] = Field(
        default_factory=list, max_length=100, description="Checks or invariants; all when there are none."
    )


@router.get("", summary="Whether the invariants hold: a line a check, and lines that say how far it has come")
def examine(
    context: ContextDep,
    actor: ActorDep,
    check: Annotated[
        list[str] | None, Query(max_length=100, description="Checks or invariants; all when there are none.")
    ] = None,
) -> StreamingResponse:
    return json_stream(doctor.report(context, actor, check or ()), at_once=True)


@router.post(
    "/repair",
    summary="Count anew the rules whose counts are wrong, have those that checks name looked at as a whole",
    openapi_extra=sends(RepairOf),
)
def repair(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    return json_response(doctor.repair(context, actor, parse(RepairOf, body).checks))
