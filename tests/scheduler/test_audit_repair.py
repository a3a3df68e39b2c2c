"""Audits of real storages: what is planted there is found by two dumps a day apart, and made good by real workers."""

from __future__ import annotations

import zlib

import pytest
from sqlalchemy import select, update

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import bad_replicas, storage_audits
from arriero.registry.services.context import Actor
from arriero.registry.services.storage_findings import settle_findings
from arriero.registry.states import AuditState, BadReplicaState, Role, RuleState
from support.audited import Lines, age_replicas, audited, findings
from support.database import counted_statements
from support.rse_copies import pool
from support.scheduling import replicas
from support.storage_sites import Sites, anywhere, flip, sites

__all__ = ["anywhere", "pool", "sites"]


@pytest.fixture
def root(catalogue) -> Actor:
    return Actor(catalogue.account_id, "root", Role.ADMIN)


def dump_of(sites: Sites, rse: str, *, checksums: bool = True) -> Lines:
    """What lies at an RSE, as its site would dump it: from the bytes."""
    folder = sites.folders[rse]
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "made":
            content = path.read_bytes()
            adler32 = f"{zlib.adler32(content):08X}" if checksums else None
            lines.append((str(path.relative_to(folder)), len(content), adler32))
    return lines


def verify(sites: Sites, rse: str) -> None:
    """Have every replica at an RSE be verified."""
    with sites.catalogue.database.transaction() as tx:
        tx.execute(
            update(replicas)
            .where(replicas.c.rse_id == sites.ids[rse])
            .values(verified_at=now(), updated_at=replicas.c.updated_at)
        )


def plant(sites: Sites) -> None:
    """A file that is missing, one that is short, one with a flipped bit, and one that nobody knows of."""
    sites.path("IN2P3", "f0").unlink()
    sites.path("IN2P3", "f1").write_bytes(sites.contents["f1"][:-7])
    flip(sites.path("IN2P3", "f2"))
    sites.path("IN2P3", "dark").write_bytes(b"nobody knows me")


def test_missing_short_and_flipped_files_are_made_again_and_dark_ones_stay(anywhere, root):
    """D26: both kinds planted, on a folder, on XRootD and on Apache; nothing is done before the second dump."""
    sites = anywhere
    verify(sites, "SLAC")
    plant(sites)
    first = audited(sites.context, root, "IN2P3", dump_of(sites, "IN2P3"), days=3)
    counts = ("missing", "dark", "wrong_size", "wrong_checksum", "declared")
    assert [first[what] for what in counts] == [1, 1, 1, 1, 0]
    sites.repair()
    assert not sites.path("IN2P3", "f0").exists()
    second = audited(sites.context, root, "IN2P3", dump_of(sites, "IN2P3"), days=1)
    assert [second[what] for what in counts] == [1, 1, 1, 1, 3]
    sites.repair()
    for name, content in sites.contents.items():
        assert sites.path("IN2P3", name).read_bytes() == content
        assert sites.state("IN2P3", name)[0] == "AVAILABLE"
    assert sites.path("IN2P3", "dark").read_bytes() == b"nobody knows me"
    assert sites.catalogue.rule_row(sites.rule).state == RuleState.OK
    ended = {row.state for row in sites.catalogue.rows(select(bad_replicas.c.state))}
    assert ended == {BadReplicaState.RECOVERED}
    settle_findings(sites.context)
    assert findings(sites.catalogue.database) == [("DARK", "CONFIRMED", "raw/dark", 2)]
    age_replicas(sites.catalogue.database)
    third = audited(sites.context, root, "IN2P3", dump_of(sites, "IN2P3"), days=0.1)
    assert [third[what] for what in counts] == [0, 1, 0, 0, 0]


def test_an_unmounted_disk_is_held_and_nothing_is_made_again(sites, root):
    sites.settings["audit_brake_files"] = 2
    lines = dump_of(sites, "IN2P3")[:1]
    for days in (3, 1):
        shown = audited(sites.context, root, "IN2P3", lines, days=days)
        assert (shown["state"], shown["missing"]) == (AuditState.HELD, 4)
    sites.repair()
    assert findings(sites.catalogue.database) == []
    assert sites.catalogue.count(storage_audits, state=AuditState.HELD) == 2


def test_a_checksum_of_a_dump_that_is_older_than_the_bytes_is_found_out_by_reading(sites, root):
    """The storage gave a stale digest: the bytes are right, so nothing is declared bad."""
    verify(sites, "SLAC")
    stale = [
        (path, size, "1" if path == "raw/f2" else adler32) for path, size, adler32 in dump_of(sites, "IN2P3")
    ]
    audited(sites.context, root, "IN2P3", stale, days=3)
    assert findings(sites.catalogue.database) == [("WRONG_CHECKSUM", "SEEN", None, 1)]
    sites.settings.clear()
    assert sites.scrub().good == 1
    assert findings(sites.catalogue.database) == []
    assert audited(sites.context, root, "IN2P3", stale, days=1)["declared"] == 0
    assert sites.state("IN2P3", "f2")[0] == "AVAILABLE"


def test_what_was_found_wrong_proves_nothing(sites, root):
    """While it is doubted, no other copy may go because of it."""
    verify(sites, "IN2P3")
    flip(sites.path("IN2P3", "f2"))
    audited(sites.context, root, "IN2P3", dump_of(sites, "IN2P3"), days=3)
    assert sites.state("IN2P3", "f2") == ("AVAILABLE", False)
    assert sites.state("IN2P3", "f1") == ("AVAILABLE", True)


@pytest.mark.parametrize("size", [20, 400])
def test_a_comparison_is_as_many_statements_for_any_number_of_files(catalogue, root, size):
    rse = catalogue.rse("X", attributes={"lfn2pfn_algorithm": "identity"})
    catalogue.files(size, at=[rse])
    age_replicas(catalogue.database)
    names = [f"raw/file-{number:06d}" for number in range(size)]
    lines = [(name, 1000, None) for name in names[size // 2 :]]
    lines += [(f"dark/{number}", 1, None) for number in range(size)]
    audited(catalogue.context, root, "X", lines, days=3, chunk=10_000, brake=1.0)
    with counted_statements(catalogue.database) as statements:
        shown = audited(catalogue.context, root, "X", lines, days=1, chunk=10_000, brake=1.0)
    assert shown["declared"] == size // 2
    assert len(statements) <= 110, len(statements)
