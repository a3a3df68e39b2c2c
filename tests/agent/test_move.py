"""Files that are moved into a Butler: it has its own, the catalogue lets go of theirs, and no last copy ever goes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lsst.resources import ResourcePath
from sqlalchemy import select, update

from arriero.agent.ingest.butler_repository import open_repository
from arriero.agent.ingest.butler_writer import ButlerWriter
from arriero.registry.errors import InvalidInput
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import replicas, rses
from arriero.scheduler.deletion_run import DeletionRunner
from arriero.scheduler.evaluate import Evaluator
from support.butler import DAY
from support.exposures import write_exposure
from support.faults import assert_agreed, hurry
from support.ledger_site import BUTLER, OTHER, RSE, LedgerSite
from support.server import registry

__all__ = ["registry"]


@pytest.fixture
def site(registry, repository, tmp_path):
    (tmp_path / "drop").mkdir()
    return LedgerSite(registry, repository, tmp_path / "drop", transfer="move")


def states(site):
    query = select(replicas.c.state, replicas.c.tombstone).join(rses, rses.c.id == replicas.c.rse_id)
    with site.registry.database.snapshot() as connection:
        return connection.execute(query.where(rses.c.name == RSE)).all()


def delete(site):
    settings = site.registry.context.settings.model_copy(update={"deletion_grave_s": 0.0})
    DeletionRunner(replace(site.registry.context, settings=settings)).run()


def test_what_is_moved_into_a_butler_goes_from_where_it_arrived(site):
    images = write_exposure(site.root, DAY, 266, shape=(2, 2))
    were = [path.read_bytes() for path in images]
    names = site.land(images)
    # one dies between the Butler's commit and its report: its files are there, and come again
    died = ButlerWriter(site.repository, ["LSSTComCam"], transfer="move")
    assert {one.state for one in died.ingest(site.agent.claim_arrivals(BUTLER, "dies", 4, 0, 60))} == {
        "ingested"
    }
    died.close()
    assert {row.tombstone for row in states(site)} == {None}, "nobody has said that it is in the Butler"
    hurry(site, "leased")
    assert {one.state for one in site.ingest()} == {"ingested"}
    assert all(row.tombstone is not None for row in states(site))

    delete(site)
    assert all(path.is_file() for path in images), "nobody has verified another copy: the last one stays"
    with site.registry.database.transaction() as connection:
        elsewhere = select(rses.c.id).where(rses.c.name == OTHER).scalar_subquery()
        connection.execute(update(replicas).where(replicas.c.rse_id == elsewhere).values(verified_at=now()))
    delete(site)
    assert not any(path.exists() for path in images)
    assert states(site) == []

    ledger = site.ledger()
    assert {ledger[name].state for name in names} == {"ingested"}
    with open_repository(site.repository) as butler:
        for name, content in zip(names, were, strict=True):
            ref = butler.get_dataset(ledger[name].dataset_id)
            assert ResourcePath(butler.getURI(ref)).read() == content
            assert butler.get(ref)[0].header["OBSID"] == "CC_O_20241108_000266"
    assert_agreed(site)


def test_what_a_rule_holds_stays(site):
    names = site.land(write_exposure(site.root, DAY, 266, shape=(2, 2), detectors=[0]))
    site.client.add_replication_rule([{"scope": "raw", "name": names[0]}], 1, RSE)
    Evaluator(site.registry.context).run()
    site.ingest()
    assert [row.tombstone for row in states(site)] == [None]


def test_nothing_is_moved_from_an_rse_that_keeps_files(site):
    site.client.update_rse(RSE, {"staging_area": False})
    with pytest.raises(InvalidInput, match=f"{RSE} is no staging area"):
        site.client.add_butler(site.butler.model_copy(update={"name": "second"}))
