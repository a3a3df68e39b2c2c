"""The accounts of an identity, in Rucio's REST protocol."""

from fastapi import APIRouter
from fastapi.responses import Response

from arriero.registry.api.streams import json_response
from arriero.registry.dependencies import ActorDep, ContextDep, PathText
from arriero.registry.services import identities

router = APIRouter(prefix="/identities", tags=["accounts"])


@router.get("/{identity:path}/{kind}/accounts", summary="Accounts as which an identity may act")
def list_accounts(context: ContextDep, actor: ActorDep, identity: PathText, kind: PathText) -> Response:
    return json_response(identities.list_accounts_of(context, actor, identity, kind))
