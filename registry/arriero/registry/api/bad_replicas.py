"""What is said against replicas, and dark files, in Rucio's REST protocol."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, Instant, parse
from arriero.registry.errors import InvalidInput
from arriero.registry.services import bad_replica_lists, bad_replicas, pfn_dids, quarantine
from arriero.registry.services.bad_replicas import Declaration, Named
from arriero.registry.states import BAD_REPLICA_LETTERS, BadReplicaState

router = APIRouter(prefix="/replicas", tags=["bad replicas"])

_LETTERS = {letter: state for state, letter in BAD_REPLICA_LETTERS.items()}
_BY_WORD = (
    BadReplicaState.BAD,
    BadReplicaState.SUSPICIOUS,
    BadReplicaState.TEMPORARY_UNAVAILABLE,
)

Reason = Annotated[str | None, Field(max_length=4000)]
Pfn = Annotated[str, Field(max_length=4000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class NamedBadReplica(_Body):
    """A replica by its file and its RSE."""

    scope: str = Field(max_length=40)
    name: str = Field(max_length=1000)
    rse: str | None = Field(default=None, max_length=255)
    rse_id: str | None = Field(default=None, max_length=40)

    def as_named(self) -> Named:
        return Named(self.scope, self.name, self.rse, self.rse_id)


class BadReplicasBody(_Body):
    """Replicas that are bad, by PFN or by file and RSE."""

    replicas: list[Pfn | NamedBadReplica] | None = None
    pfns: list[Pfn | NamedBadReplica] | None = None
    """Rucio's older word for ``replicas``."""
    reason: Reason = None
    force: bool = False

    def named(self) -> list[str | Named]:
        sent = self.replicas if self.replicas is not None else self.pfns
        if sent is None:
            raise InvalidInput("replicas: give those that are meant")
        return [one if isinstance(one, str) else one.as_named() for one in sent]


class BadDid(_Body):
    """A file whose replica is bad."""

    scope: str = Field(max_length=40)
    name: str = Field(max_length=1000)


class BadDidsBody(_Body):
    """Files whose replicas at an RSE are bad."""

    rse: str = Field(max_length=255)
    dids: list[BadDid]
    reason: Reason = None


class BadPfnsBody(_Body):
    """PFNs, and what is said of them."""

    pfns: list[Pfn]
    reason: Reason = None
    state: str = Field(max_length=40)
    expires_at: Instant | None = None


class SuspiciousBody(_Body):
    """Replicas that may be bad."""

    pfns: list[Pfn | NamedBadReplica]
    reason: Reason = None


class PfnsBody(_Body):
    """PFNs whose files are asked for."""

    pfns: list[Pfn]
    rse: str | None = Field(default=None, max_length=255)


class DarkFile(_Body):
    """A file that the catalogue does not know."""

    path: str = Field(max_length=4000)
    scope: str | None = Field(default=None, max_length=40)
    name: str | None = Field(default=None, max_length=1000)
    bytes: int | None = Field(default=None, ge=0, lt=2**62)


class QuarantineBody(_Body):
    """Dark files of an RSE."""

    rse: str | None = Field(default=None, max_length=255)
    rse_id: str | None = Field(default=None, max_length=40)
    replicas: list[DarkFile]


class DeclarationOptions(_Body):
    """Which declarations are asked for."""

    state: str | None = Field(default=None, max_length=40)
    rse: str | None = Field(default=None, max_length=255)
    younger_than: Instant | None = None
    older_than: Instant | None = None
    limit: int | None = Field(default=None, ge=0, lt=2**31)
    list_pfns: bool = False


