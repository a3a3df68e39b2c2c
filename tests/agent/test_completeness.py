"""The site's agent at work: parked files wake, whole exposures are told, and operators see what is missing and why."""

from __future__ import annotations

import json
import threading

import pytest
from lsst.daf.butler import Butler
from sqlalchemy import select

from arriero.agent.arrivals import IngestWorker
from arriero.agent.backoff import Backoff
from arriero.agent.butler_contents import ButlerContents
from arriero.agent.ingest.butler_repository import create_repository, repository_config
from arriero.agent.ingest.butler_writer import ButlerWriter
from arriero.agent.wake import Waker
from arriero.registry.models import ArrivalOutcome
from arriero.registry.schema.tables import arrivals, events
from support.butler import DAY
from support.cli import cli
from support.installation import wait_until
from support.ledger_site import BUTLER, LedgerSite
from support.server import registry

__all__ = ["cli", "registry"]


@pytest.fixture
def site(registry, repository, night, monkeypatch):
    made = LedgerSite(registry, repository, night[0])
    monkeypatch.setenv("ARRIERO_URL", registry.url)
    monkeypatch.setenv("ARRIERO_TOKEN", made.token)
    return made


def told(site, event_type):
    with site.registry.database.snapshot() as connection:
        return list(connection.scalars(select(events.c.payload).where(events.c.event_type == event_type)))


def test_an_operator_sees_what_is_whole_and_what_is_missing_and_why(site, night, cli):
    images = [path for path in night[1] if path.suffix == ".fits"]
    names = site.land(images[:18])
    missing = next(name for name in names if name.endswith("R22_S21.fits"))
    [held] = [file for file in site.agent.claim_arrivals(BUTLER, "w", 100, 0, 60) if file.name == missing]
    failed = ArrivalOutcome(
        id=held.id, fence=held.fence, state="failed", code="malformed_fits", reason="cut short"
    )
    assert site.agent.report_arrivals([failed]) == []
    with site.registry.database.transaction() as connection:
        expired = arrivals.update().where(arrivals.c.state == "leased")
        connection.execute(expired.values(lease_until=arrivals.c.created_at))

    writer = ButlerWriter(site.repository, ["LSSTComCam"])
    waker = Waker(site.agent, BUTLER, lambda: ButlerContents(site.repository))
    stop = threading.Event()
    worker = IngestWorker(site.agent, writer, BUTLER, "agent", wait_s=0.1, waker=waker)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    wait_until(
        lambda: site.client.butler_status(BUTLER).states.get("ingested") == 17, "the rest is in", timeout_s=30
    )
    wait_until(lambda: told(site, "exposure-complete"), "somebody is told", timeout_s=10)
    [whole] = told(site, "exposure-complete")
    assert (whole["butler"], whole["instrument"], whole["detectors"]) == (BUTLER, "LSSTComCam", 9)
    stop.set()
    thread.join(30)
    writer.close()
    waker.close()

    day = ["--butler", BUTLER, "--instrument", "LSSTComCam", "--day-obs", str(DAY)]
    shown = [json.loads(line) for line in cli("arrival", "completeness", *day).lines]
    said = {one["obs_id"]: one["said"] for one in shown}
    assert sorted(said.values()) == ["8/9, missing S21 (failed: malformed_fits)", "9/9"]
    [one] = [json.loads(line) for line in cli("arrival", "completeness", *day, "--incomplete").lines]
    assert missing.rpartition("/")[2].startswith(one["obs_id"])

    status = json.loads(cli("-o", "json", "butler", "status", BUTLER).out)
    assert (status["reachable"], status["universe"]) == (True, "daf_butler 8")
    assert (status["ingested"], status["failed"], status["failed_by_reason"]) == (
        17,
        1,
        {"malformed_fits": 1},
    )
    assert status["lag_files"] == 17
    assert status["lag_p50_s"] <= status["lag_p95_s"]
    assert json.loads(
        cli("-o", "json", "arrival", "retry", "--butler", BUTLER, "--code", "malformed_fits").out
    ) == {
        "butler": BUTLER,
        "action": "retry",
        "changed": 1,
        "dry_run": False,
    }
    site.ingest()
    assert [json.loads(line)["said"] for line in cli("arrival", "completeness", *day).lines] == ["9/9", "9/9"]


class Flaky:
    """A catalogue that cannot be told at first."""

    def __init__(self, client, errors):
        self.client = client
        self.errors = errors

    def __getattr__(self, name):
        return getattr(self.client, name)

    def tell_complete(self, butler, exposures):
        if self.errors:
            raise self.errors.pop(0)
        self.client.tell_complete(butler, exposures)


def test_what_could_not_be_told_is_told_before_it_is_reported(site, night):
    site.land([path for path in night[1] if path.suffix == ".fits"][:9])
    writer = ButlerWriter(site.repository, ["LSSTComCam"])
    flaky = Flaky(site.agent, [ConnectionError("no catalogue"), ConnectionError("no catalogue")])
    waker = Waker(flaky, BUTLER, lambda: ButlerContents(site.repository))
    options = {"wait_s": 0.1, "waker": waker, "backoff": Backoff(0.01, 0.05)}
    worker = IngestWorker(site.agent, writer, BUTLER, "agent", **options)
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    wait_until(
        lambda: site.client.butler_status(BUTLER).states.get("ingested") == 9, "reported", timeout_s=30
    )
    assert [one["detectors"] for one in told(site, "exposure-complete")] == [9]
    assert not flaky.errors
    stop.set()
    thread.join(30)
    writer.close()
    waker.close()


def test_an_exposure_that_comes_in_parts_is_whole_once(site, night):
    images = [path for path in night[1] if path.suffix == ".fits"][:9]
    first, second = (
        ButlerWriter(site.repository, ["LSSTComCam"]),
        ButlerWriter(site.repository, ["LSSTComCam"]),
    )
    whole = []
    for writer, part in ((first, images[:4]), (second, images[4:8]), (first, images[8:])):
        site.land(part)
        assert (
            site.agent.report_arrivals(writer.ingest(site.agent.claim_arrivals(BUTLER, "w", 100, 0, 60)))
            == []
        )
        whole.append([one.detectors for one in writer.take_whole()])
    assert whole == [[], [], [9]]
    first.close()
    second.close()


def test_what_waits_is_woken_when_it_comes(registry, night, tmp_path):
    repository = repository_config(str(tmp_path / "empty"))
    Butler.makeRepo(str(tmp_path / "empty"))
    site = LedgerSite(registry, repository, night[0])
    site.land([path for path in night[1] if path.suffix == ".fits"][:3])
    waker = Waker(site.agent, BUTLER, lambda: ButlerContents(repository))
    assert {outcome.state for outcome in site.ingest()} == {"parked"}
    assert [(one.waits_for, one.files) for one in site.client.prerequisites(BUTLER)] == [
        ("instrument=LSSTComCam", 3)
    ]
    assert waker.look(at_once=True) == 0
    # somebody registers the instrument, with any tool
    create_repository(repository, "LSSTComCam")
    assert waker.look(at_once=True) == 3
    assert {outcome.state for outcome in site.ingest()} == {"ingested"}
    assert waker.look(at_once=True) == 0
    waker.close()
