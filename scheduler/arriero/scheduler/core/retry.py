"""When a failed copy is tried again, and when it is given up."""

from dataclasses import dataclass

from arriero.scheduler.core.seeds import fraction

PERMANENT = frozenset({"invalid_name", "already_exists", "unsupported", "no_protocol", "no_path"})
"""Codes with which the same attempt fails for ever, from whatever source."""

OF_THE_SOURCE = frozenset({"not_found", "source_mismatch"})
"""Codes with which that source fails for ever; another may do."""

RETRYABLE = frozenset({"access_denied", "no_source"})
"""Codes that come right without our doing (a token is renewed, a replica registered), whatever the storage thinks."""

_STUCK_AGE = 12.0
"""A stuck rule is looked at less often after each such multiple of the first wait: 24 h for 2 h (Rucio's cadence)."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The request goes back to the queue."""

    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The request has failed."""

    reason: str


def back_off(attempt: int, *, base_s: float, maximum_s: float, seed: str) -> float:
    """Seconds to wait after an attempt: doubling, with jitter of a half to once that much.

    Parameters
    ----------
    attempt
        The one that failed, from 1.
    base_s, maximum_s
        Wait after the first, and the longest, seconds.
    seed
        Tells the queue's items apart, so that what fails together does not come back together.
    """
    full = min(maximum_s, base_s * 2.0 ** min(max(attempt, 1) - 1, 40))
    return full * (0.5 + 0.5 * fraction(seed, attempt))


def decide(
    code: str,
    reason: str,
    *,
    retryable: bool,
    attempt: int,
    max_attempts: int,
    alternatives: int,
    base_s: float,
    maximum_s: float,
    seed: str,
) -> Retry | GiveUp:
    """Decide what follows a failed attempt.

    Parameters
    ----------
    code, reason
        What went wrong.
    retryable
        Whether the storage says that the same call may succeed later; codes in the tables of this module override it.
    attempt, max_attempts
        The one that failed, from 1, and how many there may be.
    alternatives
        Sources that could be tried instead.
    base_s, maximum_s, seed
        As for `back_off`.
    """
    if code in PERMANENT:
        return GiveUp(reason)
    if code in OF_THE_SOURCE and not alternatives:
        return GiveUp(f"{reason} (no other source)")
    if code not in OF_THE_SOURCE | RETRYABLE and not retryable:
        return GiveUp(reason)
    if attempt >= max_attempts:
        return GiveUp(f"{reason} (given up after {attempt} attempts)")
    return Retry(back_off(attempt, base_s=base_s, maximum_s=maximum_s, seed=seed), reason)


def stuck_wait(stuck_for_s: float, *, base_s: float) -> float:
    """Seconds until a stuck rule is looked at again: 2, 4, 6, then 8 h by days, for a base of 2 h (DESIGN section 5)."""
    return base_s * min(4.0, 1.0 + max(stuck_for_s, 0.0) // (_STUCK_AGE * base_s))
