"""The benchmark of ingest: what is measured, in which order, and how it is verified.

Each side writes into a new repository of its own; what it has then is counted by a Butler that opens it afresh.
"""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from benchlib.ingest_files import A_NIGHT, DETECTORS, Raw, link_exposures, write_exposures
from benchlib.ingest_site import KINDS, POSTGRESQL, Site
from benchlib.report import Sample
from benchlib.rules_found import Found, require, say
from benchlib.rules_sides import OURS
from benchlib.sides import BIN
from benchlib.transfers_meter import metered
from benchlib.worker import Worker

EXPOSURES, ONE_FILE, CAMPAIGN = "exposures", "one file", "campaign"
TWO_AGENTS = f"{OURS}, two agents"
WITH_VISITS = f"{OURS}, visits defined too"
WRITER = f"{OURS}, no ledger"
ONE_BY_ONE = "Butler API, one exposure a transaction"
BARE = "one bare Butler.ingest"
INGEST_FILES = "butler ingest-files"
MEMORY = "growth of the agent's memory"
PATIENCE_S = 60.0
TABLE = "files.csv"


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    exposures: int = 500
    singles: int = 30
    """Files whose latency is measured."""
    peer_singles: int = 3
    campaign: int = 148_845
    kinds: Sequence[str] = KINDS
    """Databases of the Butlers."""
    sides: Sequence[str] = (OURS, TWO_AGENTS, WITH_VISITS, WRITER, BARE, ONE_BY_ONE, INGEST_FILES)


