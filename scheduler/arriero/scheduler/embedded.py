"""The scheduler's worker and schedule in threads of this process, for ``arriero up``.

With ``memory://`` as broker nothing leaves the process. Signals are left to whoever owns the process.
"""

import threading

import structlog
from celery.app import trace
from celery.beat import Scheduler, Service
from celery.worker import WorkController

from arriero.registry.services.context import Context
from arriero.scheduler.app import create_celery
from arriero.scheduler.errors import WorkerNotReady
from arriero.scheduler.names import QUEUES

log = structlog.get_logger(__name__)

_HOSTNAME = "embedded@arriero"


class EmbeddedWorker:
    """A Celery worker with its beat, in threads.

    Parameters
    ----------
    context
        What the tasks work with. Its doorbell must ring an app of the same broker:
        ``CeleryDoorbell(create_celery(settings))``.
    threads
        Tasks at once. Copies have threads of their own (``transfer_threads``).
    """

    def __init__(self, context: Context, *, threads: int = 6) -> None:
        self._app = create_celery(context.settings, context=context)
        self._ready = threading.Event()
        self._worker = WorkController(
            app=self._app,
            pool="threads",
            concurrency=threads,
            queues=",".join(QUEUES),
            hostname=_HOSTNAME,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            ready_callback=lambda _consumer: self._ready.set(),
        )
        # the default one writes a file into the current folder
        self._beat = Service(self._app, scheduler_cls=Scheduler)
        self._threads = [
            threading.Thread(target=self._worker.start, name="arriero-worker", daemon=True),
            threading.Thread(target=self._beat.start, name="arriero-beat", daemon=True),
        ]
        self._started = False

    def start(self, timeout_s: float = 30.0) -> None:
        """Start; returns when the worker takes tasks.

        Parameters
        ----------
        timeout_s
            Longest wait, seconds.

        Raises
        ------
        WorkerNotReady
            It does not take tasks in that time.
        """
        self._started = True
        # what the command `celery worker` does before it starts; without it tasks are looked up in no app
        trace.setup_worker_optimizations(self._app, _HOSTNAME)
        worker, beat = self._threads
        worker.start()
        if not self._ready.wait(timeout_s):
            self.stop()
            raise WorkerNotReady(f"the embedded worker takes no tasks after {timeout_s:g} s; see its log")
        beat.start()

    def stop(self, timeout_s: float = 20.0) -> None:
        """End: no new work is taken, copies under way go back to the queue, tasks that run are waited for.

        Parameters
        ----------
        timeout_s
            Longest wait, seconds.
        """
        if not self._started:
            return
        self._started = False
        self._app.work.stop()
        running = [thread for thread in self._threads if thread.is_alive()]
        if self._threads[1] in running:
            self._beat.stop(wait=True)
        self._worker.stop()
        for thread in running:
            thread.join(timeout_s)
            if thread.is_alive():
                log.warning("a thread of the embedded worker did not end in time", thread=thread.name)
        trace.reset_worker_optimizations(self._app)
        self._app.close()
