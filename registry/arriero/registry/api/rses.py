"""RSEs, their attributes and protocols, in Rucio's REST protocol."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.services import rse_attributes, rse_pfns, rse_protocols, rses
from arriero.registry.services.rse_settings import RseChange, RseSettings

router = APIRouter(prefix="/rses", tags=["rses"])

Options = dict[str, Any]

Operation = Annotated[str | None, Query(max_length=32)]
Domain = Annotated[str, Query(max_length=8)]


class RseAttribute(BaseModel):
    """Body of an attribute."""

    model_config = ConfigDict(extra="ignore")

    value: str | bool | int | float | None = None


class ProtocolChanges(BaseModel):
    """Body of a change of protocols: of ``domains`` only what is named changes."""

    prefix: str | None = None
    impl: str | None = None
    domains: dict[str, dict[str, int | None]] | None = None
    extended_attributes: dict[str, Any] | None = None


class NewProtocol(ProtocolChanges):
    """Body of a protocol: a priority for each operation in the domains lan and wan, 1 first, 0 or null for off."""

    hostname: str | None = None
    port: int | None = None


@router.get("", summary="RSEs, those of an expression if one is given")
def list_rses(
    context: ContextDep,
    actor: ActorDep,
    expression: Annotated[str | None, Query()] = None,
) -> Response:
    del actor
    return json_stream(rses.list_rses(context, expression))


@router.get("/{rse}", summary="One RSE with its protocols")
def get_rse(context: ContextDep, actor: ActorDep, rse: PathText) -> Response:
    del actor
    return json_response(rses.get_rse(context, rse))


@router.post(
    "/{rse}", status_code=201, summary="Add an RSE", openapi_extra=sends(RseSettings, required=False)
)
def add_rse(context: ContextDep, actor: ActorDep, rse: PathText, body: BodyDep) -> Response:
    rses.add_rse(context, actor, rse, parse(Options, body) if body else {})
    return Response(status_code=201)


@router.put(
    "/{rse}", status_code=201, summary="Change the settings of an RSE", openapi_extra=sends(RseChange)
)
def update_rse(context: ContextDep, actor: ActorDep, rse: PathText, body: BodyDep) -> Response:
    rses.update_rse(context, actor, rse, parse(Options, body))
    return Response(status_code=201)


@router.delete("/{rse}", summary="Remove an RSE that is empty")
def delete_rse(context: ContextDep, actor: ActorDep, rse: PathText) -> Response:
    rses.delete_rse(context, actor, rse)
    return Response()


@router.get("/{rse}/attr", summary="Attributes of an RSE")
def list_attributes(context: ContextDep, actor: ActorDep, rse: PathText) -> Response:
    del actor
    return json_response(rse_attributes.list_attributes(context, rse))


@router.post(
    "/{rse}/attr/{key}",
    status_code=201,
    summary="Set an attribute of an RSE",
    openapi_extra=sends(RseAttribute),
)
def set_attribute(
    context: ContextDep, actor: ActorDep, rse: PathText, key: PathText, body: BodyDep
) -> Response:
    rse_attributes.set_attribute(context, actor, rse, key, parse(RseAttribute, body).value)
    return Response(status_code=201)


@router.delete("/{rse}/attr/{key}", summary="Remove an attribute of an RSE")
def delete_attribute(context: ContextDep, actor: ActorDep, rse: PathText, key: PathText) -> Response:
    rse_attributes.delete_attribute(context, actor, rse, key)
    return Response()


@router.get("/{rse}/protocols", summary="Protocols of an RSE; those for an operation, the first one first")
def list_protocols(
    context: ContextDep,
    actor: ActorDep,
    rse: PathText,
    *,
    protocol_domain: Domain = "ALL",
    operation: Operation = None,
    default: bool = False,
) -> Response:
    del actor
    found = rse_protocols.list_protocols(
        context, rse, domain=protocol_domain, operation=operation, only_best=default
    )
    return json_response(found)


@router.get("/{rse}/protocols/{scheme}", summary="An RSE with its protocols, those of one scheme first")
def get_protocols(context: ContextDep, actor: ActorDep, rse: PathText, scheme: PathText) -> Response:
    del actor
    return json_response(rse_protocols.get_protocols(context, rse, scheme))


@router.post(
    "/{rse}/protocols/{scheme}",
    status_code=201,
    summary="Add a protocol to an RSE",
    openapi_extra=sends(NewProtocol),
)
def add_protocol(
    context: ContextDep, actor: ActorDep, rse: PathText, scheme: PathText, body: BodyDep
) -> Response:
    rse_protocols.add_protocol(context, actor, rse, scheme, parse(Options, body))
    return Response(status_code=201)


@router.put(
    "/{rse}/protocols/{scheme}",
    summary="Change the protocols of a scheme",
    openapi_extra=sends(ProtocolChanges),
)
@router.put(
    "/{rse}/protocols/{scheme}/{hostname}",
    summary="Change the protocols of a host",
    openapi_extra=sends(ProtocolChanges),
)
@router.put(
    "/{rse}/protocols/{scheme}/{hostname}/{port}",
    summary="Change a protocol",
    openapi_extra=sends(ProtocolChanges),
)
def update_protocols(
    context: ContextDep,
    actor: ActorDep,
    rse: PathText,
    scheme: PathText,
    body: BodyDep,
    *,
    hostname: PathText | None = None,
    port: int | None = None,
) -> Response:
    options = parse(Options, body)
    rse_protocols.update_protocols(context, actor, rse, scheme, options, hostname=hostname, port=port)
    return Response()


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


@router.get("/{rse}/lfns2pfns", summary="Where files would lie at an RSE")
def lfns_to_pfns(
    context: ContextDep,
    actor: ActorDep,
    rse: PathText,
    *,
    lfn: Annotated[list[str] | None, Query()] = None,
    scheme: Operation = None,
    domain: Domain = "wan",
    operation: Annotated[str, Query(max_length=32)] = "write",
) -> Response:
    del actor
    found = rse_pfns.lfns_to_pfns(context, rse, lfn or [], scheme=scheme, domain=domain, operation=operation)
    return json_response(found)
