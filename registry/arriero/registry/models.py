"""The words of Arriero's own REST resources, shared by the API, the client and the agents.

Rucio's resources keep Rucio's JSON; butlers, arrivals, tokens, trace and counts are these. Data only: no I/O, no
database, so that a site without ``arriero[registry]`` can import it.
"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.states import ArrivalState, DidType, LockState, ReplicaState, RequestState, RuleState

MAX_CLAIM = 1000
"""Most arrivals of one claim, and of one report (DESIGN section 6: bulk calls are bounded)."""

MAX_DATASETS = 10_000
"""Datasets of one file that the ledger names."""

MAX_WAIT_S = 30.0
"""Longest long poll, seconds: below the idle limits that proxies set by default."""

MAX_LEASE_S = 3600.0
"""Longest lease, seconds: an agent that needs more extends it."""


Key = Annotated[int, Field(ge=0, lt=2**63)]
"""An id or a fence: what a column of 64 bits holds."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Answer(BaseModel):
    """What the registry sends; a newer registry may send more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ButlerRse(_Wire):
    """An RSE that feeds a butler."""

    rse: str = Field(min_length=1, max_length=255)
    uri_prefix: str | None = Field(default=None, max_length=2000)
    """Takes the place of the RSE's own prefix in the URIs that the Butler's readers open; None: the PFN itself."""


class ButlerSelection(_Wire):
    """Which files belong in a butler."""

    scope: str = Field(min_length=1, max_length=25)
    pattern: str = Field(default="*", min_length=1, max_length=500)
    """Name pattern; ``*`` stands for any text."""


MOVE = "move"
"""Transfer into a Butler's own datastore, after which the replica is let go: only from staging areas."""


class NewButler(_Wire):
    """A butler to add."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    uri: str = Field(min_length=1, max_length=2000)
    """Repository URI as the site's agent opens it."""
    transfer: Literal["direct", "link", "symlink", "relsymlink", "hardlink", "copy", "move"] = "direct"
    instruments: tuple[str, ...] = Field(default=(), max_length=100)
    rses: tuple[ButlerRse, ...] = Field(min_length=1, max_length=100)
    selections: tuple[ButlerSelection, ...] = Field(min_length=1, max_length=1000)


class ButlerInfo(_Answer):
    """A butler as the catalogue knows it."""

    name: str
    uri: str
    transfer: str = "direct"
    instruments: list[str] = Field(default_factory=list)
    rses: list[ButlerRse] = Field(default_factory=list)
    selections: list[ButlerSelection] = Field(default_factory=list)
    created_at: datetime | None = None


class ClaimArrivals(_Wire):
    """An agent asks for work."""

    butler: str = Field(min_length=1, max_length=64)
    worker: str = Field(min_length=1, max_length=200)
    limit: int = Field(default=100, ge=1, le=MAX_CLAIM)
    lease_s: float = Field(default=60.0, gt=0, le=MAX_LEASE_S)
    wait_s: float = Field(default=0.0, ge=0, le=MAX_WAIT_S)


class ArrivalFile(_Answer):
    """A claimed arrival: one file that has landed at a site and that a Butler there should have."""

    id: int
    fence: int
    """Moves with every claim; only the newest may report."""
    scope: str
    name: str
    rse: str
    uri: str
    """Absolute URI under which the site's Butler reads the file."""
    bytes: int
    adler32: str | None = None
    meta: dict[str, Any] = Field(default_factory=dict)
    attempt: int = 1
    """How many times it was claimed, this one included."""


class ArrivalOutcome(_Wire):
    """What an agent made of one arrival."""

    id: Key
    fence: Key
    state: Literal[ArrivalState.INGESTED, ArrivalState.FAILED, ArrivalState.PARKED]
    dataset_id: UUID | None = None
    datasets: tuple[UUID, ...] = Field(default=(), max_length=MAX_DATASETS)
    """All that are in the file, where there are several."""
    code: str | None = Field(default=None, max_length=64)
    reason: str | None = Field(default=None, max_length=4000)
    waits_for: str | None = Field(default=None, max_length=1000)
    retryable: bool = False
    provides: tuple[Annotated[str, Field(max_length=1000)], ...] = Field(default=(), max_length=1000)
    """Prerequisites that the Butler has now: what is parked for one of them is due at once."""


class HeldArrival(_Wire):
    """An arrival by its key and the fence under which it is held."""

    id: Key
    fence: Key


class ExtendArrivals(_Wire):
    """An agent needs more time."""

    arrivals: tuple[HeldArrival, ...] = Field(max_length=MAX_CLAIM)
    lease_s: float = Field(gt=0, le=MAX_LEASE_S)


