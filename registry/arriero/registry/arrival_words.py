"""The words of the ledger of arrivals for who looks after it: files of a Butler, changes, releases, its state.

Shared by the API, the client, the site's tools and the command line. Data only, as `arriero.registry.models`.
"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from arriero.registry.models import MAX_CLAIM, MAX_DATASETS, HeldArrival, Key
from arriero.registry.operations import Why
from arriero.registry.states import ArrivalState, ReplicaState

MAX_PREREQUISITES = 1000
"""Most prerequisites of one list, and of one call that wakes."""

OPERATOR = "operator"
"""What an arrival waits for that somebody has parked."""


BUTLER_KEY, SIDECAR_KEY = "rubin_butler", "rubin_sidecar"
DESCRIBES = frozenset({BUTLER_KEY, SIDECAR_KEY})
"""Metadata of a file that say what becomes of it in a Butler, as `rucio-register` writes them."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Answer(BaseModel):
    """What the registry sends; a newer registry may send more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ButlerFile(_Answer):
    """One file of a Butler's ledger, with what the catalogue has verified of its replica."""

    id: int
    fence: int
    state: ArrivalState
    scope: str
    name: str
    rse: str
    uri: str | None = None
    """Absolute URI under which the site's Butler reads the file; None: its name makes no path there."""
    bytes: int | None = None
    adler32: str | None = None
    replica_state: ReplicaState | None = None
    """None: there is no replica."""
    dataset_id: UUID | None = None
    datasets: list[UUID] | None = None
    """All that are in it, where there are several."""
    may_hold: bool = False
    """Whether the Butler may have the dataset although nobody has said so: the agent went silent with it in hand."""
    attempt: int = 0
    code: str | None = None
    reason: str | None = None
    waits_for: str | None = None


class ButlerFileFilter(_Wire):
    """Which files of a Butler's ledger to list."""

    state: ArrivalState | None = None
    rse: str | None = Field(default=None, max_length=255)
    scope: str | None = Field(default=None, max_length=25)
    name: str | None = Field(default=None, max_length=500)
    """Pattern of file names; ``*`` is any text."""
    code: str | None = Field(default=None, max_length=64)
    dataset: str | None = Field(default=None, max_length=530)
    """``scope:name`` of a file, dataset or container: what it is or holds, at any depth."""
    limit: int | None = Field(default=None, ge=1)
    after: Key = 0


class HeldArrivals(_Wire):
    """Arrivals as they were seen: what has changed since is left alone."""

    arrivals: tuple[HeldArrival, ...] = Field(max_length=MAX_CLAIM)
    reason: Why | None = None


class FoundArrival(HeldArrival):
    """An arrival as it was seen, and the dataset that the Butler has of its file."""

    dataset_id: UUID
    datasets: tuple[UUID, ...] = Field(default=(), max_length=MAX_DATASETS)
    """All that are in it, where there are several."""


class AdoptArrivals(_Wire):
    """What the Butler has and the ledger does not know of, or knows under another id."""

    arrivals: tuple[FoundArrival, ...] = Field(max_length=MAX_CLAIM)


class ChangeArrivals(_Wire):
    """Have arrivals tried again, parked, or left out."""

    action: Literal["retry", "park", "drop"]
    butler: str = Field(min_length=1, max_length=64)
    ids: tuple[Key, ...] = Field(default=(), max_length=MAX_CLAIM)
    """Only these; none: all that the rest says."""
    state: ArrivalState | None = None
    code: str | None = Field(default=None, max_length=64)
    rse: str | None = Field(default=None, max_length=255)
    scope: str | None = Field(default=None, max_length=25)
    name: str | None = Field(default=None, max_length=500)
    reason: Why | None = None
    force: bool = False
    """Drop, too, what the Butler may have: its readers may then find a dataset without a file."""
    dry_run: bool = False


class Changed(_Answer):
    """How many arrivals a call changed, or would."""

    changed: int


class Prerequisite(_Answer):
    """What parked arrivals of a Butler wait for."""

    waits_for: str
    files: int


class WakeArrivals(_Wire):
    """Prerequisites that a Butler has now."""

    butler: str = Field(min_length=1, max_length=64)
    prerequisites: tuple[Annotated[str, Field(max_length=1000)], ...] = Field(max_length=MAX_PREREQUISITES)


class CompleteExposure(_Wire):
    """An exposure of which a Butler has every detector."""

    instrument: str = Field(min_length=1, max_length=64)
    exposure: str = Field(min_length=1, max_length=64)
    dataset_type: str = Field(min_length=1, max_length=128)
    detectors: int = Field(ge=1, le=100_000)
    visits: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(default=(), max_length=100)
    """Visits that the Butler has of it."""


class CompleteExposures(_Wire):
    """Exposures that have become whole."""

    exposures: tuple[CompleteExposure, ...] = Field(max_length=MAX_CLAIM)


class WhyCount(_Answer):
    """Arrivals of one state for one reason."""

    state: ArrivalState
    code: str | None = None
    files: int
    example: str | None = None
    """The reason of one of them."""


class ButlerStatus(_Answer):
    """How the ledger of a Butler stands."""

    name: str
    uri: str
    at: datetime
    states: dict[ArrivalState, int]
    reasons: list[WhyCount]
    """Of what is not ingested, the most frequent first."""
    last_ingest: datetime | None = None
    oldest_waiting: datetime | None = None
    lag_p50_s: float | None = None
    lag_p95_s: float | None = None
    """From AVAILABLE to ingested, seconds, of the last `lag_files` files."""
    lag_files: int = 0
