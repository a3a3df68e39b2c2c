"""What a worker process works with: one `Context`, one pool of storage connections, made after the fork.

A database connection or a TLS session that two processes share is garbage in both; so nothing here is made when the
module is imported, and what belongs to another process is forgotten.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable

from arriero.registry.database import Database
from arriero.registry.ports import Doorbell
from arriero.registry.services.context import Context
from arriero.registry.settings import Settings
from arriero.rse.pool import ProtocolPool
from arriero.scheduler.deletion_run import DeletionRunner
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.scrub import Scrubber
from arriero.scheduler.subscribe import Subscriber
from arriero.scheduler.transfer import TransferRunner


class Work:
    """The workers of one process: made when first asked for, and again in a forked child.

    Parameters
    ----------
    context
        Gives what they work with. Called once a process.
    """

    def __init__(self, context: Callable[[], Context]) -> None:
        self._make_context = context
        self._lock = threading.Lock()
        self._pid = -1
        # made before the fork and shared with the children: the parent gets the signal, they do the work
        self._stopped = multiprocessing.get_context("fork").Event()

    @property
    def context(self) -> Context:
        """The process's context."""
        self._ready()
        return self._context

    @property
    def evaluator(self) -> "Turns":
        """Evaluates what is due."""
        self._ready()
        return self._evaluator

    @property
    def subscriptions(self) -> "Turns":
        """Applies subscriptions to the DIDs that are due."""
        self._ready()
        return self._subscriptions

    @property
    def transfers(self) -> "Turns":
        """Copies what is due."""
        self._ready()
        return self._transfers

    @property
    def deletions(self) -> "Turns":
        """Deletes what is due."""
        self._ready()
        return self._deletions

    @property
    def scrubs(self) -> "Turns":
        """Reads replicas again whose turn it is."""
        self._ready()
        return self._scrubs

    def stop(self) -> None:
        """Have what runs end soon, in forked children too: copies under way are given back to the queue."""
        self._stopped.set()

    def _ready(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            context = self._make_context()
            self._context = context
            stopping = self._stopped.is_set
            runner = TransferRunner(context, pool=ProtocolPool(), stopping=stopping)
            self._transfers = Turns(runner.run)
            self._evaluator = Turns(Evaluator(context, stopping=stopping).run)
            self._subscriptions = Turns(Subscriber(context, stopping=stopping).run)
            self._deletions = Turns(DeletionRunner(context, stopping=stopping).run)
            self._scrubs = Turns(Scrubber(context, stopping=stopping).run)
            self._pid = os.getpid()


class Turns:
    """Has one thread at a time do the work; who comes meanwhile has it done once more and does not wait.

    Parameters
    ----------
    work
        Works until nothing is due.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._running = False
        self._again = False

    def take(self) -> None:
        """Do the work, or leave word that it has to be looked at again."""
        with self._lock:
            if self._running:
                self._again = True
                return
            self._running = True
        try:
            while True:
                self._again = False
                self._work()
                with self._lock:
                    if not self._again:
                        self._running = False
                        return
        except BaseException:
            with self._lock:
                self._running = False
            raise


def make_context(settings: Settings, doorbell: Doorbell) -> Context:
    """Make the context of this process.

    Parameters
    ----------
    settings
        Read once, by the parent.
    doorbell
        What its services ring.
    """
    database = Database(settings.database_url.get_secret_value(), pool_size=settings.database_pool_size)
    return Context(database=database, settings=settings, doorbell=doorbell)
