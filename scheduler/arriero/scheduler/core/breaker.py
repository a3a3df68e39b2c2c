"""The circuit breaker of an RSE: one that is down is left alone, and looked at now and then. Pure."""

from dataclasses import dataclass

TRIPS_AFTER = 5
"""Failures in a row that an RSE itself is to blame for, before it counts as down."""
FIRST_WAIT_S = 10.0
LONGEST_WAIT_S = 300.0
"""Until it is looked at again, seconds; doubling each time that it is still down."""

DOWN = frozenset({"unavailable", "timed_out"})
"""Codes of failures that an RSE is to blame for, and not the file."""


@dataclass(frozen=True, slots=True)
class Health:
    """How an RSE is."""

    is_down: bool = False
    failures: int = 0
    """In a row; while it is down, each look counts as one."""
    wait_s: float | None = None
    """When it is to be looked at again, seconds from now; None while it is not down."""


def next_health(health: Health, *, succeeded: int, failed: int) -> Health:
    """Say how an RSE is after a batch of copies.

    Parameters
    ----------
    succeeded
        Copies that it took part in and that succeeded.
    failed
        Those that failed because of it (`DOWN`).
    """
    if succeeded:
        return Health()
    if not failed:
        return health
    if not health.is_down:
        failures = health.failures + failed
        if failures < TRIPS_AFTER:
            return Health(failures=failures)
        return Health(is_down=True, failures=TRIPS_AFTER, wait_s=FIRST_WAIT_S)
    failures = health.failures + 1
    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - TRIPS_AFTER, 10))
    return Health(is_down=True, failures=failures, wait_s=wait_s)
