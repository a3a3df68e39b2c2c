"""Locks in Rucio's REST protocol; those of one rule are at ``/rules/{id}/locks``."""

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.errors import InvalidInput, Unsupported
from arriero.registry.services import locks

router = APIRouter(prefix="/locks", tags=["locks"])


class LockedDid(BaseModel):
    """A DID whose locks are asked for; its type is known."""

    model_config = ConfigDict(extra="ignore")

    scope: str
    name: str


class LockedDids(BaseModel):
    """Body that names DIDs whose locks are asked for."""

    dids: list[LockedDid]


def _is_of_files(did_type: str) -> bool:
    if did_type not in {"dataset", "file"}:
        raise InvalidInput("did_type is dataset or file")
    return did_type == "file"


@router.post(
    "/bulk_locks_for_dids",
    summary="Where rules have placed datasets and containers",
    openapi_extra=sends(LockedDids),
)
def list_of_dids(context: ContextDep, actor: ActorDep, body: BodyDep) -> StreamingResponse:
    del actor
    targets = [(did.scope, did.name) for did in parse(LockedDids, body).dids]
    return json_stream(locks.list_locks_of_dids(context, targets))


@router.get("/{rse}", summary="What rules have placed at an RSE")
def list_at_rse(
    context: ContextDep, actor: ActorDep, rse: PathText, did_type: str = "dataset"
) -> StreamingResponse:
    del actor
    if _is_of_files(did_type):
        raise Unsupported(
            "the locks of single files at an RSE are not listed: list its dataset locks, or /rules/{id}/locks"
        )
    return json_stream(locks.list_dataset_locks_at(context, rse))


@router.get("/{scope}/{name:path}", summary="Where rules have placed a DID")
def list_of_did(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, did_type: str = "dataset"
) -> StreamingResponse:
    del actor
    if _is_of_files(did_type):
        return json_stream(locks.list_file_locks(context, scope, name))
    return json_stream(locks.list_dataset_locks(context, scope, name))
