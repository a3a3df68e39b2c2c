"""The scrubber on real storages: it reads bytes, tells what is wrong twice, and real workers make it good again."""

from __future__ import annotations

import os
from unittest.mock import Mock

import pytest
from sqlalchemy import func, insert, select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import bad_replicas, replica_checks, scrubbed_rses, storage_findings
from arriero.registry.services.storage_findings import settle_findings
from arriero.registry.states import BadReplicaState, ReplicaState, RuleState
from arriero.rse.davserver import READ_RATHER_THAN_ASK
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.scrub import Scrubber, ScrubSummary
from arriero.scheduler.transfer import TransferRunner
from support.audited import DAY_S, age, age_replicas, findings
from support.installation import wait_until
from support.rse_copies import pool
from support.rse_endpoints import endpoint_of
from support.scheduling import dids, events, locks, replicas, requests
from support.storage_sites import Sites, add_file, anywhere, flip, sites

__all__ = ["anywhere", "pool", "sites"]


def test_what_is_read_and_right_is_verified(sites):
    summary = sites.scrub()
    assert (summary.good, summary.wrong, summary.unknown) == (10, 0, 0)
    assert (sites.verified("SLAC"), sites.verified("IN2P3")) == (5, 5)
    assert sites.catalogue.count(replica_checks) == 0
    # nothing has become of them: an audit goes on judging them
    assert sites.catalogue.one(select(func.max(replicas.c.updated_at) < after(-DAY_S)))[0]
    read = {row.rse_id: (row.files, row.bytes) for row in sites.catalogue.rows(select(scrubbed_rses))}
    assert read[sites.ids["SLAC"]] == (5, sum(map(len, sites.contents.values())))
    # all of it was verified lately
    assert sites.scrub() == ScrubSummary()


def test_a_flipped_bit_is_found_and_the_file_made_again(anywhere):
    """D3: bit rot at rest, which neither time nor size nor the storage's own digest tells of."""
    sites = anywhere
    flip(sites.path("IN2P3", "f2"))
    first = sites.scrub()
    assert (first.good, first.wrong, first.declared) == (9, 1, 0)
    assert sites.state("IN2P3", "f2") == ("AVAILABLE", False)
    again = sites.scrub()
    assert (again.wrong, again.declared) == (1, 1)
    assert sites.state("IN2P3", "f2") == ("BAD", False)
    said = sites.catalogue.one(select(bad_replicas))
    assert (
        said.reason == "its checksum at the storage is not that of the catalogue: its bytes were read twice"
    )
    assert "replica-bad" in sites.catalogue.event_types()
    sites.repair()
    assert sites.path("IN2P3", "f2").read_bytes() == sites.contents["f2"]
    assert sites.state("IN2P3", "f2") == ("AVAILABLE", True)
    assert sites.catalogue.rule_row(sites.rule).state == RuleState.OK
    assert sites.catalogue.one(select(bad_replicas.c.state)).state == BadReplicaState.RECOVERED
    settle_findings(sites.context)
    assert findings(sites.catalogue.database) == []


def test_a_file_that_was_replaced_by_one_of_its_size_is_found(sites):
    """D24: the Butler keeps sizes only, so nothing else would notice."""
    sites.path("IN2P3", "f1").write_bytes(b"?" * len(sites.contents["f1"]))
    sites.scrub()
    sites.scrub()
    assert sites.state("IN2P3", "f1") == ("BAD", False)
    sites.repair()
    assert sites.path("IN2P3", "f1").read_bytes() == sites.contents["f1"]


def test_short_and_missing_files_are_found_and_made_again(anywhere):
    sites = anywhere
    content = sites.contents["f0"]
    sites.path("IN2P3", "f0").write_bytes(content[:-1])
    sites.path("IN2P3", "f3").unlink()
    sites.scrub()
    assert {row[:2] for row in findings(sites.catalogue.database)} == {
        ("WRONG_SIZE", "SEEN"),
        ("MISSING", "SEEN"),
    }
    assert sites.scrub().declared == 2
    sites.repair()
    for name in ("f0", "f3"):
        assert sites.path("IN2P3", name).read_bytes() == sites.contents[name]
        assert sites.state("IN2P3", name) == ("AVAILABLE", True)


