"""Replicas in Rucio's REST protocol."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from arriero.registry.api.streams import json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, PathText, parse
from arriero.registry.errors import InvalidInput, Unsupported
from arriero.registry.services import replica_lists, replicas
from arriero.registry.states import REPLICA_LETTERS, ReplicaState

router = APIRouter(prefix="/replicas", tags=["replicas"])

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


class ListDid(_Body):
    """A DID whose replicas are asked for."""

    scope: str
    name: str


class ListBody(_Body):
    """Which replicas, and how to reach them; where the client stands and how it wants them sorted is read over."""

    dids: list[ListDid]
    schemes: list[str] | None = None
    all_states: bool = False
    rse_expression: str | None = Field(default=None, max_length=1024)
    domain: str | None = None
    updated_after: Any = None
    nrandom: int | None = None


_FILES = TypeAdapter(ReplicasBody)


def _state(text: str) -> ReplicaState:
    try:
        return _LETTERS.get(text) or ReplicaState(text.upper())
    except ValueError as error:
        raise InvalidInput(f"{text[:40]!a} is not a state of a replica") from error


@router.post("", summary="Register files at an RSE")
def add_replicas(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(_FILES, body)
    files = [
        replicas.NewReplica(
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
    return Response(status_code=201)


@router.put("", summary="Change the states of replicas")
def update_states(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(StatesBody, body)
    changes = [
        replicas.StateChange(file.scope, file.name, _state(file.state), file.error_message)
        for file in sent.files
    ]
    replicas.update_states(context, actor, sent.rse, changes)
    return Response()


@router.post("/list", summary="Replicas of files and of what collections hold, with their PFNs")
def list_replicas(context: ContextDep, actor: ActorDep, request: Request, body: BodyDep) -> Response:
    del actor
    if "metalink" in request.headers.get("accept", ""):
        raise Unsupported("metalinks are not in Arriero yet: ask for JSON")
    sent = parse(ListBody, body)
    if sent.updated_after is not None or sent.nrandom is not None:
        raise Unsupported("updated_after and nrandom are not in Arriero yet")
    query = replica_lists.ReplicaQuery(
        dids=[(did.scope, did.name) for did in sent.dids],
        schemes=frozenset(sent.schemes) if sent.schemes else None,
        all_states=sent.all_states,
        rse_expression=sent.rse_expression,
        domain=(sent.domain or "wan").lower(),
    )
    return json_stream(replica_lists.list_replicas(context, query))


@router.get("/{scope}/{name:path}/datasets", summary="How much of a dataset lies where")
def list_dataset_replicas(
    context: ContextDep, actor: ActorDep, scope: PathText, name: PathText, deep: bool = False
) -> Response:
    del actor, deep
    return json_stream(replica_lists.list_dataset_replicas(context, scope, name))