@router.post("/bad", summary="Declare replicas bad", status_code=201, openapi_extra=sends(BadReplicasBody))
def declare_bad(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(BadReplicasBody, body)
    declaration = Declaration(BadReplicaState.BAD, sent.reason, force=sent.force)
    return json_response(bad_replicas.declare(context, actor, sent.named(), declaration), 201)


@router.post(
    "/bad/dids",
    summary="Declare the replicas of files at an RSE bad",
    status_code=201,
    openapi_extra=sends(BadDidsBody),
)
def declare_bad_dids(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(BadDidsBody, body)
    named = [Named(did.scope, did.name, sent.rse) for did in sent.dids]
    declaration = Declaration(BadReplicaState.BAD, sent.reason)
    return json_response(bad_replicas.declare(context, actor, named, declaration), 201)


@router.post(
    "/bad/pfns",
    summary="Declare PFNs bad, suspicious, or unavailable for a while",
    status_code=201,
    openapi_extra=sends(BadPfnsBody),
)
def add_bad_pfns(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(BadPfnsBody, body)
    state = _state(sent.state)
    if state is BadReplicaState.TEMPORARY_UNAVAILABLE and sent.expires_at is None:
        raise InvalidInput("expires_at: say until when they are unavailable")
    declaration = Declaration(state, sent.reason, sent.expires_at)
    return json_response(bad_replicas.declare(context, actor, sent.pfns, declaration), 201)


def _state(text: str) -> BadReplicaState:
    state = _LETTERS.get(text) or next((one for one in BadReplicaState if one == text.upper()), None)
    if state is None or state not in _BY_WORD:
        raise InvalidInput(f"state is one of {', '.join(_BY_WORD)}, not {text[:40]!a}")
    return state


@router.post(
    "/suspicious", summary="Declare replicas suspicious", status_code=201, openapi_extra=sends(SuspiciousBody)
)
def declare_suspicious(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(SuspiciousBody, body)
    named = [one if isinstance(one, str) else one.as_named() for one in sent.pfns]
    declaration = Declaration(BadReplicaState.SUSPICIOUS, sent.reason)
    return json_response(bad_replicas.declare(context, actor, named, declaration), 201)


@router.get("/suspicious", summary="Replicas that were said to be suspicious, and how often")
def list_suspicious(
    context: ContextDep,
    actor: ActorDep,
    rse_expression: Annotated[str | None, Query()] = None,
    younger_than: Annotated[Instant | None, Query()] = None,
    nattempts: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> Response:
    del actor
    rows = bad_replica_lists.list_suspicious(
        context, rse_expression=rse_expression, younger_than=younger_than, attempts=nattempts
    )
    # one value, not lines: the official command line takes the only thing that it is given
    return json_response(rows)


@router.get("/bad/states", summary="What was said against replicas, oldest first")
def list_declarations(
    context: ContextDep, actor: ActorDep, options: Annotated[DeclarationOptions, Query()]
) -> StreamingResponse:
    del actor
    query = bad_replica_lists.BadQuery(
        state=None if options.state is None else _any_state(options.state),
        rse=options.rse,
        younger_than=options.younger_than,
        older_than=options.older_than,
        limit=options.limit,
        list_pfns=options.list_pfns,
    )
    return json_stream(bad_replica_lists.list_declarations(context, query), paged=True)


def _any_state(text: str) -> BadReplicaState:
    state = _LETTERS.get(text) or next((one for one in BadReplicaState if one == text.upper()), None)
    if state is None:
        raise InvalidInput(f"state is one of {', '.join(BadReplicaState)}, not {text[:40]!a}")
    return state


@router.get("/bad/summary", summary="How many replicas were said to be bad, by incident, and how it ended")
def summarise(
    context: ContextDep,
    actor: ActorDep,
    rse_expression: Annotated[str | None, Query()] = None,
    from_date: Annotated[Instant | None, Query()] = None,
    to_date: Annotated[Instant | None, Query()] = None,
) -> StreamingResponse:
    del actor
    rows = bad_replica_lists.summarise(context, rse_expression=rse_expression, since=from_date, until=to_date)
    return json_stream(rows)


@router.post("/dids", summary="Files that PFNs are replicas of", openapi_extra=sends(PfnsBody))
def list_dids_of_pfns(context: ContextDep, actor: ActorDep, body: BodyDep) -> StreamingResponse:
    del actor
    sent = parse(PfnsBody, body)
    rows: list[dict[str, Any]] = pfn_dids.dids_of_pfns(context, sent.pfns, rse=sent.rse)
    return json_stream(rows)


@router.post("/quarantine", summary="Write down dark files of an RSE", openapi_extra=sends(QuarantineBody))
def quarantine_replicas(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(QuarantineBody, body)
    found = [quarantine.Found(one.path, one.scope, one.name, one.bytes) for one in sent.replicas]
    quarantine.quarantine(context, actor, found, rse=sent.rse, rse_id=sent.rse_id)
    return Response()
