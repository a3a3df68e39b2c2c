"""Replicas in Rucio's REST protocol: registering, changing, removing and listing them.

Routes that end in a word come before those that end in a name, which may hold slashes.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from starlette.background import BackgroundTask

from arriero.registry.api.documents import sends
from arriero.registry.api.metalink import METALINK_TYPE, accepts_metalink, metalink
from arriero.registry.api.streams import STREAM_TYPE, byte_stream
from arriero.registry.api.watches import Watch
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, Instant, PathText, parse
from arriero.registry.errors import InvalidInput
from arriero.registry.services import replica_lists, replica_removal, replicas
from arriero.registry.services.bad_replicas import Named
from arriero.registry.services.context import Context
from arriero.registry.services.dataset_replicas import check_did
from arriero.registry.services.new_replicas import NewReplica
from arriero.registry.services.replica_lines import list_replica_lines
from arriero.registry.services.replica_lists import Client, ReplicaQuery
from arriero.registry.services.replica_order import Place
from arriero.registry.states import REPLICA_LETTERS, ReplicaState

router = APIRouter(prefix="/replicas", tags=["replicas"])
lists = APIRouter(prefix="/replicas", tags=["replicas"])
"""What would take the paths of other routes if it came before them."""

_LETTERS = {letter: state for state, letter in REPLICA_LETTERS.items()}


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class FileBody(_Body):
    """A file at an RSE."""

    scope: str = Field(max_length=40)
    name: str = Field(max_length=1000)
    bytes: int
    adler32: str | None = None
    md5: str | None = None
    pfn: str | None = None
    state: str = "A"
    meta: dict[str, Any] | None = None


class ReplicasBody(_Body):
    """Files to register at an RSE."""

    rse: str
    files: list[FileBody]


class StateBody(_Body):
    """The new state of a replica."""

    scope: str = Field(max_length=40)
    name: str = Field(max_length=1000)
    state: str
    error_message: str | None = None


class StatesBody(_Body):
    """New states of replicas at an RSE."""

    rse: str
    files: list[StateBody]


class ReplicaKey(_Body):
    """A file whose replica is meant."""

    scope: str = Field(max_length=40)
    name: str = Field(max_length=1000)


class RemovalBody(_Body):
    """Replicas to take away at an RSE."""

    rse: str
    files: list[ReplicaKey]


class ReplicaAtRse(ReplicaKey):
    """A replica."""

    rse: str = Field(max_length=255)


class TombstonesBody(_Body):
    """Replicas that may be deleted."""

    replicas: list[ReplicaAtRse]


class ListDid(_Body):
    """A DID whose replicas are asked for."""

    scope: str
    name: str


class LocationBody(_Body):
    """Where the client says that it is."""

    site: str | None = Field(default=None, max_length=255)
    latitude: float | None = None
    longitude: float | None = None


class ListBody(_Body):
    """Which replicas, and how to reach them.

    What asks for signed URLs (``signature_lifetime``, ``sign_urls``) and for archives (``resolve_archives``) is read
    over: the URLs of these protocols are not signed, and no file is part of an archive.
    """

    dids: list[ListDid]
    schemes: list[str] | str | None = None
    all_states: bool = False
    rse_expression: str | None = None
    domain: str | None = None
    client_location: LocationBody | None = None
    sort: str | None = None
    nrandom: int | None = None
    updated_after: Instant | None = None
    unavailable: bool | None = None
    ignore_availability: bool | None = None
    resolve_parents: bool = False


class ListOptions(_Body):
    """What Rucio takes in the query of a list."""

    limit: int | None = Field(default=None, ge=1, lt=2**31)
    select: str | None = Field(default=None, max_length=40)
    sort: str | None = Field(default=None, max_length=40)


class ListOfOneOptions(ListOptions):
    """What Rucio takes in the query of the list of one DID."""

    schemes: str | None = Field(default=None, max_length=200)


_FILES = TypeAdapter(ReplicasBody)


def _state(text: str) -> ReplicaState:
    try:
        return _LETTERS.get(text) or ReplicaState(text.upper())
    except ValueError as error:
        raise InvalidInput(f"{text[:40]!a} is not a state of a replica") from error


@router.post("", summary="Register files at an RSE", status_code=201, openapi_extra=sends(_FILES))
def add_replicas(request: Request, context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(_FILES, body)
    files = [
        NewReplica(
            file.scope,
            file.name,
            file.bytes,
            file.adler32,
            file.md5,
            _state(file.state),
            file.pfn,
            file.meta,
        )
        for file in sent.files
    ]
    replicas.add_replicas(context, actor, sent.rse, files)
    return Response(status_code=201, background=BackgroundTask(_wake_claims, request))


async def _wake_claims(request: Request) -> None:
    watch: Watch = request.app.state.arrivals_watch
    watch.nudge()


@router.put("", summary="Change the states of replicas", openapi_extra=sends(StatesBody))
def update_states(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(StatesBody, body)
    changes = [
        replicas.StateChange(file.scope, file.name, _state(file.state), file.error_message)
        for file in sent.files
    ]
    replicas.update_states(context, actor, sent.rse, changes)
    return Response()


@router.delete("", summary="Take replicas out of the catalogue", openapi_extra=sends(RemovalBody))
def delete_replicas(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(RemovalBody, body)
    replica_removal.delete_replicas(
        context, actor, sent.rse, [(file.scope, file.name) for file in sent.files]
    )
    return Response()


@router.post(
    "/tombstone",
    summary="Have deletion take replicas that no rule holds",
    status_code=201,
    openapi_extra=sends(TombstonesBody),
)
def set_tombstones(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(TombstonesBody, body)
    named = [Named(one.scope, one.name, one.rse) for one in sent.replicas]
    replica_removal.set_tombstones(context, actor, named)
    return Response(status_code=201)


@router.post(
    "/list",
    summary="Replicas of files and of what collections hold, with their PFNs; as JSON lines or Metalink",
    openapi_extra=sends(ListBody),
)
def list_replicas(
    request: Request,
    context: ContextDep,
    actor: ActorDep,
    body: BodyDep,
    options: Annotated[ListOptions, Query()],
) -> StreamingResponse:
    del actor
    sent = parse(ListBody, body)
    located = sent.client_location or LocationBody()
    ignore = sent.ignore_availability
    query = ReplicaQuery(
        dids=[(did.scope, did.name) for did in sent.dids],
        schemes=_schemes(sent.schemes),
        all_states=sent.all_states,
        rse_expression=sent.rse_expression,
        domain=sent.domain.lower() if sent.domain else None,
        client=Client(located.site, Place.of(located.model_dump())),
        sort=options.sort or options.select or sent.sort,
        limit=options.limit,
        nrandom=sent.nrandom,
        updated_after=sent.updated_after,
        ignore_availability=sent.unavailable is not None if ignore is None else ignore,
        resolve_parents=sent.resolve_parents,
    )
    return _answer(request, context, query)


def _key(scope: PathText, name: PathText) -> tuple[str, str]:
    return scope, name


@lists.get("/{scope}/{name:path}", summary="Replicas of one DID; as JSON lines or Metalink")
def list_replicas_of(
    request: Request,
    context: ContextDep,
    actor: ActorDep,
    key: Annotated[tuple[str, str], Depends(_key)],
    options: Annotated[ListOfOneOptions, Query()],
) -> StreamingResponse:
    del actor
    # a list of many leaves out what is not there; who names one is told
    check_did(context, *key)
    query = ReplicaQuery(
        [key],
        _schemes(options.schemes),
        domain=None,
        sort=options.sort or options.select,
        limit=options.limit,
    )
    return _answer(request, context, query)


def _schemes(sent: Sequence[str] | str | None) -> frozenset[str] | None:
    words = sent.split(",") if isinstance(sent, str) else sent or []
    return frozenset(word.strip() for word in words if word.strip()) or None


def _answer(request: Request, context: Context, query: ReplicaQuery) -> StreamingResponse:
    if accepts_metalink(request.headers.get("accept", "")):
        return byte_stream(metalink(replica_lists.list_replicas(context, query)), METALINK_TYPE)
    return byte_stream(list_replica_lines(context, query), STREAM_TYPE)
