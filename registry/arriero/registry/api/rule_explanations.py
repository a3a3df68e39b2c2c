"""Why a rule is as it is: Arriero's own, beside Rucio's rules."""

from fastapi import APIRouter
from fastapi.responses import Response

from arriero.registry.api.streams import json_response
from arriero.registry.dependencies import ActorDep, ContextDep, PathText
from arriero.registry.services.rule_explanation import explain_rule

router = APIRouter(prefix="/rules", tags=["rules"])


@router.get(
    "/{rule_id}/explain",
    summary="Why a rule is as it is: its RSEs, what its files wait for, until when, and what can be done",
)
def explain(context: ContextDep, _actor: ActorDep, rule_id: PathText) -> Response:
    return json_response(explain_rule(context, rule_id).model_dump(mode="json"))
