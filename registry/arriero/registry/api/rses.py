"""RSEs, in Rucio's REST protocol."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.services import rse_protocols, rse_usage, rses

router = APIRouter(prefix="/rses", tags=["rses"])

Options = dict[str, Any]

MAX_BYTES = 2**62


class Distance(BaseModel):
    """Body of a distance; Rucio's older ``ranking`` is read as the distance where that is missing."""

    model_config = ConfigDict(extra="ignore")

    distance: int | None = None
    ranking: int | None = None
    bidirectional: bool = False


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


@router.get("", summary="RSEs, those of an expression if one is given")
def list_rses(
    context: ContextDep,
    actor: ActorDep,
    expression: Annotated[str | None, Query(max_length=1024)] = None,
) -> Response:
    del actor
    return json_stream(rses.list_rses(context, expression))


@router.get("/{rse}", summary="One RSE with its protocols")
def get_rse(context: ContextDep, actor: ActorDep, rse: PathText) -> Response:
    del actor
    return json_response(rses.get_rse(context, rse))


@router.post("/{rse}", summary="Add an RSE")
def add_rse(context: ContextDep, actor: ActorDep, rse: PathText, body: BodyDep) -> Response:
    rses.add_rse(context, actor, rse, parse(Options, body) if body else {})
    return Response(status_code=201)


@router.put("/{rse}", summary="Change the settings of an RSE")
def update_rse(context: ContextDep, actor: ActorDep, rse: PathText, body: BodyDep) -> Response:
    rses.update_rse(context, actor, rse, parse(Options, body))
    return Response(status_code=201)


@router.get("/{rse}/attr", summary="Attributes of an RSE")
def list_attributes(context: ContextDep, actor: ActorDep, rse: PathText) -> Response:
    del actor
    return json_response(rses.list_attributes(context, rse))


@router.post("/{rse}/attr/{key}", summary="Set an attribute of an RSE")
def set_attribute(
    context: ContextDep, actor: ActorDep, rse: PathText, key: PathText, body: BodyDep
) -> Response:
    rses.set_attribute(context, actor, rse, key, parse(Options, body).get("value"))
    return Response(status_code=201)


@router.delete("/{rse}/attr/{key}", summary="Remove an attribute of an RSE")
def delete_attribute(context: ContextDep, actor: ActorDep, rse: PathText, key: PathText) -> Response:
    rses.delete_attribute(context, actor, rse, key)
    return Response()


@router.get("/{rse}/protocols", summary="Protocols of an RSE")
def list_protocols(
    context: ContextDep,
    actor: ActorDep,
    rse: PathText,
    protocol_domain: str = "ALL",
    operation: str | None = None,
) -> Response:
    del actor
    return json_response(
        rse_protocols.list_protocols(context, rse, domain=protocol_domain, operation=operation)
    )


@router.get("/{rse}/protocols/{scheme}", summary="Protocols of one scheme of an RSE")
def get_protocols(context: ContextDep, actor: ActorDep, rse: PathText, scheme: PathText) -> Response:
    del actor
    return json_response(rse_protocols.list_protocols(context, rse, scheme=scheme))


@router.post("/{rse}/protocols/{scheme}", summary="Add a protocol to an RSE")
def add_protocol(
    context: ContextDep, actor: ActorDep, rse: PathText, scheme: PathText, body: BodyDep
) -> Response:
    rse_protocols.add_protocol(context, actor, rse, scheme, parse(Options, body))
    return Response(status_code=201)


@router.delete("/{rse}/protocols/{scheme}", summary="Remove the protocols of a scheme")
@router.delete("/{rse}/protocols/{scheme}/{hostname}", summary="Remove the protocols of a host")
@router.delete("/{rse}/protocols/{scheme}/{hostname}/{port}", summary="Remove a protocol")
def delete_protocols(
    context: ContextDep,
    actor: ActorDep,
    rse: PathText,
    scheme: PathText,
    *,
    hostname: PathText | None = None,
    port: int | None = None,
) -> Response:
    rse_protocols.delete_protocols(context, actor, rse, scheme, hostname=hostname, port=port)
    return Response()


@router.get("/{source}/distances/{destination}", summary="Distance between two RSEs")
def get_distance(context: ContextDep, actor: ActorDep, source: PathText, destination: PathText) -> Response:
    del actor
    return json_response(rse_protocols.get_distance(context, source, destination))


@router.post("/{source}/distances/{destination}", status_code=201, summary="Set a distance")
@router.put("/{source}/distances/{destination}", status_code=200, summary="Change a distance")
def set_distance(
    context: ContextDep,
    actor: ActorDep,
    source: PathText,
    destination: PathText,
    body: BodyDep,
) -> None:
    given = parse(Distance, body)
    value = given.ranking if given.distance is None else given.distance
    rse_protocols.set_distance(
        context, actor, source, destination, 1 if value is None else value, bidirectional=given.bidirectional
    )


@router.delete("/{source}/distances/{destination}", summary="Remove a distance")
def delete_distance(
    context: ContextDep,
    actor: ActorDep,
    source: PathText,
    destination: PathText,
    bidirectional: bool = False,
) -> Response:
    rse_protocols.delete_distance(context, actor, source, destination, bidirectional=bidirectional)
    return Response()


@router.get("/{rse}/usage", summary="What was measured of an RSE")
def list_usage(context: ContextDep, actor: ActorDep, rse: PathText) -> Response:
    del actor
    return json_stream(rse_usage.list_usage(context, rse))


@router.put("/{rse}/usage", summary="Write what was measured of an RSE")
def set_usage(context: ContextDep, actor: ActorDep, rse: PathText, body: BodyDep) -> Response:
    rse_usage.set_usage(context, actor, rse, parse(Usage, body).model_dump())
    return Response()


@router.get("/{rse}/limits", summary="Limits of an RSE")
def list_limits(context: ContextDep, actor: ActorDep, rse: PathText) -> Response:
    del actor
    return json_response(rse_usage.list_limits(context, rse))


@router.put("/{rse}/limits", summary="Set a limit of an RSE")
def set_limit(context: ContextDep, actor: ActorDep, rse: PathText, body: BodyDep) -> Response:
    limit = parse(Limit, body)
    rse_usage.set_limit(context, actor, rse, limit.name, limit.value)
    return Response()


@router.delete("/{rse}/limits", summary="Remove a limit of an RSE")
def delete_limit(context: ContextDep, actor: ActorDep, rse: PathText, body: BodyDep) -> Response:
    rse_usage.delete_limit(context, actor, rse, parse(Limit, body).name)
    return Response()
