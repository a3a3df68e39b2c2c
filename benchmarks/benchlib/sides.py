"""The two sides of a comparison: each a worker in core and a server over HTTP, on databases in one PostgreSQL."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchlib.report import Sample
from benchlib.rucio_peer import Rucio
from benchlib.stopwatch import children, peak_mb, reset_peak, tree_cpu_s
from benchlib.wire import Wire
from benchlib.worker import Server, Worker
from servicelib.ports import free_port

HERE = Path(__file__).resolve().parent
BIN = Path(sys.prefix) / "bin"


@dataclass
class Side:
    """One of those that are compared."""

    name: str
    worker: Worker
    server: Server
    wire: Wire
    postmaster: int

    def core(self, command: str, **arguments: Any) -> tuple[dict[str, Any], Sample]:
        """Do something in core, and say what it took."""
        return self._measured(lambda: self.worker.do(command, **arguments))

    def http(self, command: str, **arguments: Any) -> tuple[dict[str, Any], Sample]:
        """Do something over HTTP, and say what it took."""
        # a server may have closed what was idle meanwhile
        self.wire.hang_up()
        return self._measured(lambda: getattr(self.wire, command)(**arguments))

    def _measured(self, work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], Sample]:
        service = [self.server.pid, *children(self.server.pid)]
        for pid in service:
            reset_peak(pid)
        before = tree_cpu_s(self.server.pid), tree_cpu_s(self.postmaster)
        answer = work()
        return answer, Sample(
            rate=answer["n"] / answer["seconds"],
            client_cpu_s=answer["client_cpu_s"],
            client_rss_mb=answer["client_rss_mb"],
            server_cpu_s=tree_cpu_s(self.server.pid) - before[0],
            database_cpu_s=tree_cpu_s(self.postmaster) - before[1],
            service_rss_mb=sum(peak_mb(pid) for pid in service),
        )


@contextmanager
def arriero(admin_url: str, database: str, broker_url: str, log: Path) -> Iterator[Side]:
    """Run Arriero's side on a new database, beside an equal one of the name with ``_copy``."""
    url = recreate(admin_url, f"{database}_copy")
    with arriero_worker(url) as worker:
        worker.do("set_up")
    url = recreate(admin_url, database, template=f"{database}_copy")
    settings = {"ARRIERO_DATABASE_URL": url, "ARRIERO_BROKER_URL": broker_url, "ARRIERO_LOG_LEVEL": "WARNING"}
    with ExitStack() as stack:
        worker = stack.enter_context(arriero_worker(url))
        port = free_port()
        command = [str(BIN / "arriero"), "serve", "--port", str(port)]
        server = Server(
            command, bare_environment() | settings, f"http://127.0.0.1:{port}", log / "arriero.log"
        )
        stack.callback(server.close)
        wire = Wire(server.url)
        wire.log_in()
        yield Side("arriero", worker, server, wire, postmaster_pid(admin_url))


@contextmanager
def arriero_worker(
    url: str, script: str = "arriero_worker.py", *, settings: Mapping[str, str] | None = None
) -> Iterator[Worker]:
    """Run Arriero's worker in core on a database, with default settings but for those that are given."""
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = bare_environment() | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    worker = Worker([sys.executable, str(HERE / script), url], environment | dict(settings or {}))
    try:
        yield worker
    finally:
        worker.close()


def bare_environment() -> dict[str, str]:
    """Give the environment of this process without settings of Arriero."""
    return {key: value for key, value in os.environ.items() if not key.startswith("ARRIERO_")}


@contextmanager
def rucio(peer: Rucio, log: Path) -> Iterator[Side]:
    """Run the peer's side on a new database."""
    peer.fresh_database()
    with ExitStack() as stack:
        worker = Worker(peer.worker(), peer.environment())
        stack.callback(worker.close)
        worker.do("set_up")
        port = free_port()
        server = Server(peer.server(port), peer.environment(), f"http://127.0.0.1:{port}", log / "rucio.log")
        stack.callback(server.close)
        wire = Wire(server.url)
        wire.log_in()
        yield Side("rucio 41.5.1", worker, server, wire, postmaster_pid(peer.admin_url))


def recreate(admin_url: str, database: str, *, template: str = "template1") -> str:
    """Make a database anew and give its URL."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
    return database_url(admin_url, database)


def database_url(admin_url: str, database: str) -> str:
    """Give the URL of a database beside another one."""
    return f"{admin_url.rpartition('/')[0]}/{database}"


def postmaster_pid(admin_url: str) -> int:
    """Give the process above all of this PostgreSQL's."""
    with psycopg.connect(admin_url) as connection:
        found = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert found is not None
        return int(Path(f"/proc/{found[0]}/stat").read_text().rpartition(")")[2].split()[1])
