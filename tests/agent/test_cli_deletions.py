"""`arriero replica delete` and `arriero deletion`: what would go, what goes, what stays, and stopping all, on a real registry."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import insert, select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import arrivals, butlers, dids, replicas, rse_deletions
from arriero.registry.services.context import Context
from arriero.scheduler.deletion_run import DeletionRunner
from arriero.scheduler.evaluate import Evaluator
from support import cli as support_cli
from support import server

registry = server.registry
cli = support_cli.cli
database_kind = support_cli.on_sqlite
environment = support_cli.environment

SLAC, IN2P3 = "SLAC_RAW_DISK", "IN2P3_RAW_DISK"
NAMES = ("a.fits", "b.fits", "c.fits", "d.fits")


@pytest.fixture
def storages(cli, registry, tmp_path):
    """Two RSEs with the same four files, verified at the second; the folder of each."""
    cli("scope", "add", "raw")
    folders = {}
    for rse in (SLAC, IN2P3):
        folder = folders[rse] = tmp_path / rse / "raw"
        folder.mkdir(parents=True)
        for name in NAMES:
            (folder / name).write_bytes(b"raw " + name.encode())
        cli("rse", "add", rse)
        cli("rse", "attribute", "set", rse, "--key", "lfn2pfn_algorithm", "--value", "identity")
        cli("rse", "protocol", "add", rse, "--scheme", "file", "--prefix", str(folder.parent))
        cli("replica", "add", "--rse", rse, "--dataset", "raw:night", *NAMES)
    with registry.database.transaction() as tx:
        tx.execute(update(replicas).where(replicas.c.rse_id == 2).values(verified_at=after(-60.0)))
    return folders


def work(registry) -> int:
    """Do what the workers do; give how many replicas went."""
    context = registry.context
    if not isinstance(context, Context):
        raise TypeError(context)
    Evaluator(context).run()
    return DeletionRunner(context).run().done


def listed(cli, *command: str) -> dict[str, dict]:
    return {row["name"]: row for row in cli("-o", "json", *command).json}


def test_what_would_go_and_what_stays_is_said_and_then_done(cli, registry, storages):
    [rule] = cli("-o", "json", "rule", "add", "raw:b.fits", "--copies", "1", "--rses", SLAC).json
    assert work(registry) == 0
    with registry.database.transaction() as tx:
        butler = tx.execute(
            insert(butlers).values(name="embargo", uri="/repo", instruments=[]).returning(butlers.c.id)
        ).scalar_one()
        held = select(dids.c.id).where(dids.c.name == "c.fits").scalar_subquery()
        tx.execute(insert(arrivals).values(butler_id=butler, file_id=held, rse_id=1, state="ingested"))
        unproven = select(dids.c.id).where(dids.c.name == "d.fits").scalar_subquery()
        tx.execute(
            update(replicas)
            .where(replicas.c.file_id == unproven, replicas.c.rse_id == 2)
            .values(verified_at=None)
        )
    plan = listed(cli, "replica", "delete", "--rse", SLAC, "raw:night", "--dry-run")
    assert {name: (row["verdict"], row["code"]) for name, row in plan.items()} == {
        "a.fits": ("delete", None),
        "b.fits": ("keep", "locked"),
        "c.fits": ("keep", "held_by_butler"),
        "d.fits": ("keep", "unproven"),
    }
    assert plan["a.fits"]["cause"] == "purge"
    assert "arriero arrival release" in plan["c.fits"]["reason"]
    assert work(registry) == 0, "a plan changes nothing"
    told = cli("replica", "delete", "--rse", SLAC, "raw:night", "--reason", "the disk is needed")
    assert told.err == f"1 replicas at {SLAC} (10 B) are deleted now. 3 stay: --dry-run says why.\n"
    assert work(registry) == 1
    assert sorted(path.name for path in storages[SLAC].iterdir()) == list(NAMES[1:])
    assert sorted(path.name for path in storages[IN2P3].iterdir()) == list(NAMES)
    [ended] = cli("-o", "json", "deletion", "list", "--history", "--did", "raw:a.fits").json
    assert (ended["rse"], ended["state"], ended["cause"], ended["proof_rse"]) == (
        SLAC,
        "DONE",
        "purge",
        IN2P3,
    )
    assert ended["proof_at"]
    del rule


def test_which_has_to_be_said(cli, storages):
    assert "--dry-run shows what would go" in cli("replica", "delete", "--rse", SLAC, expect=2).err
    cli("replica", "delete", "--rse", SLAC, "--unlocked", "raw:night", expect=2)
    assert "raw:none" in cli("replica", "delete", "--rse", SLAC, "raw:none", expect=3).err
    assert "NOWHERE" in cli("replica", "delete", "--rse", "NOWHERE", "--dry-run", expect=3).err
    only = cli("replica", "delete", "--rse", IN2P3, "raw:a.fits")
    assert only.err.startswith("0 replicas"), "what nobody has verified is no proof"


def test_everything_that_nobody_holds_can_be_asked_for(cli, registry, storages):
    with registry.database.transaction() as tx:
        kept = select(dids.c.id).where(dids.c.name == "d.fits").scalar_subquery()
        chosen = (replicas.c.rse_id == 1, replicas.c.file_id != kept)
        tx.execute(update(replicas).where(*chosen).values(tombstone=after(-60.0)))
    assert work(registry) == 0
    plan = listed(cli, "replica", "delete", "--rse", SLAC, "--dry-run")
    assert {row["verdict"] for row in plan.values()} == {"when_needed"}
    assert plan.keys() == set(NAMES[:3])
    plan = listed(cli, "replica", "delete", "--rse", SLAC, "--unlocked", "--dry-run")
    assert {row["verdict"] for row in plan.values()} == {"delete"}
    done = cli("-o", "json", "replica", "delete", "--rse", SLAC, "--unlocked").json
    assert (done["files"], done["kept"]) == (3, 0)
    assert work(registry) == 3
    assert [path.name for path in storages[SLAC].iterdir()] == ["d.fits"]


def test_deletions_are_stopped_and_go_on(cli, registry, storages):
    assert cli("-o", "json", "deletion", "stop", "--dry-run").json["stopped"] is False
    told = cli("deletion", "stop", "--reason", "a storm")
    assert "stopped by root" in told.err
    assert "a storm" in told.err
    # stopping again changes nothing: who was first, and why, stays
    assert "a storm" in cli("deletion", "stop", "--reason", "another").err
    cli("replica", "delete", "--rse", SLAC, "raw:a.fits")
    assert work(registry) == 0
    site = {row["rse"]: row for row in cli("-o", "json", "deletion", "status").json}[SLAC]
    assert (site["is_open"], site["need"], site["under_way"]) == (False, 0, 0)
    assert cli("deletion", "go").err == "Deletions are not stopped.\n"
    assert work(registry) == 1


def test_an_rse_that_has_failed_is_looked_at_again(cli, registry, storages):
    cli("replica", "delete", "--rse", SLAC, "raw:a.fits")
    storages[SLAC].parent.rename(storages[SLAC].parent.with_name("away"))
    assert work(registry) == 0
    site = {row["rse"]: row for row in cli("-o", "json", "deletion", "status", "--rses", SLAC).json}[SLAC]
    assert (site["is_open"], site["code"], site["failures"]) == (False, "unavailable", 1)
    storages[SLAC].parent.with_name("away").rename(storages[SLAC].parent)
    assert work(registry) == 0
    assert f"{SLAC} is looked at now" in cli("deletion", "go", "--rse", SLAC).err
    assert work(registry) == 1
    assert cli("deletion", "go", "--take-over", expect=2)


def test_a_mark_that_is_not_ours_is_taken_over_on_demand(cli, registry, storages):
    mark = storages[SLAC].parent / ".arriero-deletions"
    mark.write_text(json.dumps({"installation": "another", "rse": SLAC, "epoch": 3}))
    cli("replica", "delete", "--rse", SLAC, "raw:a.fits")
    assert work(registry) == 0
    [site] = cli("-o", "json", "deletion", "status", "--rses", SLAC).json
    assert site["code"] == "foreign_mark"
    assert "--take-over" in site["reason"]
    cli("deletion", "go", "--rse", SLAC)
    assert work(registry) == 0, "going on is not taking over"
    cli("deletion", "go", "--rse", SLAC, "--take-over")
    assert work(registry) == 1
    assert json.loads(mark.read_text())["epoch"] == 4


def test_what_is_being_deleted_is_listed_with_its_reason(cli, registry, storages):
    stubborn = storages[SLAC] / "a.fits"
    stubborn.unlink()
    stubborn.mkdir()
    cli("replica", "delete", "--rse", SLAC, "raw:a.fits")
    assert work(registry) == 0
    [row] = cli("-o", "json", "deletion", "list", "--rse", SLAC).json
    assert (row["name"], row["code"], row["attempt"], row["proof_rse"]) == ("a.fits", "unsupported", 1, IN2P3)
    assert row["next_attempt_at"]
    assert "only files are removed" in row["reason"]
    assert cli("-o", "json", "deletion", "list", "--code", "unavailable").json == []
    plan = listed(cli, "replica", "delete", "--rse", SLAC, "raw:a.fits", "--dry-run")
    assert plan["a.fits"]["code"] == "being_deleted"
    stubborn.rmdir()
    cli("deletion", "go", "--rse", SLAC)
    assert work(registry) == 1
    with registry.database.snapshot() as connection:
        assert connection.scalar(select(rse_deletions.c.failures)) == 0
