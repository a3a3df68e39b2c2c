"""Lost files: which they are, and whose loss is accepted. Rucio has no word for it: it gives them up by itself."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, parse
from arriero.registry.services import losses

router = APIRouter(prefix="/losses", tags=["losses"])


class LostFile(BaseModel):
    """A file that is lost."""

    model_config = ConfigDict(extra="ignore")

    scope: str = Field(max_length=40)
    name: str = Field(max_length=1000)


class AcceptedLosses(BaseModel):
    """Files that are not to be waited for any more."""

    model_config = ConfigDict(extra="forbid")

    dids: list[LostFile] = Field(min_length=1)
    reason: str | None = Field(default=None, max_length=losses.MAX_REASON_CHARACTERS)


@router.get("", summary="List lost files")
def list_losses(
    context: ContextDep,
    _: ActorDep,
    scope: Annotated[str | None, Query(max_length=40)] = None,
    accepted: bool = False,
) -> StreamingResponse:
    return json_stream(losses.list_losses(context, scope=scope, accepted=accepted))


@router.post("/accept", summary="Accept the loss of files", openapi_extra=sends(AcceptedLosses))
def accept_losses(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(AcceptedLosses, body)
    losses.accept_losses(context, actor, [(did.scope, did.name) for did in sent.dids], reason=sent.reason)
    return Response(status_code=200)
