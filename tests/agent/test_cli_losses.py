"""The commands about lost files and about what deletion may take, against a real registry."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from arriero.registry.schema.tables import accounts
from arriero.registry.services.bad_replicas import Declaration, Named, declare
from arriero.registry.services.context import Actor
from arriero.registry.states import BadReplicaState, Role
from support import cli as support_cli
from support import server

registry = server.registry
cli = support_cli.cli
database_kind = support_cli.on_sqlite
environment = support_cli.environment

RSE = "SLAC_RAW_DISK"


@pytest.fixture
def lost(cli, registry, tmp_path):
    """A dataset of two files, one of which was declared bad where alone it was."""
    folder = tmp_path / "slac" / "raw"
    folder.mkdir(parents=True)
    for name in ("a.fits", "b.fits"):
        (folder / name).write_bytes(b"raw")
    cli("scope", "add", "raw")
    cli("rse", "add", RSE)
    cli("rse", "attribute", "set", RSE, "--key", "lfn2pfn_algorithm", "--value", "identity")
    cli("rse", "protocol", "add", RSE, "--scheme", "file", "--prefix", str(folder.parent))
    cli("replica", "add", "--rse", RSE, "--dataset", "raw:night", "a.fits", "b.fits")
    with registry.database.snapshot() as connection:
        root = connection.scalar(select(accounts.c.id).where(accounts.c.name == "root"))
    said = Declaration(BadReplicaState.BAD, "the disk is gone")
    actor = Actor(root, "root", Role.ADMIN)
    assert declare(registry.context, actor, [Named("raw", "a.fits", RSE)], said) == {}


def test_lost_files_are_listed_and_given_up(cli, lost):
    [row] = cli("-o", "json", "did", "lost").json
    assert (row["scope"], row["name"], row["accepted_at"]) == ("raw", "a.fits", None)
    assert "the disk is gone" in row["reason"]
    assert cli("-o", "json", "did", "show", "raw:a.fits").json["availability"] == "LOST"
    cli("did", "accept-loss", "raw:a.fits", "--dry-run")
    assert len(cli("-o", "json", "did", "content", "list", "raw:night").json) == 2
    cli("did", "accept-loss", "raw:a.fits", "--reason", "no tape either")
    [member] = cli("-o", "json", "did", "content", "list", "raw:night").json
    assert member["name"] == "b.fits"
    assert cli("-o", "json", "did", "lost", "--scope", "raw").json == []
    [row] = cli("-o", "json", "did", "lost", "--accepted").json
    assert (row["accepted_by"], row["accepted_reason"]) == ("root", "no tape either")
    again = cli("did", "accept-loss", "raw:b.fits", expect=4)
    assert "no lost file" in again.err


def test_what_deletion_may_take_is_listed(cli, lost):
    assert cli("-o", "json", "replica", "removable", "--rse", RSE).json == []
    cli("did", "accept-loss", "raw:a.fits")
    [row] = cli("-o", "json", "replica", "removable", "--rse", RSE).json
    assert (row["name"], row["state"], row["when"], row["why"]) == ("a.fits", "BAD", "at_once", "bad")
