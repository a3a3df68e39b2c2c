"""Arrivals in memory, with leases and fences as the real catalogue keeps them, and a writer that remembers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from uuid import UUID, uuid5

from arriero.agent.ingest.models import ArrivalFile, ButlerInfo, Outcome
from arriero.registry.arrival_words import CompleteExposure

NAMESPACE = UUID(int=1)


class Away(Exception):
    retryable = True


class Forbidden(Exception):
    retryable = False


class Catalogue:
    """Arrivals with leases and fences; `trouble` is raised by the calls that it names."""

    def __init__(self, files: Sequence[ArrivalFile]) -> None:
        self.lock = threading.Lock()
        self.files = {file.id: file for file in files}
        self.pending = [file.id for file in files]
        self.leases: dict[int, float] = {}
        self.done: dict[int, Outcome] = {}
        self.trouble: dict[str, Exception] = {}
        self.trouble_after: dict[str, tuple[int, Exception]] = {}
        self.largest = 0
        self.calls: Counter[str] = Counter()
        self.rejected: list[int] = []
        self.extended: list[int] = []

    def call(self, name: str, named: int = 0) -> None:
        with self.lock:
            self.calls[name] += 1
            self.largest = max(self.largest, named)
            after, later = self.trouble_after.get(name, (0, None))
            if later and self.calls[name] > after:
                raise later
            if error := self.trouble.get(name):
                raise error

    def claim_arrivals(self, butler, worker, limit, wait_s, lease_s) -> list[ArrivalFile]:  # noqa: ARG002
        self.call("claim", limit)
        assert (butler, worker) == ("ccms1", "w1")
        with self.lock:
            now = time.monotonic()
            for id_ in [id_ for id_, until in self.leases.items() if until < now]:
                del self.leases[id_]
                self.pending.append(id_)
            claimed, self.pending = self.pending[:limit], self.pending[limit:]
            for id_ in claimed:
                self.files[id_] = self.files[id_].model_copy(update={"fence": self.files[id_].fence + 1})
                self.leases[id_] = now + lease_s
            return [self.files[id_] for id_ in claimed]

    def report_arrivals(self, outcomes: Sequence[Outcome]) -> list[int]:
        self.call("report", len(outcomes))
        with self.lock:
            rejected = [
                o.id for o in outcomes if self.files[o.id].fence != o.fence or o.id not in self.leases
            ]
            for outcome in outcomes:
                if outcome.id not in rejected:
                    self.done[outcome.id] = outcome
                    del self.leases[outcome.id]
            self.rejected += rejected
            return rejected

    def extend_arrivals(self, ids_and_fences, lease_s) -> list[int]:
        self.call("extend", len(ids_and_fences))
        with self.lock:
            lost = [
                id_
                for id_, fence in ids_and_fences
                if self.files[id_].fence != fence or id_ not in self.leases
            ]
            for id_, _ in ids_and_fences:
                if id_ not in lost:
                    self.leases[id_] = time.monotonic() + lease_s
                    self.extended.append(id_)
            return lost

    def butler(self, name: str) -> ButlerInfo:
        return ButlerInfo(name=name, uri="file:///repo", instruments=["LSSTComCam"])

    def take_over(self, *ids: int) -> None:
        """Let another worker have claimed these."""
        with self.lock:
            for id_ in ids:
                self.files[id_] = self.files[id_].model_copy(update={"fence": self.files[id_].fence + 1})


class Memory:
    """A writer that remembers."""

    def __init__(self, act: Callable[[Sequence[ArrivalFile]], list[Outcome]] | None = None) -> None:
        self.batches: list[list[int]] = []
        self.held: list[list[int]] = []
        self.act = act

    def ingest(self, files: Sequence[ArrivalFile]) -> list[Outcome]:
        self.batches.append([file.id for file in files])
        return self.act(files) if self.act else [Outcome.ingested(f, uuid5(NAMESPACE, f.name)) for f in files]

    def take_whole(self) -> list[CompleteExposure]:
        return []

    def holds(self, outcomes: Sequence[Outcome]) -> set[UUID]:
        self.held.append([outcome.id for outcome in outcomes])
        return {o.dataset_id for o in outcomes if o.dataset_id}


def files(count: int) -> list[ArrivalFile]:
    return [
        ArrivalFile(id=n, fence=0, scope="raw", name=f"f{n}", rse="X", uri=f"file:///f{n}", bytes=1)
        for n in range(1, count + 1)
    ]
