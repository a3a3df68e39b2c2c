"""The words of the resources that operators work with: transfers, links, the health of RSEs.

Shared by the API, the client and the command line. Data only, as `arriero.registry.models`: a site without
``arriero[registry]`` can import it.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from arriero.registry.states import (
    BreakerState,
    LockState,
    ReplicaState,
    RequestState,
    RseOperation,
    TransferDirection,
)

MAX_TRANSFERS = 1_000_000
"""Most transfers of one list."""

LIVE = (RequestState.QUEUED, RequestState.SUBMITTED, RequestState.FAILED)
"""States of requests that there are; one that is DONE is history."""


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("is one line of printable characters")
    return text


Why = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_one_line)]
"""Somebody's reason."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Answer(BaseModel):
    """What the registry sends; a newer registry may send more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TransferChoice(_Wire):
    """Which transfers are meant: those for which all that is given holds."""

    rule: str | None = Field(default=None, max_length=36, description="Id of a rule that wants them.")
    scope: str | None = Field(default=None, max_length=25)
    name: str | None = Field(
        default=None, max_length=500, description="With scope: of this file, or of what this DID holds."
    )
    destination: str | None = Field(default=None, max_length=255, description="RSE that they go to.")

    @model_validator(mode="after")
    def _whole_names(self) -> "TransferChoice":
        if (self.scope is None) != (self.name is None):
            raise ValueError("a DID has a scope and a name")
        return self


class TransferFilter(TransferChoice):
    """Which transfers to list."""

    source: str | None = Field(
        default=None, max_length=255, description="RSE that they are read from, or were when they were tried."
    )
    state: list[RequestState] = Field(
        default_factory=list, max_length=4, description="QUEUED, SUBMITTED, FAILED; all of them by default."
    )
    activity: str | None = Field(default=None, max_length=50)
    code: str | None = Field(default=None, max_length=64, description="What they wait for.")


class TransferPage(TransferFilter):
    """Which transfers to list, in which order, and how many."""

    order: Literal["age", "problem"] = Field(
        default="age", description="The oldest first, or what has gone wrong last first."
    )
    limit: int = Field(default=1000, ge=1, le=MAX_TRANSFERS)


class Transfer(_Answer):
    """A copy that is wanted, under way, or given up."""

    id: int
    scope: str
    name: str
    bytes: int
    source: str | None = None
    """Of the attempt that runs, or ran last."""
    destination: str
    rule_id: str | None = None
    """The rule that asked first."""
    account: str | None = None
    activity: str
    priority: int
    state: RequestState
    attempt: int
    code: str
    """What it waits for: ``copying`` when it is under way."""
    reason: str | None = None
    next_attempt_at: datetime | None = None
    """None: it is under way, or nothing happens by itself."""
    lease_owner: str | None = None
    lease_until: datetime | None = None
    created_at: datetime
    started_at: datetime | None = None
    copied: int | None = None
    """Bytes at the destination so far, where a copy under way tells; a few seconds old."""


class TransferTotal(_Answer):
    """Transfers to one RSE that wait for the same thing."""

    state: RequestState
    code: str
    destination: str
    files: int
    bytes: int
    attempts: int
    """Of the one that was tried most."""
    oldest_at: datetime
    next_attempt_at: datetime | None = None
    reason: str | None = None
    """Of one of them."""


class TransferAttempt(_Answer):
    """An attempt that has ended: the last of its request, or one that another has followed (``QUEUED``)."""

    request_id: int
    source: str | None = None
    state: RequestState
    attempt: int
    mode: str | None = None
    mode_reason: str | None = None
    """Why it went this way, where that was not the first choice."""
    bytes: int
    seconds: float | None = None
    code: str | None = None
    reason: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime


class WaitingLock(_Answer):
    """A rule that waits for the copy, or has it."""

    rule_id: str
    account: str
    state: LockState
    code: str | None = None
    reason: str | None = None


class TransferDetail(_Answer):
    """All that is known of the copies of a file to one RSE."""

    scope: str
    name: str
    destination: str
    replica: ReplicaState | None = None
    request: Transfer | None = None
    """None: no copy is asked for now."""
    fence: int | None = None
    """How often a worker has held it, or it was taken from one."""
    locks: list[WaitingLock]
    attempts: list[TransferAttempt]
    """The last first."""


class TransferOrder(TransferChoice):
    """What is asked of transfers; of which, has to be said."""

    reason: Why | None = Field(default=None, description="Why; kept with what was done.")
    dry_run: bool = Field(default=False, description="Tell what would be done, and do nothing.")

    @model_validator(mode="after")
    def _not_everything(self) -> "TransferOrder":
        if self.rule is None and self.name is None and self.destination is None:
            raise ValueError("say which: a rule, a DID or a destination")
        return self


class RetryOrder(TransferOrder):
    """Body of a retry."""

    priority: int | None = Field(
        default=None, ge=1, le=5, description="Priority that what waits in the queue is given; 5 is first."
    )


class CancelOrder(TransferOrder):
    """Body of a cancellation."""

    under_way: bool = Field(default=False, description="With a rule: end copies that have begun, too.")

    @model_validator(mode="after")
    def _of_something(self) -> "CancelOrder":
        if self.rule is None and self.name is None:
            raise ValueError("say of which rule, or of which file")
        return self


class Retried(_Answer):
    """What a retry has done."""

    due_now: int
    """Of those in the queue, how many waited for their time, or had attempts behind them."""
    tried_again: int
    """Locks that were given up and are tried again with the next look at their rules."""
    rules: int
    resting: int
    """Rules whose locks were passed over because the rules are suspended, or wait for approval."""


class Cancelled(_Answer):
    """What a cancellation has done."""

    queued: int
    under_way: int
    """Of those that had begun: their workers end them within seconds."""
    rules: int
    shared: int
    """Left alone: other rules want them too."""


class LimitUse(_Answer):
    """A limit of transfers, and how much of it is used at one RSE."""

    rse: str
    expression: str
    direction: TransferDirection
    activity: str | None = None
    max_transfers: int
    under_way: int


class LinkInfo(_Answer):
    """What is known of a link: how much it carries, and how well."""

    source: str
    destination: str
    distance: int | None = None
    slots: int | None = None
    """Copies at once; None: nothing has been copied on it."""
    decided_at: datetime | None = None
    decision: str | None = None
    """Why it has as many."""
    under_way: int = 0
    queued: int = 0
    """Of all that wait for a copy to the destination, from wherever."""
    throughput: float | None = None
    """Bytes a second of the whole link, a moving average."""
    duration_s: float | None = None
    success: float | None = None
    done: int = 0
    failed: int = 0
    """Since the last decision."""
    mode: str | None = None
    """How the last copy went that succeeded."""
    mode_reason: str | None = None
    code: str | None = None
    reason: str | None = None
    """How the last one failed."""
    failed_at: datetime | None = None
    in_the_way: list[str] = Field(default_factory=list)
    """Why nothing begins on it now."""
    ways: list[str] = Field(default_factory=list)
    """How bytes can go by what the storages at its ends were seen to do, the shortest way first; empty: not tried yet."""
    limits: list[LimitUse] = Field(default_factory=list)


class LinkTotal(_Answer):
    """Attempts on a link since the beginning that ended the same way."""

    code: str | None = None
    """None: of those that succeeded."""
    copies: int
    bytes: int
    seconds: float


class LinkDetail(LinkInfo):
    """A link with its attempts."""

    totals: list[LinkTotal]
    """Those that succeeded first, then by how many."""


class Pause(_Answer):
    """Who has closed an RSE for something, since when and why."""

    operation: RseOperation
    since: datetime
    account: str | None = None
    reason: str | None = None


class StorageAbilities(_Answer):
    """What a storage was found to be able to do, by trial."""

    origin: str
    """``scheme://host:port`` as on the wire."""
    probed_at: datetime
    server: str = ""
    third_party_pull: bool = False
    third_party_push: bool = False
    digest_algorithms: list[str] = Field(default_factory=list)
    move: bool = False
    move_refuses: bool = False
    ranges: bool = False
    list_directory: bool = False
    pull_reason: str = ""
    push_reason: str = ""


class RseHealth(_Answer):
    """Whether an RSE is open, and whether it is up."""

    rse: str
    availability_read: bool
    availability_write: bool
    availability_delete: bool
    breaker: BreakerState
    failures: int = 0
    """In a row, that the RSE itself is to blame for."""
    down_since: datetime | None = None
    next_look_at: datetime | None = None
    """When one copy is let through, to see."""
    code: str | None = None
    reason: str | None = None
    pauses: list[Pause] = Field(default_factory=list)
    deletion_not_before: datetime | None = None
    """Until when nothing is deleted there."""
    deletion_code: str | None = None
    deletion_reason: str | None = None
    abilities: list[StorageAbilities] = Field(default_factory=list)
    """Of each of its storages that was tried."""


def plain(model: BaseModel) -> dict[str, Any]:
    """Give a model as JSON has it."""
    return model.model_dump(mode="json")
