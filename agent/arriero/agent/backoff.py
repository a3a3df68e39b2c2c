"""How long a loop waits for what may come back by itself: the catalogue, a broker."""

from __future__ import annotations

import random
import threading

SHORTEST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0
"""Bounds of the back-off in seconds; it doubles in between."""


class Backoff:
    """Waits that double up to a limit, with jitter, until something succeeds."""

    def __init__(self, shortest_s: float = SHORTEST_BACKOFF_S, longest_s: float = LONGEST_BACKOFF_S) -> None:
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._next_s = shortest_s

    def reset(self) -> None:
        """Begin anew: it works again."""
        self._next_s = self._shortest_s

    def wait(self, stop: threading.Event) -> None:
        """Wait for the next interval, or until `stop`."""
        stop.wait(self._next_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        self._next_s = min(self._next_s * 2, self._longest_s)


def may_pass(error: Exception) -> bool:
    """Return whether waiting may mend an error: the catalogue's errors say so, a broken connection may."""
    retryable = getattr(error, "retryable", None)
    if retryable is not None:
        return bool(retryable)
    return isinstance(error, ConnectionError | TimeoutError)
