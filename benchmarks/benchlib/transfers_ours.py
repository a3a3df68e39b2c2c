"""Arriero's side of the benchmark of transfers: worker processes on a catalogue in PostgreSQL, as production runs them."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchlib.report import Sample
from benchlib.rules_found import require
from benchlib.rules_sides import OURS, calm
from benchlib.sides import arriero_worker, recreate
from benchlib.transfers_meter import Meter, metered
from benchlib.transfers_storage import Files, Pair, clear, link
from benchlib.worker import Worker

DATABASE = "bench_transfers"
TEMPLATE = "bench_transfers_template"
RULES_TEMPLATE = "bench_transfers_rules_template"
SOURCE, DESTINATION = "SLAC_BENCH", "IN2P3_BENCH"
SCRIPT = "arriero_transfers_worker.py"

WARM = 2
"""Files that each process copies before the first round."""

LOOK_S = 0.02
"""How often it is asked whether a rule is done, seconds."""

PATIENCE_S = 3600.0


@dataclass(frozen=True)
class Done:
    """What some workers did together."""

    sample: Sample
    """Files a second."""
    meter: Meter


class Crew:
    """Worker processes that do a rule's copies together.

    Parameters
    ----------
    admin_url
        Of the PostgreSQL.
    workers
        The processes, at least one.
    credentials
        File that they read the RSEs' credentials from.
    url
        Of the database that they work with already.
    """

    def __init__(
        self, admin_url: str, workers: Sequence[Worker], credentials: Path, *, url: str | None = None
    ) -> None:
        self.first = workers[0]
        self.admin_url = admin_url
        self._url = url or admin_url
        self._workers = workers
        self.credentials = credentials

    def begin(self, template: str = TEMPLATE, *, ca_bundle: Path | None = None) -> str:
        """Have them begin anew, as if they had just been started, on a new database; gives its URL."""
        opened = "" if ca_bundle is None else f"ca_bundle: {ca_bundle}"
        self.credentials.write_text("".join(f"{rse}: {{{opened}}}\n" for rse in (SOURCE, DESTINATION)))
        for worker in self._workers:
            worker.do("let_go")
        self._url = recreate(self.admin_url, DATABASE, template=template)
        for worker in self._workers:
            worker.do("begin", url=self._url)
        return self._url

    def alone(self) -> "list[Crew]":
        """Give each of them as if there were no others."""
        return [Crew(self.admin_url, [worker], self.credentials, url=self._url) for worker in self._workers]

    def calm(self) -> None:
        """Have nothing left to do from what came before: statistics fresh, pages written, also those of storages."""
        os.sync()
        calm(self.admin_url, self._url)

    def work(self, command: str, rule: str, count: int, *, processes: int | None = None) -> Done:
        """Have them work until a rule with so many files to copy is OK, and say what it took.

        Parameters
        ----------
        processes
            How many of them; all when None.

        Raises
        ------
        RoundVoid
            It became something else, or not every file was copied once.
        """
        workers = self._workers[:processes]
        with (
            psycopg.connect(self._url, autocommit=True) as connection,
            ThreadPoolExecutor(len(workers)) as pool,
        ):
            with metered(self.admin_url) as meter:
                began = time.perf_counter()
                answers = [pool.submit(worker.do, command, rule=rule) for worker in workers]
                _await_ok(connection, rule, answers)
                seconds = time.perf_counter() - began
                done = [answer.result() for answer in answers]
            copied = sum(one["n"] for one in done)
            require(copied == count, f"{copied} copies instead of {count}")
            sample = Sample(
                count / seconds,
                client_cpu_s=sum(one["client_cpu_s"] for one in done),
                client_rss_mb=max(one["client_rss_mb"] for one in done),
                database_cpu_s=meter.cpu_s,
                items=count,
            )
            return Done(sample, meter)

    def require_done(self, rule: str, count: int) -> None:
        """Void the round unless a rule has so many files, and all of them are there."""
        found = self.first.do("counts", rule=rule)
        there = {"state": "OK", "ok": count, "replicating": 0, "stuck": 0, "locks": count, "requests": 0}
        require(found == there, f"{found} instead of {there}")


def _await_ok(connection: psycopg.Connection[Any], rule: str, answers: Sequence[Future[Any]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        row = connection.execute("SELECT state, reason FROM rules WHERE uuid = %s", [rule]).fetchone()
        state, reason = row or ("gone", None)
        if state == "OK":
            return
        for answer in answers:
            if answer.done():
                answer.result()
        require(state == "REPLICATING", f"the rule is {state}: {reason}")
        require(time.monotonic() < deadline, f"the rule is not OK after {PATIENCE_S:.0f} s")
        time.sleep(LOOK_S)


@contextmanager
def crew(admin_url: str, processes: int, directory: Path) -> Iterator[Crew]:
    """Start worker processes, which `Crew.begin` gives their databases, one after the other."""
    credentials = directory / "credentials.yaml"
    credentials.write_text("")
    settings = {"ARRIERO_CREDENTIALS_FILE": str(credentials)}
    with ExitStack() as stack:
        workers = [
            stack.enter_context(arriero_worker(admin_url, SCRIPT, settings=settings))
            for _ in range(processes)
        ]
        made = Crew(admin_url, workers, credentials)
        make_templates(made.first, admin_url)
        yield made


def make_templates(worker: Worker, admin_url: str) -> None:
    """Make the databases that all others are copies of: with the schema, an account and a scope; and with RSEs of rules."""
    worker.do("begin", url=recreate(admin_url, TEMPLATE))
    worker.do("set_up")
    worker.do("let_go")
    worker.do("begin", url=recreate(admin_url, RULES_TEMPLATE, template=TEMPLATE))
    worker.do("set_up_rules")
    worker.do("let_go")


def set_up(worker: Worker, pair: Pair) -> None:
    """Register two storages as RSEs."""
    protocols = {SOURCE: pair.protocol(pair.source), DESTINATION: pair.protocol(pair.destination)}
    worker.do("set_up_rses", protocols=protocols, schemes=dict.fromkeys(protocols, pair.scheme))


def add_files(worker: Worker, files: Files, *rses: str) -> str:
    """Register files that are at RSEs; gives their dataset. The scope is the first part of their folder."""
    dataset = files.folder.partition("/")[2]
    adler32 = {f"{dataset}/{name}": one for name, one in files.adler32.items()}
    worker.do("add_files", rse_names=rses, dataset=dataset, adler32=adler32, size=files.size)
    return dataset


class Ours:
    """Copies a rule's files between two storages; connections and what is known of the link are kept between rounds."""

    name = OURS

    def __init__(self, crew: Crew, pair: Pair, processes: int) -> None:
        self._crew = crew
        self._pair = pair
        self._processes = processes
        crew.begin(ca_bundle=pair.ca_bundle)
        set_up(crew.first, pair)

    def place(self, files: Files) -> str:
        return files.folder

    def warm_up(self, files: Files) -> None:
        """Have each process copy a few files: it has loaded then what it needs, and tried what the storages can do."""
        for number, one in enumerate(self._crew.alone()[: self._processes]):
            few = Files(files.folder, files.size, dict(list(files.adler32.items())[:WARM]))
            folder = f"{files.folder}-warm-{number}"
            self._copy(one, self._ask(link(self._pair.source, few, folder)))
            clear(self._pair.source, folder)
            clear(self._pair.destination, folder)

    def copy(self, files: Files) -> Sample:
        asked = self._ask(files)
        self._crew.calm()
        return self._copy(self._crew, asked)

    def _ask(self, files: Files) -> "_Asked":
        """Register files and add a rule on them, which leaves requests that nobody has taken."""
        first, count = self._crew.first, len(files.adler32)
        dataset = add_files(first, files, SOURCE)
        there = first.do("available", rse=DESTINATION)["verified"]
        asked = first.do("new_rule", dataset=dataset, expression=DESTINATION, count=count)
        return _Asked(asked["rule"], count, there)

    def _copy(self, crew: Crew, asked: "_Asked") -> Sample:
        sample = crew.work("copy", asked.rule, asked.count, processes=self._processes).sample
        crew.require_done(asked.rule, asked.count)
        states = crew.first.do("available", rse=DESTINATION)
        every = asked.there + asked.count
        require(states == {"AVAILABLE": every, "verified": every}, f"replicas: {states} instead of {every}")
        return sample


@dataclass(frozen=True)
class _Asked:
    """A rule that waits to be copied for."""

    rule: str
    count: int
    there: int
    """Replicas of others at the destination."""
