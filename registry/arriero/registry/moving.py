"""What the mover of a site and the registry say to each other about requests."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from arriero.registry.models import MAX_CLAIM, MAX_LEASE_S, MAX_WAIT_S, Key
from arriero.rse.copy_order import Mode


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Answer(BaseModel):
    """What the registry sends; a newer registry may send more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ClaimRequests(_Said):
    """A mover asks for work."""

    worker: str = Field(min_length=1, max_length=200)
    rses: tuple[str, ...] = Field(default=(), max_length=1000)
    """Only of these RSEs; empty: of all that the token is bound to."""
    limit: int = Field(default=10, ge=1, le=MAX_CLAIM)
    lease_s: float = Field(default=60.0, gt=0, le=MAX_LEASE_S)
    wait_s: float = Field(default=0.0, ge=0, le=MAX_WAIT_S)


class OrderEndpoint(_Answer):
    """One protocol of one RSE, without credentials."""

    rse: str
    scheme: str
    hostname: str = ""
    port: int = 0
    prefix: str


class RequestOrder(_Answer):
    """A claimed request: one file to be copied."""

    id: int
    fence: int
    """Moves with every claim; only the newest may report."""
    attempt: int
    """How many times it was claimed, this one included."""
    attempt_name: str
    """What this attempt writes under, which no other ever does."""
    source: OrderEndpoint
    source_path: str
    destination: OrderEndpoint
    destination_path: str
    bytes: int
    adler32: str | None = None
    md5: str | None = None
    replaces_bad: bool = False
    """What is under the final name was declared bad: the verified copy takes its place."""


class RequestOutcome(_Said):
    """What became of one claimed request."""

    id: Key
    fence: Key
    state: Literal["done", "failed", "released"]
    mode: Mode | None = None
    """How it was copied."""
    mode_reason: str | None = Field(default=None, max_length=1000)
    bytes: int | None = Field(default=None, ge=0, lt=2**63)
    """Of the copy, verified at the destination."""
    adler32: str | None = Field(default=None, pattern="^[0-9a-f]{8}$")
    seconds: float | None = Field(default=None, ge=0, lt=1e9)
    code: str | None = Field(default=None, pattern="^[a-z][a-z0-9_]{0,63}$")
    reason: str | None = Field(default=None, max_length=4000)
    retryable: bool = False
    rse: str | None = Field(default=None, max_length=255)
    """The RSE that failed, where the storage library can tell."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.state == "done" and None in (self.mode, self.bytes, self.adler32, self.seconds):
            raise ValueError("a copy that is done has mode, bytes, adler32 and seconds")
        if self.state == "failed" and self.code is None:
            raise ValueError("a copy that failed has a code")
        return self


class HeldRequest(_Said):
    """A request by its key and the fence under which it is held."""

    id: Key
    fence: Key


class RequestUnderWay(HeldRequest):
    """A request that is held, and how far it is."""

    copied: int | None = Field(default=None, ge=0, lt=2**63)
    """Bytes at the destination so far."""


class ExtendRequests(_Said):
    """A mover needs more time."""

    worker: str = Field(min_length=1, max_length=200)
    requests: tuple[RequestUnderWay, ...] = Field(max_length=MAX_CLAIM)
    lease_s: float = Field(gt=0, le=MAX_LEASE_S)


class ReportRequests(_Said):
    """A mover says what became of requests."""

    worker: str = Field(min_length=1, max_length=200)
    outcomes: tuple[RequestOutcome, ...] = Field(max_length=MAX_CLAIM)
