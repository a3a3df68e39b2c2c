"""The words of the resource of deletions: what is being deleted, what would be, and who has stopped it.

Shared by the API, the client and the command line. Data only, as `arriero.registry.models`.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from arriero.registry.operations import Why
from arriero.registry.states import DeletionCause, DeletionOutcome, ReplicaState

MAX_LISTED = 1_000_000
"""Most rows of one list."""

MAX_DIDS = 10_000
"""Most DIDs of one order; a dataset stands for all of its files."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Answer(BaseModel):
    """What the registry sends; a newer registry may send more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class DeletionFilter(_Wire):
    """Which deletions to list, the oldest first."""

    rse: str | None = Field(default=None, max_length=255)
    code: str | None = Field(default=None, max_length=64, description="Those that wait for this.")
    limit: int = Field(default=1000, ge=1, le=MAX_LISTED)


class Deletion(_Answer):
    """A replica that is being deleted."""

    id: int
    scope: str
    name: str
    rse: str
    bytes: int
    cause: DeletionCause
    attempt: int
    code: str | None = None
    reason: str | None = None
    next_attempt_at: datetime | None = None
    """None: a worker is at it."""
    lease_owner: str | None = None
    lease_until: datetime | None = None
    proof_rse: str | None = None
    """Where the copy lies for whose sake it may go; None: the file itself may go."""
    proof_at: datetime | None = None
    created_at: datetime


class DeletionHistoryFilter(_Wire):
    """Which deletions that have ended to list, the last first."""

    rse: str | None = Field(default=None, max_length=255)
    scope: str | None = Field(default=None, max_length=25)
    name: str | None = Field(default=None, max_length=500)
    limit: int = Field(default=1000, ge=1, le=MAX_LISTED)

    @model_validator(mode="after")
    def _whole_name(self) -> "DeletionHistoryFilter":
        if (self.scope is None) != (self.name is None):
            raise ValueError("a file has a scope and a name")
        return self


class EndedDeletion(_Answer):
    """A deletion that has ended."""

    deletion_id: int
    scope: str
    name: str
    rse: str
    bytes: int
    cause: DeletionCause
    state: DeletionOutcome
    attempt: int
    owner: str | None = None
    """The worker."""
    proof_rse: str | None = None
    proof_at: datetime | None = None
    seconds: float | None = None
    code: str | None = None
    reason: str | None = None
    created_at: datetime
    ended_at: datetime


class DeletionSite(_Answer):
    """How deletion stands with an RSE."""

    rse: str
    is_open: bool
    """Whether anything is deleted there now."""
    availability_delete: bool
    greedy: bool
    rate: float | None = None
    """Deletions a second, at most."""
    min_free: int | None = None
    free: int | None = None
    """Bytes, by who measured the least, with what deletion has freed since."""
    need: int | None = None
    """Bytes that have to go; None: all that may."""
    under_way: int = 0
    waiting: int = 0
    """Deletions that have failed, or whose paths are kept free."""
    failures: int = 0
    """Of the storage, in a row."""
    code: str | None = None
    reason: str | None = None
    next_look_at: datetime | None = None
    marked_at: datetime | None = None
    """When the mark on the storage was written last."""


class DeletionStop(_Answer):
    """Whether deletions are stopped everywhere."""

    stopped: bool
    account: str | None = None
    since: datetime | None = None
    reason: str | None = None


class StopOrder(_Wire):
    """Body of a stop."""

    reason: Why | None = Field(default=None, description="Why; shown to whoever asks.")


class GoOrder(_Wire):
    """Body of a go."""

    rse: str | None = Field(
        default=None, max_length=255, description="Only this RSE: forget its failures and look at it now."
    )
    take_over: bool = Field(
        default=False, description="Replace the mark on its storage, whoever has left it there."
    )

    @model_validator(mode="after")
    def _where(self) -> "GoOrder":
        if self.take_over and self.rse is None:
            raise ValueError("say of which RSE the mark may be replaced")
        return self


class DeletedDid(_Wire):
    """A DID."""

    scope: Annotated[str, Field(min_length=1, max_length=25)]
    name: Annotated[str, Field(min_length=1, max_length=500)]


class DeleteOrder(_Wire):
    """Which replicas are to be deleted, if nothing stands against it."""

    rse: str = Field(min_length=1, max_length=255)
    dids: list[DeletedDid] | None = Field(
        default=None, min_length=1, max_length=MAX_DIDS, description="Of these files, or of what these hold."
    )
    reason: Why | None = Field(default=None, description="Why; kept in the audit.")


class PurgeOrder(DeleteOrder):
    """Body of a deletion."""

    unlocked: bool = Field(default=False, description="Without DIDs: all that nobody holds at the RSE.")

    @model_validator(mode="after")
    def _which(self) -> "PurgeOrder":
        if (self.dids is None) != self.unlocked:
            raise ValueError("say which: dids, or unlocked for all that nobody holds")
        return self


class JudgedReplica(_Answer):
    """A replica, and what would become of it."""

    scope: str
    name: str
    bytes: int
    state: ReplicaState
    verdict: Literal["delete", "when_needed", "keep"]
    cause: DeletionCause | None = None
    """Why it goes."""
    code: str | None = None
    reason: str | None = None
    """Why it stays, and what to do about it."""
    tombstone: datetime | None = None


class Purged(_Answer):
    """What an order has done."""

    files: int
    """Replicas that deletion takes now."""
    bytes: int
    kept: int
    """Replicas that stay; the plan says why."""
