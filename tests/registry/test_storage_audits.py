"""Audits of storages against the catalogue: what is judged, what is believed, and what is done about it."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from sqlalchemy import delete, select, update

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    audit_log,
    bad_replicas,
    lost_files,
    quarantined_replicas,
    replicas,
    storage_audit_lines,
    storage_audits,
    storage_findings,
)
from arriero.registry.services import audit_comparison, quarantine
from arriero.registry.services import storage_audits as service
from arriero.registry.services.audit_comparison import compare
from arriero.registry.services.authorisation import Denied
from arriero.registry.services.bad_replicas import Sayer
from arriero.registry.services.storage_findings import act, list_findings, settle_findings
from arriero.registry.states import AuditSource, AuditState, BadReplicaState, ReplicaState, Role
from arriero.rse.lfn2pfn import path_for
from support.audited import age_replicas, audited, days_ago, findings, lines_of

RSE, OTHER = "IN2P3", "SLAC"
FILES = [f"f{number}" for number in range(6)]
GOOD = {"size": 1000, "adler32": "0000002a"}


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    for rse in (RSE, OTHER):
        catalogue.rse(rse)
        catalogue.files(rse, FILES)
    age_replicas(catalogue.database)
    return catalogue


def verify(site, rse: str = OTHER) -> None:
    """Have every replica at an RSE be verified."""
    rse_id = {OTHER: 2, RSE: 1}[rse]
    with site.database.transaction() as connection:
        connection.execute(
            update(replicas)
            .where(replicas.c.rse_id == rse_id)
            .values(verified_at=now(), updated_at=replicas.c.updated_at)
        )


def audit(site, lines, **options):
    return audited(site.context, site.root, RSE, lines, **options)


def states(site) -> dict[str, str]:
    query = (
        select(replicas.c.file_id, replicas.c.state)
        .where(replicas.c.rse_id == 1)
        .order_by(replicas.c.file_id)
    )
    return {f"f{row['file_id'] - 1}": row["state"] for row in site.rows(query)}


def test_a_storage_that_has_what_the_catalogue_says_is_whole(site):
    shown = audit(site, lines_of(FILES, **GOOD), days=1)
    assert shown["state"] == AuditState.COMPARED
    assert (shown["lines"], shown["judged"]) == (6, 6)
    assert [shown[what] for what in ("missing", "dark", "wrong_size", "wrong_checksum", "declared")] == [
        0
    ] * 5
    assert findings(site.database) == []


def test_nothing_is_acted_on_before_it_was_seen_twice_a_day_apart(site):
    """D26: missing and dark files, planted; the rule of two dumps."""
    verify(site)
    lines = [*lines_of(FILES[1:5], **GOOD), *lines_of(["f5"], size=999), ("stray/x", 7, None)]
    first = audit(site, lines, days=3)
    assert (first["missing"], first["dark"], first["wrong_size"], first["declared"]) == (1, 1, 1, 0)
    assert {row[1] for row in findings(site.database)} == {"SEEN"}
    # half a day later: too soon
    soon = audit(site, lines, days=2.5)
    assert soon["declared"] == 0
    assert {row[1:] for row in findings(site.database)} == {("SEEN", None, 2), ("SEEN", "stray/x", 2)}
    assert set(states(site).values()) == {ReplicaState.AVAILABLE}
    assert audit(site, lines, days=1)["declared"] == 2
    assert states(site) == {
        **dict.fromkeys(FILES, ReplicaState.AVAILABLE),
        "f0": ReplicaState.BAD,
        "f5": ReplicaState.BAD,
    }
    assert findings(site.database) == [
        ("MISSING", "DECLARED", None, 3),
        ("WRONG_SIZE", "DECLARED", None, 3),
        ("DARK", "CONFIRMED", "stray/x", 3),
    ]
    said = {row["reason"] for row in site.rows(select(bad_replicas.c.reason))}
    assert said == {
        "it is not at the storage: audit 3 confirmed it",
        "its size at the storage is not that of the catalogue: audit 3 confirmed it",
    }
    assert site.count(lost_files) == 0
    assert site.count(audit_log, audit_log.c.action == "replica_declare") == 2


def test_what_was_found_is_listed_with_both_values(site):
    audit(site, [*lines_of(FILES[1:], size=999, adler32="ff"), ("stray/x", 7, None)], days=1)
    rows = list(list_findings(site.context, rse=RSE))
    shown = [
        (row["kind"], row["scope"], row["name"], row["path"], row["bytes"], row["catalogue_bytes"])
        for row in rows
    ]
    assert shown[0] == ("MISSING", "raw", "f0", "raw/f0", None, 1000)
    assert shown[1] == ("WRONG_SIZE", "raw", "f1", "raw/f1", 999, 1000)
    assert shown[-1] == ("DARK", None, None, "stray/x", 7, None)
    assert [row["kind"] for row in list_findings(site.context, rse=RSE, kind="DARK")] == ["DARK"]
    assert list(list_findings(site.context, rse=OTHER)) == []
    with pytest.raises(NotFound):
        list(list_findings(site.context, rse="NOWHERE"))


def test_what_is_well_again_begins_anew(site):
    audit(site, lines_of(FILES[1:]), days=5)
    audit(site, lines_of(FILES), days=4)
    assert findings(site.database) == []
    assert audit(site, lines_of(FILES[1:]), days=2)["declared"] == 0
    # something else of the same file is something new
    assert audit(site, lines_of(["f0"], size=1) + lines_of(FILES[1:]), days=0.5)["declared"] == 0
    assert findings(site.database) == [("WRONG_SIZE", "SEEN", None, 1)]


def test_what_changed_around_the_moment_of_the_dump_is_not_judged(site):
    site.files(RSE, ["new"])
    shown = audit(site, lines_of(FILES), days=0.5)
    assert (shown["judged"], shown["missing"]) == (6, 0)
    with site.database.transaction() as connection:
        connection.execute(
            update(replicas).where(replicas.c.file_id == 1).values(state=ReplicaState.UNAVAILABLE)
        )
        connection.execute(delete(replicas).where(replicas.c.file_id == 2))
    begun = service.begin(site.context, site.root, RSE, AuditSource.WALK)
    service.add_lines(site.context, site.root, begun.id, 0, lines_of([*FILES[2:], "later"]))
    # registered after its line had come, and one deleted
    site.files(RSE, ["later"])
    with site.database.transaction() as connection:
        connection.execute(delete(replicas).where(replicas.c.file_id == 3))
    shown = compare(site.context, site.root, begun.id)
    assert [shown[what] for what in ("judged", "missing", "dark")] == [3, 0, 0]


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        ([], "empty", "is it mounted"),
        (lines_of(["x0"]), "too_many", "6 of 6 are missing, more than 5%"),
        (lines_of(FILES, size=3), "too_many", "6 of 6 are wrong"),
        (lines_of([*FILES, *(f"dark{number}" for number in range(9))]), "too_many", "9 of 15 are dark"),
    ],
)
def test_an_audit_that_finds_too_much_counts_for_nothing(site, lines, code, said):
    """D27: with an older catalogue masses of files look dark; with a disk that is not mounted, missing."""
    site.context.settings.__dict__["audit_brake_files"] = 2
    for days in (4, 2):
        shown = audit(site, lines, days=days)
        assert (shown["state"], shown["code"], shown["declared"]) == (AuditState.HELD, code, None)
        assert said in shown["reason"]
    assert findings(site.database) == []
    assert set(states(site).values()) == {ReplicaState.AVAILABLE}


def test_an_administrator_may_believe_it_nevertheless(site):
    site.context.settings.__dict__["audit_brake_files"] = 2
    lines = lines_of(FILES[3:])
    assert audit(site, lines, days=4)["state"] == AuditState.HELD
    assert audit(site, lines, days=3, brake=1.0)["missing"] == 3
    assert audit(site, lines, days=1, brake=1.0)["declared"] == 3
    agent = site.account("agent", Role.SITE_AGENT)
    bound = site.actor("agent", Role.SITE_AGENT, rses=[RSE])
    begun = service.begin(site.context, bound, RSE, AuditSource.WALK)
    with pytest.raises(Denied):
        compare(site.context, bound, begun.id, brake=1.0)
    for refused in (
        lambda: service.begin(site.context, agent, RSE, AuditSource.WALK),
        lambda: service.begin(site.context, bound, OTHER, AuditSource.WALK),
    ):
        with pytest.raises(Denied):
            refused()


def test_a_catalogue_that_is_wrong_is_suspected_and_no_replica_declared_bad(site):
    """D4: every copy differs from the catalogue in the same way."""
    for days in (4, 2):
        for rse in (RSE, OTHER):
            shown = audited(
                site.context, site.root, rse, lines_of(FILES, size=1000, adler32="11"), days=days, brake=1.0
            )
            assert shown["declared"] == 0, rse
    assert {(kind, state) for kind, state, _, _ in findings(site.database)} == {
        ("WRONG_CHECKSUM", "SUSPECTED")
    }
    codes = {row["code"] for row in site.rows(select(storage_findings.c.code))}
    assert codes == {"catalogue_suspected"}
    assert set(states(site).values()) == {ReplicaState.AVAILABLE}
    assert {row["state"] for row in site.rows(select(bad_replicas.c.state))} == {BadReplicaState.SUSPICIOUS}
    assert site.count(bad_replicas) == 12
    # once: not again with each audit
    audit(site, lines_of(FILES, size=1000, adler32="11"), days=0.5, brake=1.0)
    assert site.count(bad_replicas) == 12


def test_a_wrong_checksum_is_believed_when_another_copy_has_been_verified(site):
    lines = [*lines_of(["f0"], size=1000, adler32="11"), *lines_of(FILES[1:], **GOOD)]
    for days in (4, 3):
        assert audit(site, lines, days=days)["declared"] == 0
    assert findings(site.database) == [("WRONG_CHECKSUM", "SUSPECTED", None, 2)]
    verify(site)
    assert audit(site, lines, days=2)["declared"] == 1
    assert states(site)["f0"] == ReplicaState.BAD


def test_the_last_copy_that_is_missing_is_lost_and_found_again(site):
    site.files(RSE, ["only"])
    age_replicas(site.database)
    for days in (4, 2):
        audit(site, lines_of(FILES), days=days)
    assert site.count(lost_files) == 1
    site.files(RSE, ["only"])
    assert site.count(bad_replicas, bad_replicas.c.state == BadReplicaState.RECOVERED) == 1
    assert settle_findings(site.context) == 1
    assert findings(site.database) == []


def test_a_dump_is_used_once_and_in_its_order(site):
    audit(site, lines_of(FILES), days=2)
    for days in (2.1, 3):
        with pytest.raises(Conflict, match="no newer"):
            service.begin(site.context, site.root, RSE, AuditSource.DUMP, days_ago(days))
    with pytest.raises(InvalidInput, match="still to come"):
        service.begin(site.context, site.root, RSE, AuditSource.DUMP, days_ago(-1))
    with pytest.raises(NotFound):
        service.begin(site.context, site.root, "NOWHERE", AuditSource.DUMP, days_ago(1))


def test_lines_come_once_and_in_their_order(site):
    begun = service.begin(site.context, site.root, RSE, AuditSource.WALK)
    with pytest.raises(Conflict, match="chunk 0"):
        service.add_lines(site.context, site.root, begun.id, 1, lines_of(FILES))
    for _ in range(2):
        service.add_lines(site.context, site.root, begun.id, 0, lines_of(FILES[:3]), cursor="raw/f2")
    again = service.resume(site.context, site.root, begun.id)
    assert (again.chunks, again.lines, again.cursor) == (1, 3, "raw/f2")
    aside = [(".arriero-quarantine/20260101T000000/x", 1, None), (".arriero-deletions", 1, None)]
    after = service.add_lines(
        site.context, site.root, begun.id, 1, [*lines_of(FILES[3:]), *aside, ("../x", 1, None)]
    )
    assert (after.chunks, after.lines) == (2, 6)
    with pytest.raises(InvalidInput, match="not an adler32"):
        service.add_lines(site.context, site.root, begun.id, 2, [("raw/f0", 1, "nonsense")])
    shown = compare(site.context, site.root, begun.id)
    assert (shown["lines"], shown["unusable"], shown["dark"], shown["missing"]) == (6, 1, 0, 0)
    with pytest.raises(Conflict, match="begin a new one"):
        compare(site.context, site.root, begun.id)
    assert service.clean_audits(site.context) == 1
    assert (site.count(storage_audit_lines), service.clean_audits(site.context)) == (0, 0)


def test_an_audit_whose_lines_the_database_has_lost_is_not_compared(site):
    begun = service.begin(site.context, site.root, RSE, AuditSource.WALK)
    service.add_lines(site.context, site.root, begun.id, 0, lines_of(FILES))
    with site.database.transaction() as connection:
        connection.execute(delete(storage_audit_lines))
    with pytest.raises(Conflict, match="lost lines"):
        compare(site.context, site.root, begun.id)
    other = service.begin(site.context, site.root, RSE, AuditSource.WALK)
    states_of = [
        row["state"] for row in site.rows(select(storage_audits.c.state).order_by(storage_audits.c.id))
    ]
    assert states_of == [AuditState.ABANDONED, AuditState.RECEIVING]
    with site.database.transaction() as connection:
        connection.execute(update(storage_audits).values(updated_at=days_ago(8)))
    assert service.clean_audits(site.context) == 1
    with pytest.raises(Conflict):
        service.add_lines(site.context, site.root, other.id, 0, [])


def test_what_was_confirmed_and_left_is_acted_on_by_the_sweep(site, monkeypatch):
    audit(site, lines_of(FILES[1:]), days=4)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        # as if it were killed between the comparison and what follows from it
        patch.setattr(audit_comparison, "act", Mock(side_effect=KeyboardInterrupt))
        audit(site, lines_of(FILES[1:]), days=2)
    assert findings(site.database) == [("MISSING", "CONFIRMED", None, 2)]
    assert settle_findings(site.context) == 1
    assert states(site)["f0"] == ReplicaState.BAD


def test_a_replica_that_changed_since_it_was_found_is_left_alone(site):
    for days in (4, 3):
        shown = audit(site, [*lines_of(["f0"], size=1000, adler32="11"), *lines_of(FILES[1:])], days=days)
    assert shown["wrong_checksum"] == 1
    verify(site)
    with site.database.transaction() as connection:
        connection.execute(update(replicas).where(replicas.c.rse_id == 1).values(updated_at=now()))
    assert act(site.context, 1, Sayer()).declared == 0
    assert findings(site.database) == []
    assert states(site)["f0"] == ReplicaState.AVAILABLE


def test_dark_files_are_moved_aside_on_demand(site):
    strays = [("stray/x", 7, None), ("stray/y", 8, None), ("raw/z", 9, None), ("raw/f9", 1, None)]
    for days in (4, 2):
        audit(site, [*lines_of(FILES), *strays], days=days)
    site.files(RSE, ["f9"])
    seen_once = [("once", 1, None)]
    audit(site, [*lines_of(FILES), *strays, *seen_once], days=1)
    ids = [row["id"] for row in list_findings(site.context, rse=RSE, kind="DARK")]
    chosen = quarantine.move_aside(site.context, site.root, RSE, ids)
    assert [one["path"] for one in chosen] == ["raw/z", "stray/x", "stray/y"]
    assert all(one["moved_to"].startswith(".arriero-quarantine/") for one in chosen)
    # seen once only
    assert [row[2] for row in findings(site.database)] == ["once"]
    site.files(RSE, ["z"])
    there, gone = ["stray/x", "raw/z"], ["stray/y"]
    assert quarantine.moved(site.context, site.root, RSE, there=there, not_moved=gone) == ["raw/z"]
    [kept] = site.rows(select(quarantined_replicas))
    assert (kept["path"], kept["bytes"], kept["moved_to"]) == ("stray/x", 7, chosen[1]["moved_to"])


@pytest.mark.parametrize("algorithm", ["hash", "identity", "lsst_butler"])
def test_every_algorithm_and_rses_without_one(catalogue, algorithm):
    catalogue.scope("user.jdoe")
    catalogue.rse("X", algorithm=algorithm)
    names = ["a/b.fits", "c"]
    catalogue.files("X", names, scope="user.jdoe")
    catalogue.rse("TAPE", deterministic=False)
    catalogue.files("TAPE", ["c"], scope="user.jdoe", pfn="davs://dav.example.org:1094/TAPE/elsewhere/c")
    age_replicas(catalogue.database)
    lines = [(path_for(algorithm, "user.jdoe", name), 1000, None) for name in names]
    shown = audited(catalogue.context, catalogue.root, "X", [*lines, ("dark", 1, None)], days=1)
    assert [shown[what] for what in ("judged", "missing", "dark")] == [2, 0, 1]
    shown = audited(catalogue.context, catalogue.root, "TAPE", [("elsewhere/c", 1000, None)], days=1)
    assert [shown[what] for what in ("judged", "missing", "dark")] == [1, 0, 0]
