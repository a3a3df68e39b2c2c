"""All processes of production on one database, as the README of the scheduler starts them."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis

from benchlib.sides import BIN, bare_environment
from benchlib.worker import Server
from servicelib.ports import free_port

BROKER_NUMBER = 9
"""Which of the databases of Redis is the broker; it is emptied."""


@contextmanager
def installation(
    url: str, broker_url: str, credentials: Path, directory: Path, *, copiers: int = 1
) -> Iterator[str]:
    """Start the service and Celery's processes; gives the service's URL.

    Parameters
    ----------
    url
        Of the registry's database.
    credentials
        File of the RSEs' credentials.
    directory
        Where logs go.
    copiers
        Processes that copy.
    """
    broker_url = f"{broker_url.rpartition('/')[0]}/{BROKER_NUMBER}"
    with Redis.from_url(broker_url) as broker:
        broker.flushdb()
    environment = bare_environment() | {
        "ARRIERO_DATABASE_URL": url,
        "ARRIERO_BROKER_URL": broker_url,
        "ARRIERO_CREDENTIALS_FILE": str(credentials),
        "ARRIERO_LOG_LEVEL": "WARNING",
    }
    started = {
        "rules": ("worker", "-Q", "rules,maintenance", "-c", "2", "-n", "rules@%h"),
        "transfer": ("worker", "-Q", "transfer", "-c", str(copiers), "-n", "transfer@%h"),
        "beat": ("beat",),
    }
    with ExitStack() as stack:
        processes: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, processes)
        for name, arguments in started.items():
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
        yield server.url


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
