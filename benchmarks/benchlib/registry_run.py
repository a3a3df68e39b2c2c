"""The benchmark of the registry: what is measured, at which sizes, in which order, and how it is verified.

Sides take turns within each round (A/B, then B/A). A round whose results are not what was put in raises: there is no
figure of work that was not done.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchlib import data
from benchlib.copy_limit import copy_rows
from benchlib.registry_report import results
from benchlib.report import Result, Sample, load_average
from benchlib.rucio_peer import Rucio
from benchlib.sides import Side, arriero, database_url, rucio

PEER_CHUNK = 1_000
"""Files in one call to the peer: what its own clients send; larger calls are not faster there."""


class RoundVoid(RuntimeError):
    """What was measured did not do what it should."""


DATABASE = "bench_arriero"


@dataclass
class Plan:
    """What a run does."""

    admin_url: str
    broker_url: str
    log: Path
    sizes: Sequence[int]
    rounds: int
    chunk: int
    bounded_from: int
    """Size from which the peer is measured by a bounded number of files, on a catalogue that holds that size."""
    bounded_files: int
    meta_files: int
    peer: Rucio | None = None


class Run:
    """One run of the benchmark."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.samples: dict[tuple[str, int, str], list[Sample]] = defaultdict(list)
        self.loads: list[float] = []

    def go(self) -> list[Result]:
        """Measure everything; give the lines of the report."""
        plan = self.plan
        for size in plan.sizes:
            with ExitStack() as stack:
                sides = [stack.enter_context(arriero(plan.admin_url, DATABASE, plan.broker_url, plan.log))]
                if plan.peer is not None:
                    sides.append(stack.enter_context(rucio(plan.peer, plan.log)))
                self._write(size, sides)
                self._read(size, sides)
        return results(self.samples, plan.sizes, plan.bounded_from)

    def _bounded(self, side: Side, size: int) -> bool:
        return side.name != "arriero" and size >= self.plan.bounded_from

    def _rounds(self, side: Side, size: int) -> int:
        # the peer's rounds at larger sizes take minutes each
        once = side.name != "arriero" and size > min(self.plan.sizes) and not self._bounded(side, size)
        return 1 if once else self.plan.rounds

    def _write(self, size: int, sides: Sequence[Side]) -> None:
        for side in sides:
            if self._bounded(side, size):
                self._say(size, side, "is given a catalogue of that size")
                side.worker.do("load", prefix="c0", start=0, count=size, dataset="c0")
                side.worker.do("analyze")
        for turn in range(self.plan.rounds):
            for side in sides if turn % 2 == 0 else reversed(sides):
                if turn < self._rounds(side, size):
                    self._write_round(size, side, turn)
            self._copy(size, turn)
        for side in sides:
            side.worker.do("analyze")

    def _write_round(self, size: int, side: Side, turn: int) -> None:
        bounded = self._bounded(side, size)
        count = self.plan.bounded_files if bounded else size
        chunk = self.plan.chunk if side.name == "arriero" else PEER_CHUNK
        core, wire = (f"b{turn}", f"w{turn}") if bounded else (f"c{turn}", f"h{turn}")
        self._say(size, side, f"round {turn + 1}: registers and attaches")
        for way, prefix, do in (("core", core, side.core), ("HTTP", wire, side.http)):
            files = {"prefix": prefix, "start": 0, "count": count, "chunk": chunk}
            self._keep(f"register, {way}", size, side, do("register", **files))
            self._keep(f"attach, {way}", size, side, do("attach", **files, dataset=prefix))
            measured = min(count, self.plan.meta_files)
            self._keep(f"set metadata, {way}", size, side, do("set_meta", **files | {"count": measured}))

    def _copy(self, size: int, turn: int) -> None:
        url = database_url(self.plan.admin_url, f"{DATABASE}_copy")
        took = copy_rows(url, f"c{turn}", 0, size, self.plan.chunk)
        with psycopg.connect(url) as connection:
            query = "SELECT (SELECT count(*) FROM dids), (SELECT count(*) FROM replicas)"
            rows = connection.execute(query).fetchone()
        if rows != (size * (turn + 1),) * 2:
            raise RoundVoid(f"COPY left {rows} rows instead of {size * (turn + 1)}")
        self.samples["register, core", size, "COPY"].append(Sample(took["n"] / took["seconds"]))

    def _read(self, size: int, sides: Sequence[Side]) -> None:
        for turn in range(self.plan.rounds):
            for side in sides if turn % 2 == 0 else reversed(sides):
                if turn < self._rounds(side, size):
                    self._say(size, side, f"round {turn + 1}: lists and searches")
                    self._read_round(size, side, turn)

    def _read_round(self, size: int, side: Side, turn: int) -> None:
        bounded = self._bounded(side, size)
        most = 5 * self.plan.bounded_files if bounded else None
        # the whole is compared once; later rounds count
        digest = turn == 0 and not bounded and (side.name == "arriero" or size <= 100_000)
        expected = data.digest("c0", 0, size) if digest else None
        for work in ("list_files", "list_replicas"):
            for way, do in (("core", side.core), ("HTTP", side.http)):
                answer, sample = do(work, dataset="c0", most=most, digest=digest)
                if answer["digest"] != expected or (not bounded and answer["n"] != size):
                    raise RoundVoid(f"{side.name}, {work} over {way} of {size}: {answer}")
                if answer.get("pfns", answer["n"]) != answer["n"]:
                    raise RoundVoid(f"{side.name}, {work}: {answer['pfns']} PFNs of {answer['n']} files")
                self._keep(f"{work.replace('_', ' ')}, {way}", size, side, (answer, sample))
        prefix = "b0" if bounded else "c0"
        count = min(self.plan.bounded_files if bounded else size, self.plan.meta_files)
        exposure = (count - 1) // data.DETECTORS // 2
        name = f"MC_O_20260101_{exposure:06d}_*_{prefix}.fits"
        self._search(size, side, "search by metadata", {"bench_exposure": exposure}, None)
        self._search(size, side, "search by name", {"name": name}, data.DETECTORS)

    def _search(
        self, size: int, side: Side, work: str, filters: dict[str, Any], expected: int | None
    ) -> None:
        answer, sample = side.core("search", filters=json.dumps([filters]))
        # each round has set the same metadata in core and over HTTP
        wrong = answer["found"] % data.DETECTORS if expected is None else answer["found"] != expected
        if wrong or not answer["found"]:
            raise RoundVoid(f"{side.name}, {work} {filters}: found {answer['found']}")
        self._keep(work, size, side, (answer, sample))

    def _keep(self, work: str, size: int, side: Side, measured: tuple[dict[str, Any], Sample]) -> None:
        self.samples[work, size, side.name].append(measured[1])
        self.loads.append(load_average())

    def _say(self, size: int, side: Side, what: str) -> None:
        print(f"[load {load_average():.1f}] {size:>9,}: {side.name} {what}", file=sys.stderr, flush=True)
