"""The site's ingest loop: claim arrivals, keep their leases, ingest them, report.

Why it exists: a site has a URL and a token, not a database. Everything here goes through `ArrivalQueue`
(the registry's HTTP client); a fence, not a clock, decides whose report counts. The loop may die at any
line: leases run out, another worker claims, and ingesting again is a no-op. It must not know what a Butler
is, nor keep any state on disk.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, Self
from uuid import UUID

import structlog

from arriero.agent.ingest.models import ArrivalFile, ButlerInfo, Outcome, OutcomeState

log = structlog.get_logger(__name__)

BUTLER_UNAVAILABLE = "butler_unavailable"
"""Code of the outcome that says nothing about the file: the Butler could not be reached."""

SHORTEST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0
"""Bounds of the back-off in seconds; it doubles in between."""

IDLE_PAUSE_S = 0.5
"""Pause after an empty answer that came without waiting, so that a queue that cannot wait is not hammered."""


class ArrivalQueue(Protocol):
    """The catalogue as the ingest loop sees it (REST resources under ``/arrivals`` and ``/butlers``)."""

    def claim_arrivals(
        self, butler: str, worker: str, limit: int, wait_s: float, lease_s: float
    ) -> list[ArrivalFile]:
        """Lease up to `limit` due arrivals, waiting at most `wait_s` seconds for the first.

        Parameters
        ----------
        butler
            Name of the butler.
        worker
            Who holds the leases; for people, not for the fence.
        limit
            Most arrivals to lease.
        wait_s
            Long poll, in seconds.
        lease_s
            Length of the lease, in seconds.

        Returns
        -------
        list of ArrivalFile
            Empty when nothing is due.
        """
        ...

    def report_arrivals(self, outcomes: Sequence[Outcome]) -> list[int]:
        """Report outcomes; return the ids that were not accepted because their fence has moved."""
        ...

    def extend_arrivals(self, ids_and_fences: Sequence[tuple[int, int]], lease_s: float) -> list[int]:
        """Extend leases to `lease_s` seconds from now; return the ids whose lease is lost."""
        ...

    def butler(self, name: str) -> ButlerInfo:
        """Return what the catalogue knows of a butler."""
        ...


class Writer(Protocol):
    """What turns arrivals into datasets (`arriero.agent.ingest.butler_writer.ButlerWriter`)."""

    def ingest(self, files: Sequence[ArrivalFile]) -> list[Outcome]:
        """Ingest files; exactly one outcome per file."""
        ...

    def holds(self, outcomes: Sequence[Outcome]) -> set[UUID]:
        """Return which of the outcomes' datasets the repository has."""
        ...


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


class LeaseKeeper:
    """Extends the leases of what is in hand, in a thread of its own, every third of a lease.

    Parameters
    ----------
    lease_s
        Length of a lease in seconds.
    """

    def __init__(self, queue: ArrivalQueue, lease_s: float) -> None:
        self._queue = queue
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=self._lease_s)

    @contextmanager
    def held_for(self, files: Sequence[ArrivalFile]) -> Iterator[None]:
        """Keep the leases of these until they are released, or at once no longer if the block fails."""
        with self._lock:
            self._held.update((file.id, file.fence) for file in files)
        try:
            yield
        except BaseException:
            self.release(files)
            raise

    def release(self, settled: Sequence[Outcome] | Sequence[ArrivalFile]) -> None:
        """Keep them no longer: they are reported, or will not be."""
        with self._lock:
            for item in settled:
                if self._held.get(item.id) == item.fence:
                    del self._held[item.id]

    def _run(self) -> None:
        while not self._ended.wait(self._lease_s / 3):
            try:
                self.extend()
            except Exception as error:  # noqa: BLE001 - a thread's border: the next turn tries again
                log.warning("leases not extended", reason=str(error), kind=type(error).__name__)

    def extend(self) -> None:
        """Extend all leases once; what is lost is let go, and its report will be rejected."""
        with self._lock:
            held = list(self._held.items())
        if not held:
            return
        lost = self._queue.extend_arrivals(held, self._lease_s)
        if lost:
            log.warning("leases lost", arrivals=sorted(lost))
        fences = dict(held)
        with self._lock:
            for id_ in lost:
                if self._held.get(id_) == fences.get(id_):
                    del self._held[id_]


