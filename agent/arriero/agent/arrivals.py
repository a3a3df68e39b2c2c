"""The site's ingest loop: claim arrivals, keep their leases, ingest them, report.

Why it exists: a site has a URL and a token, not a database. Everything here goes through `ArrivalQueue`
(the registry's HTTP client); a fence, not a clock, decides whose report counts. The loop may die at any
line: leases run out, another worker claims, and ingesting again is a no-op. It must not know what a Butler
is, nor keep any state on disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, Self
from uuid import UUID

import structlog

from arriero.agent.backoff import Backoff, may_pass
from arriero.agent.ingest.errors import FirstFailure
from arriero.agent.ingest.models import ArrivalFile, ButlerInfo, Outcome, OutcomeState
from arriero.registry.arrival_words import CompleteExposure
from arriero.registry.pages import pages_of

log = structlog.get_logger(__name__)

BUTLER_UNAVAILABLE = "butler_unavailable"
"""Code of the outcome that says nothing about the file: the Butler could not be reached."""

BATCH = 2000
"""Files that one transaction takes by default: more make it hardly faster, and others wait longer for it."""

FIRST_BATCH = 500
"""Files of a batch that nothing was ingested beside: the next is claimed meanwhile, and may be twice as large."""

MOST_CLAIMED = 1000
"""Arrivals that one claim, report or extension may name."""

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

    def take_whole(self) -> list[CompleteExposure]:
        """Return the exposures that have become whole since this was called last."""
        ...


class Waker(Protocol):
    """What tells others, and wakes parked arrivals (`arriero.agent.wake.Waker`)."""

    def look(self, *, at_once: bool = False) -> int:
        """Wake what waits for something that has come; return how many arrivals."""
        ...

    def whole(self, exposures: Sequence[CompleteExposure]) -> None:
        """Tell of exposures that have become whole."""
        ...


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
        self.calls = threading.Lock()
        """Held while leases are extended, and by whoever reports: what is just being settled is not lost."""
        self._held: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=self._lease_s)

    def hold(self, files: Sequence[ArrivalFile]) -> None:
        """Keep the leases of these until they are released."""
        with self._lock:
            self._held.update((file.id, file.fence) for file in files)

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
        with self.calls:
            with self._lock:
                held = dict(self._held)
            lost = [
                id_
                for page in pages_of(held.items(), MOST_CLAIMED)
                for id_ in self._queue.extend_arrivals(page, self._lease_s)
            ]
            with self._lock:
                for id_ in lost:
                    if self._held.get(id_) == held.get(id_):
                        del self._held[id_]
        if lost:
            log.warning("leases lost", arrivals=sorted(lost))


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
        Most files in one transaction of the Butler.
    lease_s
        Length of a lease in seconds; it is extended while the batch is in hand.
    wait_s
        Long poll in seconds; also how long a stop may take when there is nothing to do.
    fail_fast
        End with the first batch of which a file fails for good, instead of going on with the others.
    """

    def __init__(
        self,
        queue: ArrivalQueue,
        writer: Writer,
        butler: str,
        worker_name: str,
        *,
        batch: int = BATCH,
        lease_s: float = 60.0,
        wait_s: float = 3.0,
        backoff: Backoff | None = None,
        waker: Waker | None = None,
        fail_fast: bool = False,
    ) -> None:
        self._queue = queue
        self._fail_fast = fail_fast
        self._writer = writer
        self._waker = waker
        self._name = worker_name
        self._butler = butler
        self._batch = batch
        self._lease_s = lease_s
        self._wait_s = wait_s
        self._backoff = backoff or Backoff()
        self._away = False
        self._size = 0
        self._ahead: list[ArrivalFile] = []
        self._unreported: list[Outcome] = []
        self._whole: list[CompleteExposure] = []
        self._leases = LeaseKeeper(queue, lease_s)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; what is claimed by then is ingested and reported first.

        Raises
        ------
        FirstFailure
            If `fail_fast` and a file has failed for good; it is reported, and nothing more is claimed.
        Exception
            What the catalogue or the writer says that waiting will not mend (no rights, no such butler,
            a repository that does not suit). The leases then run out by themselves.
        """
        bound = structlog.contextvars.bound_contextvars(worker=self._name, butler=self._butler)
        with bound, self._leases, ThreadPoolExecutor(1, "catalogue") as self._aside:
            log.info("ingest worker started", batch=self._batch, lease_s=self._lease_s)
            while self._ahead or not stop.is_set():
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
        """Ingest one batch; what is left over is reported before, and a full queue is claimed from, meanwhile."""
        asked = time.monotonic()
        files = self._next()
        if not files:
            self._backoff.reset()
            self._look()
            if time.monotonic() - asked < min(IDLE_PAUSE_S, self._wait_s):
                stop.wait(IDLE_PAUSE_S)
            return
        full = len(files) >= self._size
        more = full and not (self._away or self._fail_fast or stop.is_set())
        aside = self._aside.submit(self._report_and_claim, more=more)
        try:
            outcomes = self._writer.ingest(files)
        except BaseException:
            self._leases.release(files)
            raise
        try:
            self._ahead = aside.result()
        finally:
            self._unreported.extend(outcomes)
            self._whole += self._writer.take_whole()
        if not self._ahead:
            self._report()
        if self._fail_fast:
            _end_at_a_failure(files, outcomes)
        self._away = any(outcome.code == BUTLER_UNAVAILABLE for outcome in outcomes)
        if self._away:
            # Claiming on would only walk through the whole queue and hand everything back.
            self._backoff.wait(stop)
        else:
            self._backoff.reset()
            ingested = any(outcome.state is OutcomeState.INGESTED for outcome in outcomes)
            self._look(at_once=ingested and not self._ahead)

    def _next(self) -> list[ArrivalFile]:
        """Return the batch that was claimed ahead, or claim one when everything is reported."""
        if self._ahead:
            ahead, self._ahead = self._ahead, []
            return ahead
        self._report()
        self._size = min(FIRST_BATCH, self._batch)
        return self._claim(self._wait_s)

    def _report_and_claim(self, *, more: bool) -> list[ArrivalFile]:
        """Do beside an ingest what the catalogue is needed for; nothing is claimed before what was done is said."""
        self._report()
        if not more:
            return []
        self._size = min(2 * self._size, self._batch)
        return self._claim(0.0)

    def _look(self, *, at_once: bool = False) -> None:
        if self._waker is not None:
            self._waker.look(at_once=at_once)

    def _claim(self, wait_s: float) -> list[ArrivalFile]:
        """Claim a batch and keep its leases; waits for its first file only."""
        files: list[ArrivalFile] = []
        while (limit := min(self._size - len(files), MOST_CLAIMED)) > 0:
            try:
                more = self._queue.claim_arrivals(self._butler, self._name, limit, wait_s, self._lease_s)
            except Exception as error:
                if not files or not may_pass(error):
                    raise
                # What was claimed can be ingested, whatever has become of the catalogue.
                log.warning("batch not filled", files=len(files), reason=str(error))
                return files
            self._leases.hold(more)
            files += more
            if len(more) < limit:
                return files
            wait_s = 0.0
        return files

    def _report(self) -> None:
        """Report all outcomes in hand; they stay in hand if the catalogue cannot be reached.

        Exposures that are whole are told of first: whoever is killed in between tells twice, and does not keep silent.
        """
        if self._whole and self._waker is not None:
            self._waker.whole(self._whole)
        self._whole = []
        while reported := self._unreported[:MOST_CLAIMED]:
            with self._leases.calls:
                rejected = set(self._queue.report_arrivals(reported))
                del self._unreported[:MOST_CLAIMED]
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


def _end_at_a_failure(files: Sequence[ArrivalFile], outcomes: Sequence[Outcome]) -> None:
    for file, outcome in zip(files, outcomes, strict=True):
        if outcome.state is OutcomeState.FAILED and not outcome.retryable:
            raise FirstFailure(file.name, outcome.reason or outcome.code or "it failed")
