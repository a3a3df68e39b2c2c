"""The Butler's database, and the catalogue, killed with files in hand: nothing is lost or twice, no attempt is burnt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from lsst.daf.butler.direct_butler import DirectButler

from arriero.agent.ingest import butler_visits
from arriero.agent.ingest.butler_drafts import DraftReader
from arriero.agent.ingest.butler_repository import create_repository, repository_config
from arriero.agent.ingest.butler_visits import VisitDefiner
from arriero.agent.ingest.butler_writer import ButlerWriter
from arriero.registry.client import RegistryClient
from servicelib.postgresql import PostgreSQL
from support.agents import working
from support.butler import DAY, registry_url
from support.dying import around
from support.exposures import write_exposure
from support.faults import assert_ingested_once, wait_for_the_end
from support.ledger_site import LedgerSite
from support.served import ServedRegistry, served_registry
from support.server import running_registry

EXPOSURES = 2

Moment = tuple[object, str, bool]
"""A call, and whether it is over."""


def land(site: LedgerSite, first: int, exposures: int = EXPOSURES) -> set[str]:
    """Have exposures arrive."""
    numbers = range(first, first + exposures)
    return set(site.land([path for n in numbers for path in write_exposure(site.root, DAY, n, shape=(2, 2))]))


def at(patch: pytest.MonkeyPatch, moment: Moment, act: Callable[[], object]) -> threading.Event:
    """Act at the first of some calls; give what is set when it has been done."""
    module, name, done = moment
    acted = threading.Event()

    def once() -> None:
        try:
            act()
        finally:
            acted.set()

    patch.setattr(module, name, getattr(module, name))
    around(module, name, once, call=1, done=done)()
    return acted


@pytest.fixture(scope="module")
def butler_server(services) -> Iterator[PostgreSQL]:
    """A PostgreSQL that nobody else uses."""
    server = PostgreSQL(services.directory, "butler-registry")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def site(services, butler_server, tmp_path_factory) -> Iterator[LedgerSite]:
    """A site whose Butler is on that PostgreSQL."""
    directory = tmp_path_factory.mktemp("outages")
    (directory / "storage").mkdir()
    with (
        pytest.MonkeyPatch.context() as patch,
        running_registry(services, "sqlite", directory) as registry,
    ):
        url = registry_url(butler_server.create_database(), directory, patch)
        create_repository(str(directory / "repo"), "LSSTComCam", registry_db=url)
        yield LedgerSite(registry, repository_config(str(directory / "repo")), directory / "storage")


MOMENTS: dict[str, Moment] = {
    "headers read": (DraftReader, "read", True),
    "transaction: datasets in": (DirectButler, "ingest", True),
    "committed": (VisitDefiner, "define", False),
    "visits: not committed": (butler_visits, "insert_records", True),
    "whole exposures not told": (RegistryClient, "tell_complete", False),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_database_of_a_butler_is_killed_with_files_in_hand(site, butler_server, moment, monkeypatch):
    first = 1 + EXPOSURES * list(MOMENTS).index(moment)
    known, numbers = site.in_butler(), range(first, first + EXPOSURES)
    killed = at(monkeypatch, MOMENTS[moment], butler_server.kill)
    names = land(site, first)
    with working(site.repository, site.agent):
        assert killed.wait(30)
        monkeypatch.undo()
        butler_server.start()
        wait_for_the_end(site, names, numbers)
    assert_ingested_once(site, names, numbers, known, attempts=1)


@pytest.fixture(scope="module")
def served(services, module_repository, tmp_path_factory) -> Iterator[tuple[LedgerSite, ServedRegistry]]:
    """A site whose catalogue is a process of its own."""
    directory = tmp_path_factory.mktemp("served")
    (directory / "storage").mkdir()
    with (
        module_repository("sqlite") as repository,
        served_registry(services, "postgresql", directory) as registry,
    ):
        yield LedgerSite(registry, repository, directory / "storage"), registry


CALLS: dict[str, Moment] = {
    "while it is asked for files": (RegistryClient, "claim_arrivals", False),
    "with files in hand": (ButlerWriter, "ingest", False),
    "before the report": (RegistryClient, "report_arrivals", False),
    "after the report, not heard": (RegistryClient, "report_arrivals", True),
}


@pytest.mark.parametrize("moment", CALLS)
def test_the_catalogue_is_killed_while_an_agent_works(served, moment, monkeypatch):
    site, registry = served
    first = 1 + EXPOSURES * list(CALLS).index(moment)
    known, numbers = site.in_butler(), range(first, first + EXPOSURES)

    def kill() -> None:
        registry.kill()
        if moment.endswith("not heard"):
            raise ConnectionResetError

    names = land(site, first)
    killed = at(monkeypatch, CALLS[moment], kill)
    with working(site.repository, site.agent):
        assert killed.wait(30)
        monkeypatch.undo()
        registry.start()
        wait_for_the_end(site, names, numbers)
    assert_ingested_once(site, names, numbers, known, attempts=1)
