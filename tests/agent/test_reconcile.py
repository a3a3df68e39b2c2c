"""A Butler held against its ledger in every direction, mended, and held against it again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from lsst.daf.butler import DatasetRef, FileDataset
from sqlalchemy import update

from arriero.agent import reconcile
from arriero.agent.butler_contents import ButlerContents
from arriero.agent.ingest.butler_repository import create_repository, open_repository
from arriero.registry.schema.tables import arrivals, replicas
from arriero.registry.states import ReplicaState
from support.cli import cli
from support.faults import hurry
from support.headers import DECAM, write_fits
from support.ledger_site import BUTLER, RSE, LedgerSite
from support.server import registry

__all__ = ["cli", "registry"]


@pytest.fixture
def site(registry, repository, night, monkeypatch):
    made = LedgerSite(registry, repository, night[0])
    monkeypatch.setenv("ARRIERO_URL", registry.url)
    monkeypatch.setenv("ARRIERO_TOKEN", made.token)
    return made


def change(site, table, key, **values):
    with site.registry.database.transaction() as connection:
        connection.execute(update(table).where(key).values(**values))


def spoilt(site, names, ledger, stray, elsewhere):
    """Have every difference once; give its kind by the name of the file."""
    lost, bad, unknown, renamed, resized, moved = names[:6]
    key = {name: arrivals.c.id == ledger[name].id for name in names}
    with ButlerContents(site.repository, writeable=True) as contents:
        contents.remove([ledger[lost].dataset_id])
        [dataset] = contents.stored([ledger[moved].dataset_id]).values()
        contents.unstore([dataset.dataset_id])
    # the Butler was told of the same file at another place
    elsewhere.write_bytes((site.root / moved).read_bytes())
    with open_repository(site.repository, writeable=True) as butler:
        ref = butler.get_dataset(dataset.dataset_id)
        butler.ingest(FileDataset(elsewhere.as_uri(), [ref]), transfer="direct")
        other = butler.get_dataset(ledger[names[6]].dataset_id)
        copied = DatasetRef(other.datasetType, other.dataId, run="other/run", id=uuid4())
        butler.ingest(FileDataset(stray.as_uri(), [copied]), transfer="direct")
    in_file = replicas.c.file_id == _file_id(site, ledger[bad].id)
    change(site, replicas, in_file & (replicas.c.rse_id == _rse_id(site)), state=ReplicaState.BAD)
    change(site, arrivals, key[unknown], state="failed", code="x", reason="y", dataset_id=None)
    change(site, arrivals, key[renamed], dataset_id=uuid4())
    in_file = replicas.c.file_id == _file_id(site, ledger[resized].id)
    change(site, replicas, in_file & (replicas.c.rse_id == _rse_id(site)), bytes=7)
    return {
        lost: "missing",
        bad: "dangling",
        unknown: "unreported",
        renamed: "other_id",
        resized: "wrong_size",
        moved: "other_place",
        None: "stray",
    }


def test_every_difference_is_told_mended_and_then_gone(site, night, cli, tmp_path):
    images = [path for path in night[1] if path.suffix == ".fits"]
    names = site.land(images[:18])
    site.ingest()
    ledger = site.ledger()
    ended = cli("reconcile", BUTLER)
    assert ended.lines == []
    assert "18 files of the ledger and 18 datasets of in2p3 agree" in ended.err

    stray = images[18]
    wrong = spoilt(site, names, ledger, stray, tmp_path / "elsewhere.fits")
    lost, bad, unknown, renamed, resized, moved = names[:6]
    found = [json.loads(line) for line in cli("reconcile", BUTLER, expect=8).lines]
    assert {one["name"]: one["kind"] for one in found} == wrong
    assert len(found) == len(wrong), "each is told once"

    page, document = tmp_path / "report.html", tmp_path / "report.json"
    ended = cli("reconcile", BUTLER, "--repair", "--html", str(page), "--report", str(document), expect=8)
    assert "6 repaired" in ended.err
    assert json.loads(document.read_text())["repaired"] == {
        kind: 1 for kind in wrong.values() if kind != "stray"
    }
    assert lost in page.read_text()
    after = site.ledger()
    assert after[unknown].dataset_id == ledger[unknown].dataset_id
    assert after[renamed].dataset_id == ledger[renamed].dataset_id
    assert {after[name].state for name in (lost, bad, resized, moved)} == {"pending"}
    [only] = [json.loads(line) for line in cli("reconcile", BUTLER, "--repair", expect=8).lines]
    assert (only["kind"], only["uri"]) == ("stray", stray.as_uri())

    site.land([stray])
    change(
        site,
        replicas,
        (replicas.c.file_id == _file_id(site, ledger[resized].id)) & (replicas.c.rse_id == _rse_id(site)),
        bytes=(site.root / resized).stat().st_size,
    )
    site.ingest()
    after = site.ledger()
    assert {after[name].state for name in (lost, resized, moved)} == {"ingested"}
    assert (after[bad].state, after[bad].code) == ("pending", "replica_not_available")
    assert cli("reconcile", BUTLER, "--repair").lines == []


def _file_id(site, arrival_id):
    with site.registry.database.snapshot() as connection:
        return connection.execute(arrivals.select().where(arrivals.c.id == arrival_id)).one().file_id


def _rse_id(site):
    with site.registry.database.snapshot() as connection:
        return connection.execute(arrivals.select()).first().rse_id


def test_files_that_are_gone_or_cut_short_are_found_where_they_lie(
    registry, repository, night, cli, tmp_path, monkeypatch
):
    root = tmp_path / "storage"
    shutil.copytree(night[0], root)
    site = LedgerSite(registry, repository, root)
    monkeypatch.setenv("ARRIERO_URL", registry.url)
    monkeypatch.setenv("ARRIERO_TOKEN", site.token)
    images = sorted(root.rglob("*.fits"))[:9]
    names = site.land(images)
    site.ingest()
    assert cli("reconcile", BUTLER, "--files").lines == []
    images[0].unlink()
    images[1].write_bytes(b"cut short")
    found = [json.loads(line) for line in cli("reconcile", BUTLER, "--files", expect=8).lines]
    assert {one["name"]: one["kind"] for one in found} == {names[0]: "file_missing", names[1]: "file_wrong"}
    monkeypatch.setattr(reconcile, "BRAKE_FILES", 0)
    cli("reconcile", BUTLER, "--files", "--repair", expect=7)
    assert len(site.ledger()) == 9
    monkeypatch.setattr(reconcile, "BRAKE_FILES", 10)
    asked = []
    sizes = reconcile.sizes
    monkeypatch.setattr(
        reconcile, "sizes", lambda uris: sizes([uri for uri in uris if asked.append(uri) is None])
    )
    cli("reconcile", BUTLER, "--files", "--repair")
    assert len(asked) == len(set(asked)) == 9, "each file is asked for once, though it is told of and mended"
    assert cli("reconcile", BUTLER, "--files").lines == []
    assert {site.ledger()[name].state for name in names[:2]} == {"pending"}
    with open_repository(repository) as butler:
        assert len(butler.query_datasets("raw", collections="LSSTComCam/raw/all")) == 9, (
            "ids and tags are kept"
        )


def test_all_datasets_of_a_zip_are_known_missed_and_released(
    registry, repository, source, cli, tmp_path, monkeypatch
):
    made = [source.make(detector)[1] for detector in (3, 4, 5)]
    archive = Path(source.butler.retrieve_artifacts_zip(made, tmp_path / "storage").ospath)
    site = LedgerSite(registry, repository, tmp_path / "storage")
    monkeypatch.setenv("ARRIERO_URL", registry.url)
    monkeypatch.setenv("ARRIERO_TOKEN", site.token)
    shutil.copytree(source.raws_root, site.root / "raws")
    site.land(sorted((site.root / "raws").rglob("*.fits")))
    [described] = site.described([archive])
    described |= {"meta": {"rubin_butler": "zip_file", "rubin_sidecar": ""}}
    site.client.add_replicas(RSE, [described])
    # the zip may have come before its exposure
    for _ in range(2):
        site.ingest()
        hurry(site, "parked")
    assert {one.state for one in site.ledger().values()} == {"ingested"}
    known_missed_and_released(site, cli, str(described["name"]), {ref.id for ref in made}, monkeypatch)


def test_all_datasets_of_a_file_with_extensions_are_known_missed_and_released(
    registry, cli, tmp_path, monkeypatch
):
    repository = create_repository(str(tmp_path / "decam"), "DECam")
    site = LedgerSite(registry, repository, tmp_path / "storage", instrument="DECam")
    monkeypatch.setenv("ARRIERO_URL", registry.url)
    monkeypatch.setenv("ARRIERO_TOKEN", site.token)
    site.root.mkdir()
    extensions = [{"CCDNUM": detector} for detector in (25, 1, 62)]
    [name] = site.land([write_fits(site.root / "DECam_00229388.fits.fz", DECAM, extensions)])
    assert {outcome.state for outcome in site.ingest()} == {"ingested"}
    with open_repository(repository) as butler:
        ids = {ref.id for ref in butler.query_datasets("raw", collections="DECam/raw/all")}
    assert len(ids) == 3
    known_missed_and_released(site, cli, name, ids, monkeypatch)


def known_missed_and_released(site, cli, name, ids, monkeypatch):
    """Follow a file of three datasets through what may become of them."""
    repository = site.repository

    def shown():
        one = cli("-o", "json", "arrival", "show", f"raw:{name}").json
        return {UUID(id_) for id_ in one["datasets"]}

    assert shown() == ids
    assert site.ledger()[name].dataset_id in ids
    assert cli("reconcile", BUTLER).lines == []

    # somebody takes one of them out
    gone = next(id_ for id_ in ids if id_ != site.ledger()[name].dataset_id)
    with ButlerContents(repository, writeable=True) as contents:
        contents.remove([gone])
    [one] = [json.loads(line) for line in cli("reconcile", BUTLER, expect=8).lines]
    assert (one["kind"], one["name"], one["detail"]) == ("missing", name, "1 of the datasets in it")
    cli("reconcile", BUTLER, "--repair")
    site.ingest()
    assert in_butler(repository, ids) == ids
    assert cli("reconcile", BUTLER).lines == []

    # the ledger has lost its mind
    change(
        site, arrivals, arrivals.c.dataset_id.in_(ids), state="failed", code="x", reason="y", datasets=None
    )
    cli("reconcile", BUTLER, "--repair")
    assert shown() == ids
    monkeypatch.setattr(
        ButlerContents, "pages", None
    )  # none is looked for: that would read all of the Butler
    [said] = [json.loads(line) for line in cli("arrival", "release", f"raw:{name}", "--butler", BUTLER).lines]
    assert (said["verdict"], said["datasets"]) == ("released", 3)
    assert in_butler(repository, ids) == set()
    assert site.ledger()[name].state == "released"


def in_butler(repository, ids):
    with ButlerContents(repository) as contents:
        return set(contents.stored(ids))
