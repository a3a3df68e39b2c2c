"""Locks in Rucio's REST protocol; those of one rule are at ``/rules/{id}/locks``."""

from fastapi import APIRouter
from fastapi.responses import Response

from arriero.registry.api.streams import json_stream
from arriero.registry.dependencies import ActorDep, ContextDep, PathText
from arriero.registry.errors import Unsupported
from arriero.registry.services import locks

router = APIRouter(prefix="/locks", tags=["locks"])


def _only_datasets(did_type: str) -> None:
    if did_type != "dataset":
        raise Unsupported("only the locks of datasets are in Arriero yet; see /rules/{id}/locks for files")


@router.get("/{rse}", summary="What rules have placed at an RSE")
def list_at_rse(context: ContextDep, actor: ActorDep, rse: PathText, did_type: str = "dataset") -> Response:
    del actor
    _only_datasets(did_type)
    return json_stream(locks.list_dataset_locks_at(context, rse))


@router.get("/{scope}/{name:path}", summary="Where rules have placed a dataset")
def list_of_did(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, did_type: str = "dataset"
) -> Response:
    del actor
    _only_datasets(did_type)
    return json_stream(locks.list_dataset_locks(context, scope, name))
