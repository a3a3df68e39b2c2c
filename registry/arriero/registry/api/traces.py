"""Traces of what clients do with files, in Rucio's REST protocol: those of reading move when something was last read.

The official clients send them without a token.
"""

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from arriero.registry.api.documents import sends
from arriero.registry.dependencies import BodyDep, ContextDep, parse
from arriero.registry.services.accesses import Access, record_accesses

router = APIRouter(prefix="/traces", tags=["traces"])

_READING = ("touch", "get", "download", "sm_get", "get_sm")


class TraceBody(BaseModel):
    """One trace; what else clients say in it is read over."""

    model_config = ConfigDict(extra="ignore")

    event: str | None = Field(default=None, alias="eventType", max_length=100)
    state: str | None = Field(default=None, alias="clientState", max_length=100)
    scope: str | None = Field(default=None, max_length=100)
    filename: str | None = Field(default=None, max_length=1000)
    dataset_scope: str | None = Field(default=None, alias="datasetScope", max_length=100)
    dataset: str | None = Field(default=None, max_length=1000)
    source: str | None = Field(default=None, alias="remoteSite", max_length=1000)

    def accesses(self) -> list[Access]:
        """Give what was read, if this is of reading and went well."""
        if self.event not in _READING or self.state not in (None, "DONE", "FOUND_ROOT"):
            return []
        read = []
        if self.scope and self.filename:
            read.append(Access(self.scope, self.filename, self.source))
        if self.dataset_scope and self.dataset:
            read.append(Access(self.dataset_scope, self.dataset))
        return read


_TRACES = TypeAdapter(TraceBody | list[TraceBody])


@router.post("", status_code=201, summary="Say that something was read", openapi_extra=sends(_TRACES))
def send_traces(context: ContextDep, body: BodyDep) -> Response:
    sent = parse(_TRACES, body)
    traces = [sent] if isinstance(sent, TraceBody) else sent
    record_accesses(context, [access for one in traces for access in one.accesses()])
    return Response(status_code=201)
