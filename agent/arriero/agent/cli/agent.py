"""``arriero agent``: the long-running process of a site."""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
import structlog

from arriero.agent.cli.session import Session, pass_session
from arriero.agent.cli.signals import until_told

log = structlog.get_logger(__name__)

Work = Callable[[threading.Event], None]
"""Works until the event is set."""


@click.group("agent")
def command() -> None:
    """Run a site's agent. It needs ARRIERO_URL and a token made by `arriero token create`, and nothing else."""


@command.command("run")
@click.option("--butler", help="Name of the butler whose arrivals to ingest.")
@click.option(
    "--mover",
    is_flag=True,
    help="Copy files to and from the RSEs of the token that only the site reaches (attribute site_mover).",
)
@click.option(
    "--batch",
    default=2000,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Most files in one transaction of the Butler.",
)
@click.option(
    "--threads",
    default=4,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Copies at once of the mover.",
)
@click.option(
    "--rse",
    "rses",
    multiple=True,
    metavar="RSE",
    help="Only this RSE for the mover [default: all of the token].",
)
@click.option(
    "--credentials",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="YAML with ca_bundle and token_file for each RSE that the mover reads or writes.",
)
@click.option(
    "--lease-s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="How long a claim is held without a heartbeat, seconds.",
)
@click.option("--fail-fast", is_flag=True, help="End when a file cannot be ingested, instead of going on.")
@pass_session
def run(
    session: Session,
    *,
    butler: str | None,
    fail_fast: bool,
    mover: bool,
    batch: int,
    threads: int,
    rses: tuple[str, ...],
    credentials: Path | None,
    lease_s: float,
) -> None:
    """Ingest what arrives into the Butler, move files, or both, until SIGINT or SIGTERM.

    With --butler: claims arrivals by long poll, registers them in the repository (many exposures in one transaction),
    reports. With --mover: claims requests, copies and verifies them, reports. Whatever happens to this process, what it
    held is claimed again when its lease has run out; ingesting or copying again changes nothing.
    """
    if butler is None and not mover:
        raise click.UsageError("nothing to do: name a --butler, or say --mover, or both")
    stop = until_told()
    name = f"{socket.gethostname()}/{os.getpid()}"
    works: list[Work] = []
    if butler is not None:
        works.append(
            partial(
                _ingest,
                session,
                name=name,
                butler=butler,
                batch=batch,
                lease_s=lease_s,
                fail_fast=fail_fast,
            )
        )
    if mover:
        works.append(
            _mover(session, name=name, rses=rses, threads=threads, credentials=credentials, lease_s=lease_s)
        )
    _work(works, stop)
    log.info("agent ended")


def _mover(
    session: Session,
    *,
    name: str,
    rses: tuple[str, ...],
    threads: int,
    credentials: Path | None,
    lease_s: float,
) -> Work:
    from arriero.agent.mover import SiteMover
    from arriero.registry.rse_credentials import read_credentials

    made = SiteMover(
        session.client,
        name,
        credentials=read_credentials(credentials),
        rses=rses,
        threads=threads,
        lease_s=lease_s,
    )
    return made.run


def _ingest(
    session: Session,
    stop: threading.Event,
    *,
    name: str,
    butler: str,
    batch: int,
    lease_s: float,
    fail_fast: bool,
) -> None:
    from arriero.agent.arrivals import IngestWorker
    from arriero.agent.butler_contents import ButlerContents
    from arriero.agent.ingest.butler_writer import ButlerWriter
    from arriero.agent.wake import Waker

    known = session.client.butler(butler)
    writer = ButlerWriter(known.uri, known.instruments, transfer=known.transfer)
    waker = Waker(session.client, butler, partial(ButlerContents, known.uri))
    try:
        log.info("agent started", butler=butler, repository=known.uri, worker=name)
        worker = IngestWorker(
            session.client,
            writer,
            butler,
            name,
            batch=batch,
            lease_s=lease_s,
            waker=waker,
            fail_fast=fail_fast,
        )
        worker.run(stop)
    finally:
        waker.close()
        writer.close()


def _work(works: Sequence[Work], stop: threading.Event) -> None:
    """Do all of them; when one ends, so do the others. The first is done in this thread: a Butler has but one."""
    faults: list[Exception] = []

    def do(work: Work) -> None:
        try:
            work(stop)
        except Exception as error:  # noqa: BLE001 - the border of a thread: raised below
            faults.append(error)
        finally:
            stop.set()

    threads = [threading.Thread(target=do, args=(work,), name="mover") for work in works[1:]]
    for thread in threads:
        thread.start()
    do(works[0])
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
