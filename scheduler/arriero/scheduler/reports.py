"""What a worker says of a request when it has done with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from arriero.registry.settings import Settings
from arriero.scheduler.claim import ClaimedRequest
from arriero.scheduler.core.retry import GiveUp, decide


class Outcome(StrEnum):
    """What becomes of a request."""

    DONE = "done"
    RETRY = "retry"
    FAILED = "failed"
    RELEASED = "released"
    """Given back by a worker that ends; the attempt does not count."""
    DROPPED = "dropped"
    """No worker says this: a settlement finds that a copy that did not succeed is needed no more."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is known of the copy itself."""

    mode: str | None = None
    seconds: float | None = None
    """Wall time of the copy."""
    source_rse: str | None = None
    source_url: str | None = None
    destination_url: str | None = None
    scheme: str | None = None
    mode_reason: str | None = None
    """Why it went this way, where it was not the first choice."""


@dataclass(frozen=True, slots=True)
class Report:
    """One report. It counts only if the request is still held by its owner with that fence."""

    request_id: int
    fence: int
    owner: str
    file_id: int
    rse_id: int
    outcome: Outcome
    code: str | None = None
    reason: str | None = None
    delay_s: float = 0.0
    """Not before so many seconds from now, for a retry."""
    transfer: Transfer = Transfer()


def success(request: ClaimedRequest, transfer: Transfer) -> Report:
    """Report that the file is verified and under its final name."""
    return _report(request, Outcome.DONE, transfer=transfer)


def released(request: ClaimedRequest, reason: str, *, code: str = "released", delay_s: float = 0.0) -> Report:
    """Report that the request is given back as if it had not been taken.

    Parameters
    ----------
    delay_s
        Not before so many seconds from now.
    """
    return _report(request, Outcome.RELEASED, code=code, reason=reason, delay_s=delay_s)


def failure(
    request: ClaimedRequest,
    settings: Settings,
    code: str,
    reason: str,
    *,
    retryable: bool,
    alternatives: int = 0,
    transfer: Transfer | None = None,
) -> Report:
    """Report an attempt that failed, and decide what follows.

    Parameters
    ----------
    code, reason, retryable
        As the storage says.
    alternatives
        Sources that could be tried instead.
    transfer
        What is known of the copy.
    """
    decided = decide(
        code,
        reason,
        retryable=retryable,
        attempt=request.attempt,
        max_attempts=settings.transfer_max_attempts,
        alternatives=alternatives,
        base_s=settings.transfer_backoff_s,
        maximum_s=settings.transfer_backoff_max_s,
        seed=f"request {request.id}",
    )
    given_up = isinstance(decided, GiveUp)
    return _report(
        request,
        Outcome.FAILED if given_up else Outcome.RETRY,
        code=code,
        reason=decided.reason,
        delay_s=0.0 if isinstance(decided, GiveUp) else decided.delay_s,
        transfer=transfer,
    )


def _report(
    request: ClaimedRequest,
    outcome: Outcome,
    *,
    code: str | None = None,
    reason: str | None = None,
    delay_s: float = 0.0,
    transfer: Transfer | None = None,
) -> Report:
    return Report(
        request_id=request.id,
        fence=request.fence,
        owner=request.owner,
        file_id=request.file_id,
        rse_id=request.destination_id,
        outcome=outcome,
        code=code,
        reason=None if reason is None else reason[:1000],
        delay_s=delay_s,
        transfer=transfer or Transfer(),
    )


def by_request(reports: Sequence[Report]) -> dict[int, Report]:
    """Reports by request; the last one of each counts."""
    return {report.request_id: report for report in reports}
