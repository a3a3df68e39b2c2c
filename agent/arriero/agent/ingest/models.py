"""The words that the registry's client, the worker loop and the Butler writer share.

Why it exists: an arrival crosses three borders (HTTP, the loop, the Butler), and all three must mean the
same by it. What arrives is the registry's wire model; what is reported is said here. It holds data only: no I/O,
no Butler, no HTTP.
"""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from arriero.registry.models import MAX_DATASETS, ArrivalFile, ButlerInfo

__all__ = ["ArrivalFile", "ButlerInfo", "Outcome", "OutcomeState"]

LONGEST_REASON = 2000
LONGEST_WAIT = 1000
"""Characters of a reason, and of a prerequisite, that a report carries; the catalogue refuses longer ones."""


MOST_PROVIDED = 1000
"""Prerequisites that one outcome names; what is parked for others is tried again in its own time."""


class OutcomeState(StrEnum):
    """What became of an arrival (DESIGN section 8)."""

    INGESTED = "ingested"
    FAILED = "failed"
    PARKED = "parked"


class Outcome(BaseModel):
    """What the ingest made of one arrival.

    Attributes
    ----------
    code
        Stable snake_case word for the reason; None when ingested.
    reason
        One sentence for a person; None when ingested.
    waits_for
        The prerequisite that a parked arrival waits for, as ``element=value,...``.
    retryable
        Whether the same file may succeed later without anyone's help.
    provides
        Prerequisites that are there now, in the words of `waits_for`: what is parked for one of them is woken.
    """

    model_config = ConfigDict(frozen=True)

    id: int
    fence: int
    state: OutcomeState
    dataset_id: UUID | None = None
    code: str | None = None
    reason: str | None = None
    waits_for: str | None = None
    datasets: tuple[UUID, ...] = ()
    retryable: bool = False
    provides: tuple[str, ...] = ()

    @classmethod
    def ingested(cls, file: ArrivalFile, dataset_id: UUID | None, datasets: tuple[UUID, ...] = ()) -> Outcome:
        """Return the outcome of a file that the Butler now has, with all datasets in it where there are several."""
        return cls(
            id=file.id,
            fence=file.fence,
            state=OutcomeState.INGESTED,
            dataset_id=dataset_id,
            datasets=datasets if len(datasets) <= MAX_DATASETS else (),
        )

    @classmethod
    def failed(cls, file: ArrivalFile, code: str, reason: str, *, retryable: bool = False) -> Outcome:
        """Return the outcome of a file that could not be ingested."""
        return cls(
            id=file.id,
            fence=file.fence,
            state=OutcomeState.FAILED,
            code=code,
            reason=_short(reason),
            retryable=retryable,
        )

    @classmethod
    def parked(cls, file: ArrivalFile, code: str, reason: str, *, waits_for: str) -> Outcome:
        """Return the outcome of a file that waits for a named prerequisite."""
        return cls(
            id=file.id,
            fence=file.fence,
            state=OutcomeState.PARKED,
            code=code,
            reason=_short(reason),
            waits_for=waits_for[:LONGEST_WAIT],
            retryable=True,
        )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"