class Ingest:
    """The measurements at one site."""

    def __init__(self, made: Site, sizes: Sizes, rounds: int, found: Found) -> None:
        self._site = made
        self._sizes = sizes
        self._rounds = rounds
        self._found = found
        self._raws: list[Raw] = []

    def exposures(self) -> None:
        """Ingest many exposures that are there, by each side in turn."""
        say(f"{self._sizes.exposures} exposures are written")
        # one more than is measured: whoever is warm has ingested one
        self._raws = write_exposures(self._site.root, 0, self._sizes.exposures + 1)
        self._site.register(self._raws)
        sides: dict[str, Callable[[str, Worker], Sample]] = {
            OURS: lambda kind, worker: self._through_the_ledger(kind, worker, visits=False),
            TWO_AGENTS: self._two_agents,
            WITH_VISITS: lambda kind, worker: self._through_the_ledger(kind, worker, visits=True),
            WRITER: self._writer,
            BARE: lambda kind, worker: self._with_api(kind, worker, "bare"),
            ONE_BY_ONE: lambda kind, worker: self._with_api(kind, worker, "one_by_one"),
            INGEST_FILES: self._ingest_files,
        }
        for turn in range(self._rounds):
            for kind in self._sizes.kinds:
                for name, measure in list(sides.items())[:: 1 if turn % 2 == 0 else -1]:
                    if name not in self._sizes.sides:
                        continue
                    with self._worker() as worker:
                        sample = measure(kind, worker)
                    self._found.keep(f"{EXPOSURES}, {kind}", len(self._measured), name, sample)

    @property
    def _measured(self) -> list[Raw]:
        return self._raws[DETECTORS:]

    @contextmanager
    def _worker(self) -> Iterator[Worker]:
        worker = self._site.worker()
        try:
            yield worker
        finally:
            worker.close()

    def _through_the_ledger(self, kind: str, worker: Worker, *, visits: bool) -> Sample:
        """Let a warm agent claim what waits for it over HTTP, ingest it and report it."""
        made = self._site
        repository = made.repository(worker, kind)
        butler = f"bench{made.made}"
        token = made.take(butler, repository)
        worker.do("agent", url=made.server.url, token=token, butler=butler, visits=visits)
        worker.do("warm_up", count=DETECTORS)
        made.calm()
        left = made.states(butler)["pending"]
        sample = self._sample(lambda: worker.do("work", count=left))
        require(made.states(butler) == {"ingested": len(self._raws)}, made.states(butler))
        worker.do("dismiss")
        self._require_all(worker, repository)
        return sample

    def _two_agents(self, kind: str, worker: Worker) -> Sample:
        """Let two warm agents work at once for one Butler, as where more comes than one can take in."""
        made = self._site
        repository = made.repository(worker, kind)
        butler = f"bench{made.made}"
        token = made.take(butler, repository)
        with self._worker() as other, ThreadPoolExecutor(2) as pool:
            agents = (worker, other)
            for one in agents:
                one.do("agent", url=made.server.url, token=token, butler=butler, visits=False)
                one.do("warm_up", count=DETECTORS)
            made.calm()
            left = made.states(butler)["pending"]
            with metered(made.admin_url) as meter:
                began = time.perf_counter()
                did = list(pool.map(lambda one: one.do("work", count=None), agents))
                seconds = time.perf_counter() - began
            require(made.states(butler) == {"ingested": len(self._raws)}, made.states(butler))
            for one in agents:
                one.do("dismiss")
        self._require_all(worker, repository)
        return Sample(
            left / seconds,
            client_cpu_s=sum(one["client_cpu_s"] for one in did),
            client_rss_mb=max(one["client_rss_mb"] for one in did),
            database_cpu_s=meter.cpu_s,
            items=left,
        )

    def _writer(self, kind: str, worker: Worker) -> Sample:
        repository = self._site.repository(worker, kind)
        raws = [asdict(raw) for raw in self._raws]
        sample = self._sample(lambda: worker.do("write", raws=raws, repository=repository, batch=2000))
        self._require_all(worker, repository)
        return sample

    def _with_api(self, kind: str, worker: Worker, command: str) -> Sample:
        repository = self._site.repository(worker, kind)
        worker.do("open", repository=repository)
        raws = [asdict(raw) for raw in self._raws]
        worker.do(command, raws=raws[:DETECTORS])
        sample = self._sample(lambda: worker.do(command, raws=raws[DETECTORS:]))
        worker.do("close")
        self._require_all(worker, repository)
        return sample

    def _ingest_files(self, kind: str, worker: Worker) -> Sample:
        repository = self._site.repository(worker, kind)
        worker.do("open", repository=repository)
        worker.do("insert_records", raws=[asdict(raw) for raw in self._raws])
        worker.do("close")
        sample = self._stock(repository, self._raws)
        self._require_all(worker, repository)
        return sample

    def _stock(self, repository: str, raws: Sequence[Raw]) -> Sample:
        """Run `butler ingest-files` on a table of files."""
        table = self._site.work / TABLE
        lines = [f"{self._site.root / raw.name},LSSTComCam,{raw.exposure},{raw.detector}" for raw in raws]
        table.write_text("\n".join(["path,instrument,exposure,detector", *lines]) + "\n")
        command = [str(BIN / "butler"), "ingest-files", "--transfer", "direct"]
        command += [
            "--id-generation-mode",
            "dataid_type_run",
            repository,
            "raw",
            "LSSTComCam/raw/all",
            str(table),
        ]
        began = time.perf_counter()
        subprocess.run(command, env=self._site.environment, check=True, capture_output=True)
        return Sample(len(raws) / (time.perf_counter() - began), items=len(raws))

    def _sample(self, work: Callable[[], dict[str, Any]]) -> Sample:
        with metered(self._site.admin_url) as meter:
            did = work()
        return Sample(
            did["n"] / did["seconds"],
            client_cpu_s=did["client_cpu_s"],
            client_rss_mb=did["client_rss_mb"],
            database_cpu_s=meter.cpu_s,
            items=did["n"],
        )

    def _require_all(self, worker: Worker, repository: str) -> None:
        there = worker.do("count", repository=repository)["datasets"]
        require(there == len(self._raws), f"{there} of {len(self._raws)} are in {repository}")

    def one_file(self) -> None:
        """Have one file after the other land at a site whose agent is warm and idle, and read it from the Butler."""
        sizes = self._sizes
        count = sizes.singles + sizes.peer_singles + 1
        for place, kind in enumerate(sizes.kinds):
            # a day for each: what the one has registered is not for the other
            raws = write_exposures(self._site.root, (10 + place) * A_NIGHT, count)[::DETECTORS]
            with self._worker() as worker:
                self._one_file(kind, worker, raws)

    def _one_file(self, kind: str, worker: Worker, raws: Sequence[Raw]) -> None:
        made, work = self._site, f"{ONE_FILE}, {kind}"
        repository = made.repository(worker, kind)
        butler = f"single{made.made}"
        # what was registered for other measurements is not for this one
        token = made.take(butler, repository, only=f"*/{raws[0].name.split('/')[1]}/*")
        worker.do("open", repository=repository)
        pauses = Random(1)  # noqa: S311 - so that they do not keep step with what polls
        with self._agent(butler, token), ThreadPoolExecutor(1) as pool:
            for number, raw in enumerate(raws[: self._sizes.singles + 1]):
                asked = pool.submit(worker.do, "await_get", raw=asdict(raw), patience_s=PATIENCE_S)
                time.sleep(pauses.uniform(0.3, 0.9))
                began = time.time()
                made.register([raw])
                seconds = asked.result() - began
                if number:
                    self._found.keep(work, 1, OURS, Sample(1000 * seconds))
        worker.do("close")
        for raw in raws[self._sizes.singles + 1 :]:
            worker.do("open", repository=repository)
            worker.do("insert_records", raws=[asdict(raw)])
            worker.do("close")
            self._found.keep(
                work, 1, INGEST_FILES, Sample(1000 / self._stock(repository, [raw]).rate, items=0)
            )

    @contextmanager
    def _agent(self, butler: str, token: str) -> Iterator[None]:
        """Run the agent of production."""
        settings = {"ARRIERO_URL": self._site.server.url, "ARRIERO_TOKEN": token}
        command = [str(BIN / "arriero"), "agent", "run", "--butler", butler]
        with (self._site.work / "agent.log").open("ab") as log:
            process = subprocess.Popen(command, env=self._site.environment | settings, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)

    def campaign(self) -> None:
        """Ingest as many raws as a whole campaign has, by one agent, into a Butler on PostgreSQL."""
        made, files = self._site, self._sizes.campaign
        models = write_exposures(made.root, 20_000, 1)
        say(f"{files} links are made and registered")
        for raws in _gathered(link_exposures(made.root, models, 25_000, files), 10_000):
            made.register(raws)
        with self._worker() as worker:
            repository = made.repository(worker, POSTGRESQL)
            butler = f"campaign{made.made}"
            token = made.take(butler, repository)
            waiting = made.states(butler)["pending"]
            worker.do("agent", url=made.server.url, token=token, butler=butler, visits=True)
            worker.do("warm_up", count=DETECTORS)
            made.calm()
            left = made.states(butler)["pending"]
            done: dict[str, Any] = {}
            sample = self._sample(lambda: done.setdefault("of", worker.do("work", count=left)))
            require(made.states(butler) == {"ingested": waiting}, made.states(butler))
            memory = done["of"]["memory"]
            tenth = next(mb for settled, mb in memory if settled >= left / 10)
            growth = max(mb for settled, mb in memory if settled >= left / 10) - tenth
            worker.do("dismiss")
            there = worker.do("count", repository=repository)
            require(there["datasets"] == waiting, there)
        self._found.keep(CAMPAIGN, left, OURS, sample)
        self._found.keep(MEMORY, left, OURS, Sample(max(growth, 0.1)))


def _gathered(groups: Iterator[list[Raw]], least: int) -> Iterator[list[Raw]]:
    gathered: list[Raw] = []
    for group in groups:
        gathered += group
        if len(gathered) >= least:
            yield gathered
            gathered = []
    if gathered:
        yield gathered
