"""How long one small file takes from a person's rule to AVAILABLE when nothing else happens, with all processes of production."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from redis import Redis

from benchlib import data
from benchlib.report import Sample
from benchlib.rules_found import Found, require
from benchlib.rules_sides import OURS
from benchlib.sides import BIN, bare_environment
from benchlib.transfers_ours import DESTINATION, SOURCE, Crew, add_files, set_up
from benchlib.transfers_storage import Pair, clear, lay, verify
from benchlib.wire import Wire
from benchlib.worker import Server
from servicelib.ports import free_port

WORK = "rule add to AVAILABLE, ms"
FOLDER = f"{data.SCOPE}/latency"
WARM = 2
"""Rules before the first that counts: processes begin to work with their first one."""

PROCESSES = {
    "rules": ("worker", "-Q", "rules,maintenance", "-c", "2", "-n", "rules@%h"),
    "transfer": ("worker", "-Q", "transfer", "-c", "1", "-n", "transfer@%h"),
    "beat": ("beat",),
}
BROKER_NUMBER = 9
"""Which of the databases of Redis is the broker; it is emptied."""

LOOK_S = 0.004
PATIENCE_S = 60.0


def measure_latency(
    crew: Crew, broker_url: str, pair: Pair, directory: Path, *, rules: int, size: int, found: Found
) -> None:
    """Add rules on one file each, one after the other."""
    files, url = lay(pair.source, FOLDER, WARM + rules, size), crew.begin(ca_bundle=pair.ca_bundle)
    set_up(crew.first, pair)
    add_files(crew.first, files, SOURCE)
    broker_url = f"{broker_url.rpartition('/')[0]}/{BROKER_NUMBER}"
    with Redis.from_url(broker_url) as broker:
        broker.flushdb()
    settings = {
        "ARRIERO_DATABASE_URL": url,
        "ARRIERO_BROKER_URL": broker_url,
        "ARRIERO_CREDENTIALS_FILE": str(crew.credentials),
        "ARRIERO_LOG_LEVEL": "WARNING",
    }
    pauses = Random(1)  # noqa: S311 - so that they do not keep step with the sweeps
    with (
        _installation(settings, directory) as service,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        service.log_in()
        for number, name in enumerate(files.adler32):
            seconds = _one(service, connection, f"{FOLDER.partition('/')[2]}/{name}")
            if number >= WARM:
                found.keep(WORK, 1, OURS, Sample(1000 * seconds))
            time.sleep(pauses.uniform(0.3, 0.9))
    verify(pair.destination, files, FOLDER)
    clear(pair.destination)
    clear(pair.source, FOLDER)


def _one(service: "_Rules", connection: psycopg.Connection[Any], name: str) -> float:
    """Add a rule on a file and wait for it; gives the seconds."""
    file_id, rse_id = _ids(connection, name)
    query = "SELECT state FROM replicas WHERE file_id = %s AND rse_id = %s"
    service.hang_up()
    began = time.perf_counter()
    service.add(name)
    while True:
        row = connection.execute(query, [file_id, rse_id]).fetchone()
        seconds = time.perf_counter() - began
        if row is not None and row[0] == "AVAILABLE":
            return seconds
        require(seconds < PATIENCE_S, f"{name} is {row} {seconds:.0f} s after its rule was added")
        time.sleep(LOOK_S)


def _ids(connection: psycopg.Connection[Any], name: str) -> tuple[int, int]:
    query = "SELECT d.id, r.id FROM dids d, rses r WHERE d.name = %s AND r.name = %s"
    row = connection.execute(query, [name, DESTINATION]).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


class _Rules(Wire):
    """A client that adds rules."""

    def add(self, name: str) -> None:
        rule = {
            "dids": [{"scope": data.SCOPE, "name": name}],
            "account": "root",
            "copies": 1,
            "rse_expression": DESTINATION,
        }
        self._call("POST", "/rules/", json.dumps(rule).encode()).read()


@contextmanager
def _installation(settings: Mapping[str, str], directory: Path) -> Iterator[_Rules]:
    """Start the service and Celery's processes, as the README of the scheduler says; gives a client."""
    environment = bare_environment() | dict(settings)
    with ExitStack() as stack:
        processes: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, processes)
        for name, arguments in PROCESSES.items():
            command = [str(BIN / "celery"), "-A", "arriero.scheduler.app", *arguments]
            with (directory / f"{name}.log").open("ab") as out:
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
                )
            processes.append(process)
        port = free_port()
        command = [str(BIN / "arriero"), "serve", "--port", str(port)]
        server = Server(command, environment, f"http://127.0.0.1:{port}", directory / "serve.log")
        stack.callback(server.close)
        yield _Rules(server.url)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
