"""What this process has learnt of links: which way between two storages was tried in vain, and why."""

from __future__ import annotations

import threading
import time

from arriero.rse.copy_order import Mode, StepDown
from arriero.rse.types import Endpoint

MEMORY_SECONDS = 600.0
"""How long a way that was closed is not tried again."""

_MOST = 10_000


class LinkMemory:
    """Ways that were closed of late; shared by the threads of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed: dict[tuple[Endpoint, Endpoint, Mode], tuple[float, StepDown]] = {}

    def note(self, source: Endpoint, destination: Endpoint, step: StepDown) -> None:
        """Remember that a way was closed."""
        with self._lock:
            if len(self._closed) >= _MOST:
                self._closed.clear()
            self._closed[source, destination, step.mode] = (time.monotonic(), step)

    def closed(self, source: Endpoint, destination: Endpoint, mode: Mode) -> StepDown | None:
        """Say why a way is not to be tried now; None when it may be."""
        found = self._closed.get((source, destination, mode))
        if found is None or time.monotonic() - found[0] > MEMORY_SECONDS:
            return None
        return found[1]
