"""How much of datasets lies where, in Rucio's REST protocol."""

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.services import dataset_replicas

router = APIRouter(prefix="/replicas", tags=["replicas"])


class DatasetKey(BaseModel):
    """A dataset by its name."""

    model_config = ConfigDict(extra="ignore")

    scope: str = Field(max_length=40)
    name: str = Field(max_length=1000)


class DatasetsBody(BaseModel):
    """Datasets whose replicas are asked for."""

    model_config = ConfigDict(extra="ignore")

    dids: list[DatasetKey]


@router.post(
    "/datasets_bulk", summary="How much of many datasets lies where", openapi_extra=sends(DatasetsBody)
)
def list_dataset_replicas_bulk(context: ContextDep, actor: ActorDep, body: BodyDep) -> StreamingResponse:
    del actor
    sent = parse(DatasetsBody, body)
    keys = [(did.scope, did.name) for did in sent.dids]
    return json_stream(dataset_replicas.list_dataset_replicas_bulk(context, keys), paged=True)


@router.get("/rse/{rse}", summary="Datasets of which anything lies at an RSE, with how much")
def list_datasets_at(context: ContextDep, actor: ActorDep, rse: PathText) -> StreamingResponse:
    del actor
    return json_stream(dataset_replicas.list_datasets_at(context, rse), paged=True)


@router.get("/{scope}/{name:path}/datasets", summary="How much of a dataset or container lies where")
def list_dataset_replicas(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, deep: bool = False
) -> StreamingResponse:
    # what is asked for file by file with `deep` is always counted file by file here
    del actor, deep
    return json_stream(dataset_replicas.list_dataset_replicas(context, scope, name), paged=True)


@router.get("/{scope}/{name:path}/datasets_vp", summary="Sites of Rucio's Virtual Placement: there are none")
def list_dataset_replicas_vp(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, deep: bool = False
) -> StreamingResponse:
    del actor, deep
    # the service of that name is ATLAS's own; what it would place is empty here, for a DID that is there
    dataset_replicas.check_did(context, scope, name)
    return json_stream(())