def test_two_looks_have_to_be_apart_and_agree(sites):
    flip(sites.path("IN2P3", "f2"))
    sites.scrubber().run()
    with sites.catalogue.database.transaction() as tx:
        tx.execute(update(replica_checks).values(not_before=after(-1)))
    assert sites.scrubber().run().declared == 0
    flip(sites.path("IN2P3", "f2"))
    assert sites.scrub() == ScrubSummary()
    assert sites.scrub().good == 1
    assert findings(sites.catalogue.database) == []
    assert sites.state("IN2P3", "f2") == ("AVAILABLE", True)


def test_a_wrong_catalogue_is_suspected_and_nothing_declared_bad(sites):
    """D4: every copy has other bytes than the catalogue says, and the same."""
    with sites.catalogue.database.transaction() as tx:
        tx.execute(update(dids).where(dids.c.name == "f4").values(adler32="00000001"))
    for _ in range(3):
        assert sites.scrub().declared == 0
    rows = sites.catalogue.rows(select(storage_findings))
    assert {(row.kind.value, row.state.value) for row in rows} == {("WRONG_CHECKSUM", "SUSPECTED")}
    assert {row.code for row in rows} <= {"catalogue_suspected", "no_proven_copy"}
    assert {row.state for row in sites.catalogue.rows(select(bad_replicas.c.state))} == {
        BadReplicaState.SUSPICIOUS
    }
    assert sites.state("SLAC", "f4") == sites.state("IN2P3", "f4") == ("AVAILABLE", False)
    assert sites.scrub() == ScrubSummary()


def test_a_doubt_ends_when_another_copy_is_verified(sites):
    """The other copy cannot be read at first: nobody knows who is right."""
    flip(sites.path("IN2P3", "f2"))
    sites.path("SLAC", "f2").rename(sites.path("SLAC", "away"))
    sites.path("SLAC", "f2").symlink_to("away")
    for _ in range(2):
        sites.scrub()
    assert findings(sites.catalogue.database) == [("WRONG_CHECKSUM", "SUSPECTED", None, 2)]
    sites.path("SLAC", "away").rename(sites.path("SLAC", "f2"))
    sites.scrub()
    assert sites.state("SLAC", "f2") == ("AVAILABLE", True)
    assert settle_findings(sites.context) == 1
    assert sites.state("IN2P3", "f2") == ("BAD", False)


def test_a_file_that_vanishes_from_its_source(sites):
    """D8: bad only after two looks, ten minutes apart, at a storage that is well; then the rule says why it waits."""
    catalogue = sites.catalogue
    sites.settings.clear()
    third = catalogue.rse(
        "CC",
        protocol={
            "scheme": "file",
            "hostname": "",
            "port": 0,
            "prefix": str(sites.folders["SLAC"].parent / "CC"),
        },
    )
    (sites.folders["SLAC"].parent / "CC").mkdir()
    only = add_file(catalogue, "only", b"the only copy")
    catalogue.replicas([only], sites.ids["SLAC"], size=13)
    age_replicas(catalogue.database)
    rule = catalogue.rule(only, "CC")
    Evaluator(sites.context).run()
    assert TransferRunner(sites.context, pool=sites.pool).run().done == 0
    assert catalogue.one(select(requests.c.code)).code == "not_found"
    for declared in (0, 1):
        assert sites.scrub().declared == declared
    row = catalogue.one(
        select(replicas).where(replicas.c.file_id == only, replicas.c.rse_id == sites.ids["SLAC"])
    )
    assert row.state == ReplicaState.BAD
    lock = catalogue.one(select(locks).where(locks.c.rule_id == rule))
    assert (lock.state, lock.rse_id) == ("STUCK", third)
    assert "LOST" in catalogue.event_types()
    catalogue.check_invariants()
    assert catalogue.count(events, event_type="LOST") == 1


