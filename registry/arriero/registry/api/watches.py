"""Tells claims that wait over HTTP when there may be something for them: one look at the database for all of them.

Why it exists: each claim looking by itself costs a query every few moments for every agent, and the longer the pause between
looks, the later a file is seen.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

import structlog
from fastapi.concurrency import run_in_threadpool

log = structlog.get_logger(__name__)

LOOK_S = 0.05
"""Pause between looks while anybody waits, seconds."""


class Watch:
    """Waits for things by their key.

    Parameters
    ----------
    look
        Gives those of some keys for which there is something. It may block: it is called in a thread.
    every_s
        Pause between looks, seconds.
    """

    def __init__(self, look: Callable[[Collection[int]], Iterable[int]], every_s: float = LOOK_S) -> None:
        self._look = look
        self._every_s = every_s
        self._waiting: dict[int, set[asyncio.Event]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Look at once: this process has brought something. From the event loop's thread."""
        self._nudged.set()

    async def wait(self, key: int, timeout_s: float) -> None:
        """Return when there may be something for a key, or after so many seconds."""
        seen = asyncio.Event()
        self._waiting.setdefault(key, set()).add(seen)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._run())
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(seen.wait(), timeout_s)
        finally:
            self._waiting[key].discard(seen)
            if not self._waiting[key]:
                del self._waiting[key]

    async def _run(self) -> None:
        while self._waiting:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), self._every_s)
            self._nudged.clear()
            keys = set(self._waiting)
            try:
                found = await run_in_threadpool(self._look, keys) if keys else ()
            except Exception as error:  # noqa: BLE001 - whoever waits asks for itself, and says what is wrong
                log.warning("cannot look for work", reason=str(error), kind=type(error).__name__)
                found = keys
            for key in found:
                for seen in self._waiting.get(key, ()):
                    seen.set()
