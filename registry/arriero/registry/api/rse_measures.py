"""Distances, usage, limits and classes of service of RSEs, in Rucio's REST protocol."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.services import replica_lifetimes, rse_distances, rse_usage

router = APIRouter(prefix="/rses", tags=["rses"])

MAX_BYTES = 2**62

Source = Annotated[str | None, Query(max_length=64)]


class Distance(BaseModel):
    """Body of a distance; Rucio's older ``ranking`` is read as the distance where that is missing."""

    model_config = ConfigDict(extra="ignore")

    distance: int | None = None
    ranking: int | None = None
    bidirectional: bool = False

    @property
    def value(self) -> int:
        """The distance that is meant."""
        given = self.ranking if self.distance is None else self.distance
        return 1 if given is None else given


class Usage(BaseModel):
    """Body of a measurement, bytes."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(min_length=1, max_length=64)
    used: int | None = Field(default=None, ge=0, le=MAX_BYTES)
    free: int | None = Field(default=None, ge=0, le=MAX_BYTES)
    files: int | None = Field(default=None, ge=0, le=MAX_BYTES)


class Limit(BaseModel):
    """Body of a limit, bytes."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    value: int = Field(default=0, ge=0, le=MAX_BYTES)


@router.get("/{source}/distances/{destination}", summary="Distance between two RSEs")
def get_distance(context: ContextDep, actor: ActorDep, source: PathText, destination: PathText) -> Response:
    del actor
    return json_response(rse_distances.get_distance(context, source, destination))


@router.post(
    "/{source}/distances/{destination}",
    status_code=201,
    summary="Set a distance",
    openapi_extra=sends(Distance),
)
def add_distance(
    context: ContextDep, actor: ActorDep, source: PathText, destination: PathText, body: BodyDep
) -> Response:
    given = parse(Distance, body)
    rse_distances.add_distance(
        context, actor, source, destination, given.value, bidirectional=given.bidirectional
    )
    return Response(status_code=201)


@router.put("/{source}/distances/{destination}", summary="Change a distance", openapi_extra=sends(Distance))
def update_distance(
    context: ContextDep, actor: ActorDep, source: PathText, destination: PathText, body: BodyDep
) -> Response:
    given = parse(Distance, body)
    rse_distances.update_distance(
        context, actor, source, destination, given.value, bidirectional=given.bidirectional
    )
    return Response()


@router.delete("/{source}/distances/{destination}", summary="Remove a distance")
def delete_distance(
    context: ContextDep,
    actor: ActorDep,
    source: PathText,
    destination: PathText,
    bidirectional: bool = False,
) -> Response:
    rse_distances.delete_distance(context, actor, source, destination, bidirectional=bidirectional)
    return Response()


@router.get("/{rse}/usage", summary="What is known of the space of an RSE, by source")
def list_usage(
    context: ContextDep, actor: ActorDep, rse: PathText, *, source: Source = None, per_account: bool = False
) -> Response:
    del actor
    return json_stream(rse_usage.list_usage(context, rse, source=source, per_account=per_account))


@router.put("/{rse}/usage", summary="Write what was measured of an RSE", openapi_extra=sends(Usage))
def set_usage(context: ContextDep, actor: ActorDep, rse: PathText, body: BodyDep) -> Response:
    rse_usage.set_usage(context, actor, rse, parse(Usage, body).model_dump())
    return Response()


@router.get("/{rse}/usage/history", summary="Everything that was measured of an RSE")
def list_usage_history(
    context: ContextDep, actor: ActorDep, rse: PathText, source: Source = None
) -> Response:
    del actor
    return json_stream(rse_usage.list_history(context, rse, source=source))


@router.get("/{rse}/removable", summary="Replicas at an RSE that deletion may take")
def list_removable(context: ContextDep, actor: ActorDep, rse: PathText) -> Response:
    del actor
    return json_stream(replica_lifetimes.list_candidates(context, rse))


@router.get("/{rse}/limits", summary="Limits of an RSE")
def list_limits(context: ContextDep, actor: ActorDep, rse: PathText) -> Response:
    del actor
    return json_response(rse_usage.list_limits(context, rse))


@router.put("/{rse}/limits", summary="Set a limit of an RSE", openapi_extra=sends(Limit))
def set_limit(context: ContextDep, actor: ActorDep, rse: PathText, body: BodyDep) -> Response:
    limit = parse(Limit, body)
    rse_usage.set_limit(context, actor, rse, limit.name, limit.value)
    return Response()


@router.delete("/{rse}/limits", summary="Remove a limit of an RSE", openapi_extra=sends(Limit))
def delete_limit(context: ContextDep, actor: ActorDep, rse: PathText, body: BodyDep) -> Response:
    rse_usage.delete_limit(context, actor, rse, parse(Limit, body).name)
    return Response()


@router.get("/{rse}/qos_policy", summary="Classes of service that an RSE offers")
def list_policies(context: ContextDep, actor: ActorDep, rse: PathText) -> Response:
    del actor
    return json_response(rse_usage.list_policies(context, rse))


@router.post("/{rse}/qos_policy/{policy}", status_code=201, summary="Add a class of service")
def add_policy(context: ContextDep, actor: ActorDep, rse: PathText, policy: PathText) -> Response:
    rse_usage.add_policy(context, actor, rse, policy)
    return Response(status_code=201)


@router.delete("/{rse}/qos_policy/{policy}", summary="Remove a class of service")
def delete_policy(context: ContextDep, actor: ActorDep, rse: PathText, policy: PathText) -> Response:
    rse_usage.delete_policy(context, actor, rse, policy)
    return Response()
