"""Letting go of what is in a Butler: the order, a kill in between, tags, and the deletion that passes afterwards."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal

import pytest
from lsst.daf.butler import CollectionType, FileDataset

from arriero.agent.butler_contents import ButlerContents
from arriero.agent.ingest.butler_repository import open_repository
from arriero.agent.release import Verdict, release
from arriero.registry.errors import Conflict, NotAllowed
from arriero.registry.models import NewToken
from arriero.scheduler.sweeps import sweep_arrivals
from support.cli import cli
from support.installation import wait_until
from support.ledger_site import BUTLER, OTHER, RSE, LedgerSite
from support.server import registry

__all__ = ["cli", "registry"]


class Dies:
    """The catalogue of somebody who is killed when the Butler has let go and before the ledger knows."""

    def release_arrivals(self, ids_and_fences, reason=None):
        del ids_and_fences, reason
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.fixture
def site(registry, repository, night, monkeypatch):
    made = LedgerSite(registry, repository, night[0])
    monkeypatch.setenv("ARRIERO_URL", registry.url)
    monkeypatch.setenv("ARRIERO_TOKEN", made.token)
    return made


def ids(ledger, names):
    return {ledger[name].dataset_id for name in names}


def test_a_file_is_released_before_it_is_deleted_whatever_happens_in_between(site, night, cli):
    images = [path for path in night[1] if path.suffix == ".fits"][:18]
    names = site.land(images)
    assert {outcome.state for outcome in site.ingest()} == {"ingested"}
    ledger = site.ledger()
    going, tagged = names[:4], names[3]
    with pytest.raises(Conflict, match="arriero arrival release"):
        site.delete(going)

    with open_repository(site.repository, writeable=True) as butler:
        butler.collections.register("best", CollectionType.TAGGED)
        butler.registry.associate("best", [butler.get_dataset(ledger[tagged].dataset_id)])

    chosen = ["--butler", BUTLER, *(word for name in going for word in [f"raw:{name}"])]
    shown = [json.loads(line) for line in cli("arrival", "release", *chosen, "--dry-run").lines]
    assert [one["verdict"] for one in shown].count("released") == 3
    assert ["best" in (one["reason"] or "") for one in shown if one["name"] == tagged] == [True]
    assert site.in_butler() == ids(ledger, names), "a dry run does nothing"

    # killed when the Butler has let go, and before the ledger knows
    files = [file for file in site.agent.butler_files(BUTLER) if file.name in going]

    def work():
        with ButlerContents(site.repository, writeable=True) as contents:
            list(release(Dies(), contents, files))

    killed = multiprocessing.get_context("fork").Process(target=work)
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert site.in_butler() == ids(ledger, names) - ids(ledger, going[:3]), "dark data, and no more"
    assert {site.ledger()[name].state for name in going} == {"ingested"}
    with pytest.raises(Conflict, match="arriero arrival release"):
        site.delete(going[:3])

    ended = cli("arrival", "release", *chosen, expect=8)
    assert "3 released" in ended.err
    states = {name: site.ledger()[name].state for name in going}
    assert states == {name: "ingested" if name == tagged else "released" for name in going}
    assert site.in_butler() == ids(ledger, names) - ids(ledger, going[:3])
    assert all(path.is_file() for path in images), "no file is touched"
    site.delete(going[:3])
    assert {site.ledger()[name].state for name in going[:3]} == {"released"}, "until somebody wants it back"

    cli("arrival", "release", f"raw:{tagged}", "--butler", BUTLER, "--force")
    assert ledger[tagged].dataset_id not in site.in_butler()
    # somebody changes his mind
    back = cli("-o", "json", "arrival", "retry", "--butler", BUTLER, "--state", "released", "--name", tagged)
    assert json.loads(back.out)["changed"] == 1
    site.ingest()
    assert ledger[tagged].dataset_id in site.in_butler()
    # by RSE and pattern, in one go; again: nothing is left to release
    cli("arrival", "release", "--butler", BUTLER, "--rse", RSE, "--name", "*")
    assert site.in_butler() == set()
    assert cli("arrival", "release", "--butler", BUTLER, "--rse", RSE).lines == []


def test_what_an_agent_may_have_written_before_it_died_is_not_deleted(site, night, cli):
    [name, *_] = site.land([path for path in night[1] if path.suffix == ".fits"][:1])
    assert site.agent.claim_arrivals(BUTLER, "dies", 10, 0, 0.01)
    wait_until(lambda: sweep_arrivals(site.registry.context), "its lease runs out", timeout_s=5)
    with pytest.raises(Conflict, match="arriero arrival release"):
        site.delete([name])
    chosen = ["--butler", BUTLER, "--scope", "raw"]
    assert json.loads(cli("-o", "json", "arrival", "drop", *chosen).out)["changed"] == 0
    assert [outcome.state for outcome in site.ingest()] == ["ingested"]
    assert not next(iter(site.client.butler_files(BUTLER))).may_hold


def test_who_may_release(site, night):
    stranger = site.client.create_token(NewToken(label="other", lifetime_s=60, rses=[OTHER])).token
    site.land([path for path in night[1] if path.suffix == ".fits"][:1])
    site.ingest()
    [file] = site.client.butler_files(BUTLER, state="ingested")
    with pytest.raises(NotAllowed):
        site.registry.client(token=stranger).release_arrivals([(file.id, file.fence)])
    # what has been touched since it was seen is left alone
    assert site.agent.release_arrivals([(file.id, file.fence + 1)]) == [file.id]
    assert site.agent.ingest_again([(file.id, file.fence)], "lost") == []
    with ButlerContents(site.repository) as contents:
        [one] = release(site.agent, contents, site.client.butler_files(BUTLER), dry_run=True)
    assert one.verdict is Verdict.PASSED_OVER


def test_no_way_of_ingest_has_the_butler_delete_a_replica(
    registry, sqlite_repository, night, cli, tmp_path, monkeypatch
):
    home = tmp_path / "repo"
    inside = home / "arrived"
    shutil.copytree(night[0], inside)
    site = LedgerSite(registry, sqlite_repository, home)
    monkeypatch.setenv("ARRIERO_URL", registry.url)
    monkeypatch.setenv("ARRIERO_TOKEN", site.token)
    images = sorted(inside.rglob("*.fits"))[:3]
    names = site.land(images)
    site.ingest()
    ledger = site.ledger()
    own, copied, direct = names
    with open_repository(sqlite_repository, writeable=True) as butler:
        refs = {name: butler.get_dataset(ledger[name].dataset_id) for name in names}
        butler.pruneDatasets([refs[own], refs[copied]], disassociate=False, unstore=True)
        # as `butler ingest-raws --transfer auto` has it for what lies below the datastore, and as a copy
        butler.ingest(FileDataset(str(home / own), [refs[own]]), transfer="auto")
        butler.ingest(FileDataset(str(home / copied), [refs[copied]]), transfer="copy")
    ended = cli("arrival", "release", "--butler", BUTLER, "--rse", RSE, "--force", expect=8)
    verdicts = {one["name"]: one["verdict"] for one in map(json.loads, ended.lines)}
    assert verdicts == {own: "kept", copied: "released", direct: "released"}
    assert "would delete it" in ended.out
    assert all(path.is_file() for path in images)
    assert [json.loads(line)["kind"] for line in cli("reconcile", BUTLER, expect=8).lines] == ["not_in_place"]
