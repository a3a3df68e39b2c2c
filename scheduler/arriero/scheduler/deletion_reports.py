"""What a worker says of a deletion when it has done with it, and what becomes of the deletion."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from arriero.scheduler.deletion_claim import ClaimedDeletion


class Outcome(StrEnum):
    """How an attempt ended."""

    DONE = "done"
    NOT_FOUND = "not_found"
    """There was nothing to remove, which counts as done."""
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    """The storage did not answer: that says nothing of the file, and costs no attempt."""
    UNSENT = "unsent"
    """Nothing was asked of the storage."""
    KEPT = "kept"
    """Its proof is gone, and the bytes are there and right."""
    SPOILT = "spoilt"
    """Its proof is gone, and what is there is not what the catalogue says."""


class Action(StrEnum):
    """What becomes of a deletion."""

    FINISH = "finish"
    """The replica leaves the catalogue."""
    BURY = "bury"
    """Its bytes are gone; its path is kept free until nothing can be on its way there any more."""
    AGAIN = "again"
    """It is tried again, at its time."""
    REVERT = "revert"
    """The replica is what it was."""


@dataclass(frozen=True, slots=True)
class Report:
    """One report. It counts only if the deletion is still held by its owner with that fence."""

    deletion: ClaimedDeletion
    outcome: Outcome
    code: str | None = None
    reason: str | None = None
    seconds: float | None = None
    """Wall time of the request."""
    delay_s: float = 0.0
    """When it is tried again, seconds from now."""
    may_be_under_way: bool = False
    """Nobody knows whether the storage is still going to do it."""
    url: str | None = None
    scheme: str | None = None

    @property
    def may_have_removed(self) -> bool:
        """Whether the storage has removed something, or may do so yet."""
        return self.outcome is Outcome.DONE or self.may_be_under_way


@dataclass(frozen=True, slots=True)
class Decided:
    """A report that counts, and what becomes of its deletion."""

    report: Report
    action: Action

    @property
    def is_gone(self) -> bool:
        """Whether its bytes are gone."""
        return self.action in {Action.FINISH, Action.BURY}

    @property
    def freed(self) -> int:
        """Bytes that deletion has freed: what an earlier attempt has removed without saying so is not there any more."""
        report = self.report
        by_us = report.outcome is Outcome.DONE or report.deletion.fence > 1
        return report.deletion.bytes if self.is_gone and by_us else 0


def decide(report: Report, held: Any) -> Decided:
    """Decide what becomes of a deletion that the worker still holds.

    Parameters
    ----------
    held
        Its row: ``fence`` and ``has_grave``, whether a request of an earlier attempt may still reach the storage.
    """
    outcome = report.outcome
    if outcome in {Outcome.DONE, Outcome.NOT_FOUND}:
        return Decided(report, Action.BURY if held.has_grave else Action.FINISH)
    if outcome in {Outcome.KEPT, Outcome.SPOILT}:
        return Decided(report, Action.AGAIN if held.has_grave else Action.REVERT)
    if outcome is Outcome.UNSENT and held.fence == 1:
        # no attempt has ever asked the storage for anything
        return Decided(report, Action.REVERT)
    return Decided(report, Action.AGAIN)
