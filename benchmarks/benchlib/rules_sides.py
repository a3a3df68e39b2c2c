"""The two sides of the benchmark of rules: a worker in core each, on databases in one PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from benchlib import rules_data
from benchlib.report import Sample
from benchlib.rucio_peer import Rucio
from benchlib.rules_fill import insert_rows
from benchlib.sides import arriero_worker, postmaster_pid, recreate
from benchlib.stopwatch import tree_cpu_s
from benchlib.worker import Worker

OURS = "arriero"
PEER = "rucio 41.5.1"
TEMPLATE = "bench_rules_template"


@dataclass
class CoreSide:
    """One of those that are compared."""

    name: str
    worker: Worker
    admin_url: str

    def do(self, command: str, **arguments: Any) -> tuple[dict[str, Any], Sample]:
        """Do something, and say what it took."""
        postmaster = postmaster_pid(self.admin_url)
        before = tree_cpu_s(postmaster)
        answer = self.worker.do(command, **arguments)
        return answer, Sample(
            rate=answer["n"] / answer["seconds"],
            client_cpu_s=answer["client_cpu_s"],
            client_rss_mb=answer["client_rss_mb"],
            database_cpu_s=tree_cpu_s(postmaster) - before,
            items=answer["n"],
        )

    def calm(self) -> None:
        """Have nothing left to do from what came before: statistics fresh, pages written."""
        self.worker.do("analyze")
        _checkpoint(self.admin_url)


def calm(admin_url: str, url: str) -> None:
    """Do what `CoreSide.calm` does to a database without a worker."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    _checkpoint(admin_url)


def bare_rows(admin_url: str, url: str, dataset: str) -> Sample:
    """Insert the bare rows of a rule on a dataset, and say what it took."""
    calm(admin_url, url)
    postmaster = postmaster_pid(admin_url)
    before = tree_cpu_s(postmaster)
    took = insert_rows(url, dataset, rules_data.DESTINATION)
    cpu_s = tree_cpu_s(postmaster) - before
    return Sample(took["n"] / took["seconds"], database_cpu_s=cpu_s, items=int(took["n"]))


def _checkpoint(admin_url: str) -> None:
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


@contextmanager
def arriero_process(admin_url: str) -> Iterator[Worker]:
    """Start the worker of Arriero's side; `arriero` gives it its databases, one after the other."""
    with arriero_worker(admin_url, "arriero_rules_worker.py") as worker:
        yield worker


def make_template(worker: Worker, admin_url: str) -> None:
    """Make the database that all of Arriero's are copies of: schema, RSEs and limits, no file."""
    arriero(worker, admin_url, TEMPLATE, template="template1")
    worker.do("set_up")
    worker.do("set_up_rules")
    worker.do("let_go")


def arriero(
    worker: Worker, admin_url: str, database: str, *, template: str = TEMPLATE
) -> tuple[CoreSide, str]:
    """Make Arriero's side on a new copy of a database; gives its URL too."""
    worker.do("let_go")
    url = recreate(admin_url, database, template=template)
    worker.do("use", url=url)
    return CoreSide(OURS, worker, admin_url), url


@contextmanager
def rucio(peer: Rucio) -> Iterator[CoreSide]:
    """Run the peer's side on a new database."""
    peer.fresh_database()
    worker = Worker(peer.worker("rules_worker.py"), peer.environment())
    try:
        worker.do("set_up")
        worker.do("set_up_rules")
        yield CoreSide(PEER, worker, peer.admin_url)
    finally:
        worker.close()