def test_a_disk_that_is_not_mounted_proves_nothing(sites):
    away = sites.folders["IN2P3"].rename(sites.folders["IN2P3"].parent / "unmounted")
    # nothing where it was mounted: the mount point stays
    sites.folders["IN2P3"].mkdir()
    summary = sites.scrub()
    assert (summary.good, summary.wrong, summary.unknown) == (5, 0, 5)
    row = sites.catalogue.one(select(scrubbed_rses).where(scrubbed_rses.c.rse_id == sites.ids["IN2P3"]))
    assert row.code == "rse_doubted"
    sites.folders["IN2P3"].rmdir()
    assert sites.scrub().unknown == 5
    away.rename(sites.folders["IN2P3"])
    assert sites.scrub().good == 5
    row = sites.catalogue.one(select(scrubbed_rses).where(scrubbed_rses.c.rse_id == sites.ids["IN2P3"]))
    assert row.code is None
    assert findings(sites.catalogue.database) == []


def test_many_missing_at_once_are_not_believed(sites):
    sites.settings["audit_brake_files"] = 2
    for name in ("f0", "f1", "f2"):
        sites.path("IN2P3", name).unlink()
    assert sites.scrub().wrong == 0
    sites.path("IN2P3", "f2").write_bytes(sites.contents["f2"])
    assert sites.scrub().wrong == 2


def test_the_longest_verified_come_first_and_at_a_pace(sites):
    """Bytes a second, as many as fit into a round, and no second round before they are paid for."""
    sites.settings.update(scrub_bytes_per_s=1000.0, sweep_s=2.5)
    with sites.catalogue.database.transaction() as tx:
        tx.execute(update(replicas).values(verified_at=after(-100 * DAY_S), updated_at=replicas.c.updated_at))
        for name, days in (("f3", 300), ("f1", 200), ("f0", 10)):
            tx.execute(
                update(replicas)
                .where(replicas.c.file_id == sites.files[name])
                .values(verified_at=after(-days * DAY_S), updated_at=replicas.c.updated_at)
            )
        never = (replicas.c.file_id == sites.files["f4"], replicas.c.rse_id == sites.ids["SLAC"])
        tx.execute(update(replicas).where(*never).values(verified_at=None, updated_at=replicas.c.updated_at))

    def read_at(rse: str) -> set[str]:
        query = (
            select(dids.c.name)
            .join(replicas, replicas.c.file_id == dids.c.id)
            .where(replicas.c.rse_id == sites.ids[rse], replicas.c.verified_at > after(-3600))
        )
        return {row.name for row in sites.catalogue.rows(query)}

    assert sites.scrubber().run().good == 4
    assert read_at("SLAC") == {"f4", "f3"}
    assert read_at("IN2P3") == {"f3", "f1"}
    for _ in range(2):
        assert sites.scrubber().run() == ScrubSummary()
    with sites.catalogue.database.transaction() as tx:
        tx.execute(update(scrubbed_rses).values(next_at=after(-1)))
    assert sites.scrubber().run().good == 4
    assert read_at("SLAC") == {"f4", "f3", "f1", "f2"}
    with sites.catalogue.database.transaction() as tx:
        tx.execute(update(scrubbed_rses).values(next_at=after(-1)))
    sites.scrubber().run()
    # verified ten days ago
    assert "f0" not in read_at("SLAC")


