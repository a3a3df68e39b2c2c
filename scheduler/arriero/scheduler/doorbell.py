"""Rings the scheduler's bells with Celery messages.

A message says only "look at your queue": losing, doubling or delaying it costs nothing but latency (DESIGN 4.1).
"""

import threading
import time
from collections.abc import Mapping

import structlog
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from arriero.registry.ports import Bell
from arriero.scheduler.names import EVALUATE, RUN_DELETIONS, RUN_TRANSFERS, SUBSCRIBE

log = structlog.get_logger(__name__)

TASKS: Mapping[Bell, str] = {
    Bell.EVALUATIONS: EVALUATE,
    Bell.REQUESTS: RUN_TRANSFERS,
    Bell.SUBSCRIPTIONS: SUBSCRIBE,
    Bell.DELETIONS: RUN_DELETIONS,
}
"""The task that each bell starts."""


class CeleryDoorbell:
    """Rings with one message for all rings of a short time, from a thread of its own.

    Whoever rings never waits for the broker: while Redis is away, a call of the API must take no longer.

    Parameters
    ----------
    app
        From `create_celery`; a process that only rings needs nothing else of it.
    window_s
        Rings of a bell within so many seconds become one, sent at the end; the first after a quiet time is sent at
        once.
    """

    def __init__(self, app: Celery, *, window_s: float = 0.05) -> None:
        self._app = app
        self._window_s = window_s
        self._changed = threading.Condition()
        self._pending: set[Bell] = set()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ring(self, bell: Bell) -> None:
        """Tell whoever works on a queue that there is something to do. Never raises, never waits."""
        with self._changed:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="arriero-doorbell", daemon=True)
                self._thread.start()
            self._pending.add(bell)
            self._changed.notify()

    def close(self) -> None:
        """End; rings that are still to be sent are forgotten: the sweeps find the work."""
        with self._changed:
            self._closed = True
            self._pending.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if self._closed:
                    return
                due = sorted(self._pending)
                self._pending.clear()
            for bell in due:
                self._send(bell)
            time.sleep(self._window_s)

    def _send(self, bell: Bell) -> None:
        try:
            self._app.send_task(TASKS[bell], retry=False, ignore_result=True)
        except (KombuError, RedisError, OSError) as error:
            log.warning("bell not rung", bell=bell.value, cause=type(error).__name__)
