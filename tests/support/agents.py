"""Agents of a site in processes of their own, as an operator starts them, which die at a named step of their ingest."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from lsst.daf.butler.direct_butler import DirectButler

from arriero.agent.arrivals import IngestWorker
from arriero.agent.backoff import Backoff
from arriero.agent.butler_contents import ButlerContents
from arriero.agent.cli.main import run
from arriero.agent.ingest import butler_session, butler_visits
from arriero.agent.ingest.butler_drafts import DraftReader
from arriero.agent.ingest.butler_session import Session
from arriero.agent.ingest.butler_visits import VisitDefiner
from arriero.agent.ingest.butler_writer import ButlerWriter
from arriero.agent.wake import Waker
from arriero.registry.client import RegistryClient
from support.dying import Arm, after, before, preload, start
from support.ledger_site import BUTLER, LedgerSite

preload(__name__)

STEPS: dict[str, Arm] = {
    "claimed": before(ButlerWriter, "ingest"),
    "headers read": after(DraftReader, "read"),
    "transaction not begun": before(Session, "write"),
    "transaction: records in": after(butler_session, "insert_records"),
    "transaction: datasets in": after(DirectButler, "ingest"),
    "committed": before(VisitDefiner, "define"),
    "visits: not committed": after(butler_visits, "insert_records"),
    "visits defined": after(VisitDefiner, "define"),
    "whole exposures not told": before(RegistryClient, "tell_complete"),
    "not reported": before(RegistryClient, "report_arrivals"),
    "reported": after(RegistryClient, "report_arrivals"),
}
"""Where an agent can be made to die."""

NOTHING_WRITTEN = frozenset(list(STEPS)[:5])
"""Of these, the Butler has nothing of the batch afterwards."""


def environment_of(site: LedgerSite) -> dict[str, str]:
    """What a site's agent is given."""
    given = {"ARRIERO_URL": site.registry.url, "ARRIERO_TOKEN": site.token}
    if auth := os.environ.get("LSST_DB_AUTH"):
        given["LSST_DB_AUTH"] = auth
    return given


def _work(environment: Mapping[str, str], step: str | None, options: tuple[str, ...]) -> None:
    os.environ.update(environment)
    if step is not None:
        STEPS[step]()
    sys.exit(run(("agent", "run", "--butler", BUTLER, *options)))


def start_agent(site: LedgerSite, step: str | None, *options: str) -> BaseProcess:
    """Start `arriero agent run`.

    Parameters
    ----------
    step
        Where it dies; None: nowhere.
    """
    return start(_work, environment_of(site), step, options)


@contextmanager
def working(
    repository: str, client: RegistryClient, name: str = "agent", *, batch: int = 500, lease_s: float = 60.0
) -> Iterator[None]:
    """Have an agent work in a thread of the test meanwhile."""
    stop = threading.Event()
    writer = ButlerWriter(repository, ["LSSTComCam"])
    waker = Waker(client, BUTLER, lambda: ButlerContents(repository))
    worker = IngestWorker(
        client,
        writer,
        BUTLER,
        name,
        batch=batch,
        lease_s=lease_s,
        wait_s=0.1,
        backoff=Backoff(0.05, 0.3),
        waker=waker,
    )
    faults: list[BaseException] = []

    def work() -> None:
        try:
            worker.run(stop)
        except BaseException as error:
            faults.append(error)
            raise

    thread = threading.Thread(target=work, name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)
        waker.close()
        writer.close()
    assert not thread.is_alive()
    assert faults == []
