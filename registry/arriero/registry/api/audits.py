"""Audits of storages: begun, fed with lines, compared; and what they have found. Rucio has daemons for it, and no calls."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.api.documents import sends
from arriero.registry.api.streams import json_response, json_stream
from arriero.registry.dependencies import ActorDep, BodyDep, ContextDep, Instant, parse
from arriero.registry.services import (
    audit_comparison,
    quarantine,
    storage_audits,
    storage_findings,
)
from arriero.registry.states import AuditSource, FindingKind, FindingState

router = APIRouter(prefix="/audits", tags=["audits"])

AuditId = Annotated[int, Path(ge=1, lt=2**63)]
DarkPath = Annotated[str, Field(max_length=4000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewAudit(_Body):
    """An audit that begins."""

    rse: str = Field(max_length=255)
    source: AuditSource
    observed_at: Instant | None = Field(
        default=None, description="When the storage looked like this; now if missing."
    )


class AuditLines(_Body):
    """A chunk of what is at the storage."""

    chunk: int = Field(
        ge=0, lt=2**31, description="Its number, from 0, without gaps; sent again it is passed over."
    )
    lines: list[
        tuple[
            Annotated[str, Field(max_length=4000)],
            Annotated[int, Field(ge=0, lt=2**62)] | None,
            Annotated[str, Field(max_length=40)] | None,
        ]
    ] = Field(
        description="Path below the RSE's prefix, bytes and adler32 of each file; the last two may be null."
    )
    cursor: str | None = Field(default=None, max_length=storage_audits.MAX_CURSOR_CHARACTERS)


class Comparison(_Body):
    """How an audit is compared."""

    brake: float | None = Field(
        default=None, ge=0, le=1, description="Instead of the setting audit_brake_share; for administrators."
    )
    dry_run: bool = Field(
        default=False, description="Only count: nothing is noted or done, and the audit ends."
    )


class DarkFindings(_Body):
    """Dark files that are moved aside."""

    rse: str = Field(max_length=255)
    findings: list[Annotated[int, Field(ge=1, lt=2**63)]]


class MovedAside(_Body):
    """What has become of them."""

    rse: str = Field(max_length=255)
    moved: list[DarkPath] = Field(default_factory=list)
    not_moved: list[DarkPath] = Field(default_factory=list)


@router.get("", summary="Audits of storages, the latest first")
def list_audits(
    context: ContextDep, _: ActorDep, rse: Annotated[str | None, Query(max_length=255)] = None
) -> StreamingResponse:
    return json_stream(storage_audits.list_audits(context, rse=rse))


@router.post("", summary="Begin an audit of a storage", status_code=201, openapi_extra=sends(NewAudit))
def begin_audit(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(NewAudit, body)
    begun = storage_audits.begin(context, actor, sent.rse, sent.source, sent.observed_at)
    return json_response(asdict(begun), 201)


@router.get("/findings", summary="What was found wrong at storages and is not settled, the oldest first")
def list_findings(
    context: ContextDep,
    _: ActorDep,
    rse: Annotated[str | None, Query(max_length=255)] = None,
    kind: FindingKind | None = None,
    state: FindingState | None = None,
    audit: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
) -> StreamingResponse:
    found = storage_findings.list_findings(context, rse=rse, kind=kind, state=state, audit=audit)
    return json_stream(found)


@router.post(
    "/quarantine",
    summary="Write down that confirmed dark files are moved aside, for whoever moves them",
    openapi_extra=sends(DarkFindings),
)
def move_aside(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(DarkFindings, body)
    return json_response(quarantine.move_aside(context, actor, sent.rse, sent.findings))


@router.post(
    "/quarantine/moved",
    summary="Tell what has become of files that were to be moved aside",
    openapi_extra=sends(MovedAside),
)
def moved_aside(context: ContextDep, actor: ActorDep, body: BodyDep) -> Response:
    sent = parse(MovedAside, body)
    registered = quarantine.moved(context, actor, sent.rse, there=sent.moved, not_moved=sent.not_moved)
    return json_response({"registered": registered})


@router.get("/{audit_id}", summary="One audit")
def get_audit(context: ContextDep, _: ActorDep, audit_id: AuditId) -> Response:
    [shown] = storage_audits.list_audits(context, audit_id=audit_id)
    return json_response(shown)


@router.post(
    "/{audit_id}/lines", summary="Add a chunk of what is at the storage", openapi_extra=sends(AuditLines)
)
def add_lines(context: ContextDep, actor: ActorDep, audit_id: AuditId, body: BodyDep) -> Response:
    sent = parse(AuditLines, body)
    begun = storage_audits.add_lines(context, actor, audit_id, sent.chunk, sent.lines, cursor=sent.cursor)
    return json_response(asdict(begun))


@router.get(
    "/{audit_id}/resume", summary="How far the lines of an audit have come, for whoever goes on with it"
)
def resume_audit(context: ContextDep, actor: ActorDep, audit_id: AuditId) -> Response:
    return json_response(asdict(storage_audits.resume(context, actor, audit_id)))


@router.post(
    "/{audit_id}/compare",
    summary="Compare an audit with the catalogue, and act on what it confirms",
    openapi_extra=sends(Comparison),
)
def compare(context: ContextDep, actor: ActorDep, audit_id: AuditId, body: BodyDep) -> Response:
    sent = parse(Comparison, body)
    shown = audit_comparison.compare(context, actor, audit_id, brake=sent.brake, dry_run=sent.dry_run)
    return json_response(shown)