def test_without_a_pace_only_what_is_doubted_is_read(sites):
    sites.settings.clear()
    assert sites.scrub() == ScrubSummary()
    with sites.catalogue.database.transaction() as tx:
        for name, state in (("f0", BadReplicaState.SUSPICIOUS), ("f1", BadReplicaState.RECOVERED)):
            values = {"file_id": sites.files[name], "rse_id": sites.ids["IN2P3"], "state": state}
            tx.execute(insert(bad_replicas).values(**values))
    assert sites.scrub().good == 1
    assert sites.state("IN2P3", "f0") == ("AVAILABLE", True)
    # it was answered
    assert sites.catalogue.count(bad_replicas, state=BadReplicaState.RECOVERED) == 2
    assert sites.scrub() == ScrubSummary()


def test_two_scrubbers_read_nothing_twice(sites):
    """The second one comes while the first one reads at SLAC."""
    first, seconds = sites.scrubber(), []
    look = first._look

    def meanwhile(rse, checks):
        if not seconds:
            seconds.append(sites.scrubber().run())
        return look(rse, checks)

    first._look = meanwhile
    summary = first.run()
    assert (summary.good, seconds[0].good) == (5, 5)
    assert (sites.verified("SLAC"), sites.verified("IN2P3")) == (5, 5)


def test_what_a_dead_scrubber_held_is_read_when_its_lease_has_run_out(sites, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Scrubber, "_look", Mock(side_effect=KeyboardInterrupt))
        sites.scrubber().run()
    assert sites.scrub().good == 5
    age(sites.catalogue.database, replica_checks, 3600, "lease_until")
    assert sites.scrub().good == 5
    assert (sites.verified("SLAC"), sites.verified("IN2P3")) == (5, 5)


def test_a_replica_that_changes_while_it_is_read_is_not_judged(sites):
    flip(sites.path("IN2P3", "f2"))
    scrubber = sites.scrubber()
    original = scrubber._look

    def look(rse, checks):
        looked = original(rse, checks)
        sites.catalogue.set_replica(sites.files["f2"], sites.ids["IN2P3"], ReplicaState.AVAILABLE)
        return looked

    scrubber._look = look
    summary = scrubber.run()
    assert (summary.good, summary.wrong) == (9, 0)
    assert sites.catalogue.count(replica_checks) == 0
    assert findings(sites.catalogue.database) == []


def test_a_trusted_digest_saves_the_reading(catalogue, services, pool, tmp_path):
    """Where the RSE says so, and not of what is doubted: XRootD's digest is older than the bytes here."""
    server = services.xrootd_in2p3
    folder = tmp_path.name
    writing = pool.get(endpoint_of(server, folder=folder))
    writing.make_parents("raw/f")
    # smaller files are read rather than asked for on a server whose digests may end it
    content = b"as it was" * (READ_RATHER_THAN_ASK // 9 + 1)
    writing.write("raw/f", [content], len(content))
    path = server.data_dir / folder / "raw" / "f"
    wait_until(lambda: "user.XrdCks.adler32" in os.listxattr(path), "the digest is stored")
    protocol = {
        "scheme": "http",
        "hostname": "127.0.0.1",
        "port": server.port,
        "prefix": f"{server.prefix}/{folder}",
    }
    attributes = {"lfn2pfn_algorithm": "identity", "scrub_by_digest": "true"}
    rse = catalogue.rse("IN2P3", protocol=protocol, attributes=attributes)
    file = add_file(catalogue, "f", content)
    catalogue.replicas([file], rse, size=len(content))
    age_replicas(catalogue.database)
    sites = Sites(catalogue, {}, {"IN2P3": rse}, {}, {"f": file}, 0, pool)
    assert sites.scrub().good == 1
    flip(path)
    with catalogue.database.transaction() as tx:
        tx.execute(update(replicas).values(verified_at=None, updated_at=replicas.c.updated_at))
    assert sites.scrub().good == 1
    with catalogue.database.transaction() as tx:
        values = {"file_id": file, "rse_id": rse, "state": BadReplicaState.SUSPICIOUS}
        tx.execute(insert(bad_replicas).values(**values))
    assert sites.scrub().wrong == 1
