"""Tells of exposures that are whole, and wakes parked arrivals as soon as the Butler has what they wait for.

Why it exists: a file that waits for its visit is tried again every few minutes whatever happens. This asks the ledger what
is waited for, and the Butler whether it has come, whoever brought it: the same agent, another one, or a person.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from arriero.agent.butler_contents import ButlerContents
from arriero.agent.ingest.errors import IngestError
from arriero.registry.arrival_words import CompleteExposure, Prerequisite
from arriero.registry.pages import pages_of

log = structlog.get_logger(__name__)

EVERY_S = 5.0
"""How often it is looked when nothing was ingested, seconds."""

MOST_TOLD = 1000
"""Exposures that one call may tell of."""

AGAIN_S = 300.0
"""When arrivals are woken again that were parked once more for what the Butler has, seconds."""


class Ledger(Protocol):
    """The catalogue as the waker sees it."""

    def prerequisites(self, butler: str) -> list[Prerequisite]:
        """Return what the parked arrivals of a Butler wait for."""
        ...

    def wake_arrivals(self, butler: str, prerequisites: Sequence[str]) -> int:
        """Say what a Butler has now; return how many arrivals are due by that."""
        ...

    def tell_complete(self, butler: str, exposures: Sequence[CompleteExposure]) -> None:
        """Say which exposures are whole in a Butler."""
        ...


class Waker:
    """Looks from time to time, in the thread of the ingest.

    Parameters
    ----------
    ledger
        The registry.
    butler
        Name of the Butler.
    open_contents
        Opens its repository for reading; called once, and again after an outage.
    """

    def __init__(
        self,
        ledger: Ledger,
        butler: str,
        open_contents: Callable[[], ButlerContents],
    ) -> None:
        self._ledger = ledger
        self._butler = butler
        self._open = open_contents
        self._contents: ButlerContents | None = None
        self._next = 0.0
        self._woken: dict[str, float] = {}

    def close(self) -> None:
        """Let go of the Butler."""
        if self._contents is not None:
            self._contents.close()
            self._contents = None

    def whole(self, exposures: Sequence[CompleteExposure]) -> None:
        """Tell of exposures that have become whole."""
        for page in pages_of(exposures, MOST_TOLD):
            self._ledger.tell_complete(self._butler, page)
            log.info("exposures complete", butler=self._butler, exposures=len(page))

    def look(self, *, at_once: bool = False) -> int:
        """Wake what can be; give how many arrivals.

        Parameters
        ----------
        at_once
            Look although it was looked just now.
        """
        moment = time.monotonic()
        if not at_once and moment < self._next:
            return 0
        self._next = moment + EVERY_S
        waited_for = [one.waits_for for one in self._ledger.prerequisites(self._butler)]
        self._woken = {key: due for key, due in self._woken.items() if key in waited_for and due > moment}
        asked = [key for key in waited_for if key not in self._woken]
        present = sorted(self._present(asked)) if asked else []
        if not present:
            return 0
        woken = self._ledger.wake_arrivals(self._butler, present)
        self._woken.update(dict.fromkeys(present, moment + AGAIN_S))
        log.info("arrivals woken", butler=self._butler, arrivals=woken, prerequisites=len(present))
        return woken

    def _opened(self) -> ButlerContents:
        if self._contents is None:
            self._contents = self._open()
        return self._contents

    def _present(self, prerequisites: Sequence[str]) -> set[str]:
        try:
            return self._opened().present(prerequisites)
        except IngestError as error:
            # the ingest says so, and waits
            log.warning("cannot look for prerequisites", butler=self._butler, reason=str(error))
            self.close()
            return set()