class IngestWorker:
    """Claims, ingests and reports until it is told to stop.

    Parameters
    ----------
    queue
        The catalogue.
    writer
        The repository; used from the thread that calls `run` only.
    butler
        Name of the butler whose arrivals are claimed.
    worker_name
        Who the catalogue says holds the leases.
    batch
        Most files per claim.
    lease_s
        Length of a lease in seconds; it is extended while the batch is in hand.
    wait_s
        Long poll in seconds; also how long a stop may take when there is nothing to do.
    """

    def __init__(
        self,
        queue: ArrivalQueue,
        writer: Writer,
        butler: str,
        worker_name: str,
        *,
        batch: int = 500,
        lease_s: float = 60.0,
        wait_s: float = 3.0,
        backoff: Backoff | None = None,
    ) -> None:
        self._queue = queue
        self._writer = writer
        self._name = worker_name
        self._butler = butler
        self._batch = batch
        self._lease_s = lease_s
        self._wait_s = wait_s
        self._backoff = backoff or Backoff()
        self._unreported: list[Outcome] = []
        self._leases = LeaseKeeper(queue, lease_s)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; the batch in hand is finished and reported first.

        Raises
        ------
        Exception
            What the catalogue or the writer says that waiting will not mend (no rights, no such butler,
            a repository that does not suit). The leases then run out by themselves.
        """
        bound = structlog.contextvars.bound_contextvars(worker=self._name, butler=self._butler)
        with bound, self._leases:
            log.info("ingest worker started", batch=self._batch, lease_s=self._lease_s)
            while not stop.is_set():
                try:
                    self._turn(stop)
                except Exception as error:
                    if not may_pass(error):
                        raise
                    log.warning("catalogue unreachable", reason=str(error), unreported=len(self._unreported))
                    self._backoff.wait(stop)
            self._report_last()
            log.info("ingest worker stopped", unreported=len(self._unreported))

    def _turn(self, stop: threading.Event) -> None:
        """Report what is left over, then claim one batch, ingest it and report it."""
        self._report()
        asked = time.monotonic()
        files = self._queue.claim_arrivals(self._butler, self._name, self._batch, self._wait_s, self._lease_s)
        if not files:
            self._backoff.reset()
            if time.monotonic() - asked < min(IDLE_PAUSE_S, self._wait_s):
                stop.wait(IDLE_PAUSE_S)
            return
        with self._leases.held_for(files):
            outcomes = self._writer.ingest(files)
        self._unreported.extend(outcomes)
        self._report()
        if any(outcome.code == BUTLER_UNAVAILABLE for outcome in outcomes):
            # Claiming on would only walk through the whole queue and hand everything back.
            self._backoff.wait(stop)
        else:
            self._backoff.reset()

    def _report(self) -> None:
        """Report all outcomes in hand; they stay in hand if the catalogue cannot be reached."""
        if not self._unreported:
            return
        reported = self._unreported
        rejected = set(self._queue.report_arrivals(reported))
        self._unreported = []
        self._leases.release(reported)
        if rejected:
            self._reconcile([outcome for outcome in reported if outcome.id in rejected])

    def _reconcile(self, rejected: Sequence[Outcome]) -> None:
        """Say what the Butler has of what somebody else now answers for.

        The fence has moved: another worker has the arrival and will find the dataset there, or the arrival is
        gone. Nothing is undone, since taking a dataset out may pull it from under the other worker's report.
        """
        ingested = [outcome for outcome in rejected if outcome.state is OutcomeState.INGESTED]
        held = self._writer.holds(ingested) if ingested else set()
        log.warning(
            "reports rejected",
            arrivals=sorted(outcome.id for outcome in rejected),
            datasets_held=sorted(str(id_) for id_ in held),
        )

    def _report_last(self) -> None:
        try:
            self._report()
        except Exception as error:
            if not may_pass(error):
                raise
            # Ingesting them again is a no-op, so leaving them to the end of their leases costs time only.
            log.warning("left unreported", arrivals=len(self._unreported), reason=str(error))


def may_pass(error: Exception) -> bool:
    """Return whether waiting may mend an error: the catalogue's errors say so, a broken connection may."""
    retryable = getattr(error, "retryable", None)
    if retryable is not None:
        return bool(retryable)
    return isinstance(error, ConnectionError | TimeoutError)
