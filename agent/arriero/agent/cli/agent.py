"""``arriero agent``: the long-running process of a site."""

import os
import signal
import socket
import threading
from types import FrameType

import click
import structlog

from arriero.agent.arrivals import IngestWorker
from arriero.agent.cli.session import Session, pass_session
from arriero.agent.ingest.butler_writer import ButlerWriter

log = structlog.get_logger(__name__)


@click.group("agent")
def command() -> None:
    """Run a site's agent. It needs ARRIERO_URL and a token made by `arriero token create`, and nothing else."""


@command.command("run")
@click.option("--butler", required=True, help="Name of the butler whose arrivals to ingest.")
@click.option(
    "--batch",
    default=500,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Most arrivals claimed at once.",
)
@click.option(
    "--lease-s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="How long a claim is held without a heartbeat, seconds.",
)
@pass_session
def run(session: Session, butler: str, batch: int, lease_s: float) -> None:
    """Ingest what arrives into the Butler, until SIGINT or SIGTERM.

    Claims arrivals by long poll, registers them in the repository (many exposures in one transaction), reports.
    Whatever happens to this process, an arrival is claimed again when its lease has run out, and ingesting again
    changes nothing.
    """
    stop = threading.Event()

    def _stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    known = session.client.butler(butler)
    writer = ButlerWriter(known.uri, known.instruments, transfer=known.transfer)
    try:
        name = f"{socket.gethostname()}/{os.getpid()}"
        log.info("agent started", butler=butler, repository=known.uri, worker=name)
        IngestWorker(session.client, writer, butler, name, batch=batch, lease_s=lease_s).run(stop)
    finally:
        writer.close()
    log.info("agent ended", butler=butler)
