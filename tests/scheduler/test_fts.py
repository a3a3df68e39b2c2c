"""Copies that an FTS carries: against an emulation of its REST interface, between two real storages."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from arriero.registry.states import RuleState
from arriero.rse.pool import ProtocolPool
from arriero.scheduler import fts as fts_module
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.transfer import RunSummary, TransferRunner
from support.database import migrated_database
from support.dying import wait_until
from support.fts import EmulatedFts, emulated_fts
from support.scheduling import Catalogue, request_history, requests
from support.services import drop_database
from support.storage_sites import add_file


@pytest.fixture
def fts() -> Iterator[EmulatedFts]:
    with emulated_fts() as made:
        yield made


class Site:
    """Files at SLAC that a rule wants at IN2P3, and workers that have an FTS copy them."""

    def __init__(self, catalogue: Catalogue, services, tmp_path, fts: EmulatedFts) -> None:
        self.catalogue, self.folder = catalogue, tmp_path.name
        self.token = tmp_path / "fts-token"
        self.token.write_text(fts.token)
        self.fts = fts
        self.pool = ProtocolPool()
        slac, self.in2p3 = services.xrootd_slac, services.xrootd_in2p3
        ids = {}
        for name, server in (("SLAC", slac), ("IN2P3", self.in2p3)):
            protocol = {
                "scheme": "http",
                "hostname": "127.0.0.1",
                "port": server.port,
                "prefix": f"{server.prefix}/{self.folder}",
            }
            ids[name] = catalogue.rse(name, protocol=protocol, attributes={"lfn2pfn_algorithm": "identity"})
        self.contents = {f"f{number}": bytes([65 + number]) * (3000 + number) for number in range(6)}
        files = []
        for name, content in self.contents.items():
            slac.write_file(f"{self.folder}/raw/{name}", content)
            files.append(add_file(catalogue, name, content))
            catalogue.replicas(files[-1:], ids["SLAC"], size=len(content))
        self.rule = catalogue.rule(catalogue.collection("night", children=files), "IN2P3")
        Evaluator(catalogue.context).run()

    def runner(self, stopping=lambda: False) -> TransferRunner:
        changed = {"fts_url": self.fts.url, "fts_token_file": self.token}
        context = self.catalogue.context
        settings = context.settings.model_copy(update=changed)
        made = type(context)(context.database, settings, context.doorbell)
        return TransferRunner(made, pool=self.pool, stopping=stopping)

    def run(self) -> RunSummary:
        self.catalogue.age(requests, 3600, "not_before")
        return self.runner().run()

    def there(self) -> dict[str, bytes]:
        root = self.in2p3.data_dir / self.folder / "raw"
        return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def site(services, tmp_path, fts, monkeypatch) -> Iterator[Site]:
    monkeypatch.setattr(fts_module, "LOOK_S", 0.02)
    url = migrated_database(services, "sqlite", tmp_path)
    catalogue = Catalogue(url)
    made = Site(catalogue, services, tmp_path, fts)
    yield made
    made.pool.close()
    catalogue.close()
    drop_database(services, url)


def test_what_an_fts_copies_is_verified_and_put_in_its_place(site, fts):
    fts.lies.add("/raw/f3")
    first = site.run()
    assert (first.done, first.retried) == (5, 1)
    waits = site.catalogue.one(select(requests))
    assert waits.code == "transfer_failed"
    assert "says FINISHED, and what it left is not the file" in waits.reason
    assert set(site.there()) == set(site.contents) - {"f3"}
    fts.lies.clear()
    assert site.run().done == 1
    assert site.there() == site.contents
    assert site.catalogue.rule_row(site.rule).state is RuleState.OK
    told = {row.mode_reason for row in site.catalogue.rows(select(request_history))}
    assert all("copied by job" in one and fts.url in one for one in told)
    [asked] = {
        (job["body"]["params"]["verify_checksum"], job["body"]["params"]["overwrite"])
        for job in fts.jobs.values()
    }
    assert asked == ("target", False)
    assert all(".part" in job["body"]["files"][0]["destinations"][0] for job in fts.jobs.values())
    site.catalogue.check_invariants()


def test_a_job_that_its_fts_has_forgotten_is_given_up(site, fts, monkeypatch):
    monkeypatch.setattr(fts_module, "SILENCE_S", 1.0)
    fts.holds.clear()
    worker = threading.Thread(target=site.runner().run)
    worker.start()
    wait_until(lambda: len(fts.jobs) == 6, "the jobs are not asked for")
    [forgotten] = [job for job, one in fts.jobs.items() if "/raw/f1" in str(one["body"])]
    fts.jobs.pop(forgotten)["job_state"] = "CANCELED"
    waiting = select(requests).where(requests.c.code == "transfer_failed")
    wait_until(lambda: len(site.catalogue.rows(waiting)) == 1, "it is waited for ever")
    fts.holds.set()
    worker.join(20)
    assert not worker.is_alive()
    waits = site.catalogue.one(select(requests))
    assert waits.code == "transfer_failed"
    assert f"job {forgotten} of {fts.url} is FAILED: {fts.url} does not know it" in waits.reason
    assert set(site.there()) == set(site.contents) - {"f1"}


def test_an_fts_that_is_away_and_copies_that_are_taken_back(site, fts):
    fts.away = True
    assert site.run().retried == 6
    assert {row.code for row in site.catalogue.rows(select(requests))} == {"fts_unavailable"}
    fts.away = False
    fts.holds.clear()
    site.catalogue.age(requests, 3600, "not_before")
    stopped = threading.Event()
    worker = threading.Thread(target=site.runner(stopped.is_set).run)
    worker.start()
    wait_until(lambda: len(fts.jobs) == 6, "the jobs are not asked for")
    stopped.set()
    worker.join(20)
    assert not worker.is_alive()
    assert {job["job_state"] for job in fts.jobs.values()} == {"CANCELED"}
    assert {(row.state, row.code) for row in site.catalogue.rows(select(requests))} == {
        ("QUEUED", "released")
    }
    fts.holds.set()
    assert site.run().done == 6
    assert site.there() == site.contents
    site.catalogue.check_invariants()