class Arrival(_Answer):
    """One line of the ledger of arrivals."""

    id: int
    butler: str
    scope: str
    name: str
    rse: str
    state: ArrivalState
    attempt: int
    dataset_id: UUID | None = None
    """Of its dataset, or of the first in it."""
    datasets: list[UUID] | None = None
    """All that are in it, where there are several; only where one file is asked for."""
    code: str | None = None
    reason: str | None = None
    waits_for: str | None = None
    not_before: datetime | None = None
    """When it is due (pending) or tried again; None when nothing more happens by itself."""
    lease_owner: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    ingested_at: datetime | None = None
    updated_at: datetime


class ArrivalFilter(_Wire):
    """Which lines of the ledger to list."""

    butler: str | None = None
    state: ArrivalState | None = None
    rse: str | None = Field(default=None, max_length=255)
    code: str | None = Field(default=None, max_length=64)
    scope: str | None = None
    name: str | None = Field(default=None, max_length=500)
    """Pattern of file names; ``*`` is any text."""
    limit: int | None = Field(default=None, ge=1)
    after: Key = 0
    """Only ids above this one: the last of the page before."""


class NewToken(_Wire):
    """A standing token to make for an agent."""

    label: str = Field(min_length=1, max_length=200)
    lifetime_s: int = Field(ge=60, le=366 * 86400)
    rses: tuple[str, ...] = Field(default=(), max_length=1000)
    butlers: tuple[str, ...] = Field(default=(), max_length=1000)
    account: str | None = None
    """Account that the token acts for; None: the caller's own."""


class IssuedToken(_Answer):
    """A new token. The secret is in this answer and nowhere else."""

    id: int
    token: str
    expires_at: datetime


class Token(_Answer):
    """A token without its secret."""

    id: int
    account: str
    label: str | None = None
    rses: list[str] = Field(default_factory=list)
    butlers: list[str] = Field(default_factory=list)
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


class TraceRule(_Answer):
    """A rule that asks for the file, directly or by what holds it."""

    id: str
    scope: str
    name: str
    account: str
    rse_expression: str
    copies: int
    state: RuleState
    code: str | None = None
    reason: str | None = None
    created_at: datetime


class TraceLock(_Answer):
    """What a rule asks of this file at one RSE."""

    rule_id: str
    rse: str
    state: LockState
    code: str | None = None
    reason: str | None = None
    created_at: datetime


class TraceRequest(_Answer):
    """A copy that is under way, or an attempt that has ended."""

    id: int
    destination: str
    source: str | None = None
    state: RequestState
    attempt: int
    mode: str | None = None
    seconds: float | None = None
    """Wall time of the copy itself."""
    code: str | None = None
    reason: str | None = None
    not_before: datetime | None = None
    """When the next attempt is due, for a request that is queued."""
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None


class TraceReplica(_Answer):
    """Where the file is."""

    rse: str
    state: ReplicaState
    bytes: int
    verified_at: datetime | None = None
    code: str | None = None
    reason: str | None = None
    created_at: datetime
    updated_at: datetime


StepName = Literal[
    "registered", "rule", "lock", "request", "attempt", "replica", "verified", "arrival", "ingested"
]
"""What can happen to a file, in the order in which it does."""


class TraceStep(_Answer):
    """One thing that happened, for reading from top to bottom."""

    at: datetime
    age_s: float
    """Seconds from then until the answer was made, by the database's clock."""
    step: StepName
    where: str
    """RSE, rule or butler that it is about."""
    state: str
    detail: str = ""
    took_s: float | None = None
    """Seconds, where they are known: a lock's since the rule was asked for, an attempt's for the copy alone, a
    verification's since the attempt began, an arrival's until it was claimed, an ingest's since then."""


class Trace(_Answer):
    """The way of one file (DESIGN section 2)."""

    scope: str
    name: str
    type: DidType
    bytes: int | None = None
    adler32: str | None = None
    account: str
    created_at: datetime
    now: datetime
    rules: list[TraceRule] = Field(default_factory=list)
    locks: list[TraceLock] = Field(default_factory=list)
    requests: list[TraceRequest] = Field(default_factory=list)
    replicas: list[TraceReplica] = Field(default_factory=list)
    arrivals: list[Arrival] = Field(default_factory=list)
    steps: list[TraceStep] = Field(default_factory=list)


class RseCount(_Answer):
    """Replicas of one state at one RSE."""

    rse: str
    state: ReplicaState
    files: int
    bytes: int


class ArrivalCount(_Answer):
    """Arrivals of one state at one butler."""

    butler: str
    state: ArrivalState
    files: int


class Counts(_Answer):
    """How much there is of everything, counted now."""

    at: datetime
    dids: dict[DidType, int]
    replicas: list[RseCount]
    rules: dict[RuleState, int]
    requests: dict[RequestState, int]
    arrivals: list[ArrivalCount]
