"""Registering files where they lie: once, whole, and never otherwise than the catalogue knows them."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from arriero.registry.errors import Conflict, InvalidInput, NotFound, Unsupported
from arriero.registry.ports import Bell
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    arrivals,
    butler_rses,
    butler_selections,
    butlers,
    did_meta,
    dids,
    locks,
    replicas,
    rules,
    scopes,
)
from arriero.registry.services import replicas as service
from arriero.registry.services.dataset_replicas import list_dataset_replicas
from arriero.registry.services.replica_lists import ReplicaQuery, list_replicas
from arriero.registry.services.replicas import NewReplica, StateChange
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import LockState, ReplicaState
from support.database import counted_statements

RSE = "SLAC_RAW_DISK"
TABLES = (dids, replicas, did_meta, arrivals)


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse(RSE)
    return catalogue


def state_of(catalogue, name: str) -> str:
    return catalogue.rows(
        select(replicas.c.state).join(dids, dids.c.id == replicas.c.file_id).where(dids.c.name == name)
    )[0]["state"]


def test_registers_files_as_declared_and_unverified(site):
    site.files(RSE, ["a/b.fits", "c d+é%.fits"], adler32="0xABC", md5="D" * 32, meta={"night": 20241108})
    files = site.rows(select(dids).order_by(dids.c.name))
    assert [file["name"] for file in files] == ["a/b.fits", "c d+é%.fits"]
    assert {(file["bytes"], file["adler32"], file["md5"]) for file in files} == {(1000, "00000abc", "d" * 32)}
    assert all(0 <= file["spread"] < 2**31 for file in files)
    made = site.rows(select(replicas))
    assert {(row["state"], row["verified_at"], row["path"]) for row in made} == {("AVAILABLE", None, None)}
    assert {row["meta"]["night"] for row in site.rows(select(did_meta))} == {20241108}
    assert site.doorbell.rung == [Bell.EVALUATIONS]
    assert site.audited(action="replica_add")[0]["detail"] == {"rse": RSE, "count": 2, "new_files": 2}


def test_registering_the_same_again_changes_nothing(site):
    site.files(RSE, ["a.fits", "b.fits"], meta={"x": 1})
    before = site.snapshot_of(*TABLES)
    site.files(RSE, ["a.fits", "b.fits"], adler32="2a", meta={"x": 2})
    assert site.snapshot_of(*TABLES) == before


@pytest.mark.parametrize(
    "other",
    [{"bytes": 1001}, {"adler32": "0000002b"}, {"md5": "0" * 32}],
    ids=["size", "adler32", "md5"],
)
def test_a_file_that_the_catalogue_knows_otherwise_is_refused_with_all_of_its_call(site, other):
    site.files(RSE, ["a.fits"], md5="f" * 32)
    site.rse("IN2P3_RAW_DISK")
    before = site.snapshot_of(*TABLES)
    new = [
        NewReplica("raw", "new.fits", 1, "00000001"),
        NewReplica("raw", "a.fits", **{"bytes": 1000, "adler32": "2a", "md5": "f" * 32, **other}),
    ]
    for rse in (RSE, "IN2P3_RAW_DISK"):
        with pytest.raises(Conflict, match=r"raw:a\.fits") as refused:
            service.add_replicas(site.context, site.root, rse, new)
        assert refused.value.rucio_class == "FileConsistencyMismatch"
    assert site.snapshot_of(*TABLES) == before


def test_a_checksum_that_was_missing_is_learnt(site):
    site.files(RSE, ["a.fits"], adler32=None)
    site.files(RSE, ["a.fits"], adler32="2a")
    assert site.rows(select(dids.c.adler32))[0]["adler32"] == "0000002a"
    with pytest.raises(Conflict):
        site.files(RSE, ["a.fits"], adler32="2b")


@pytest.mark.parametrize(
    "name",
    [
        "../etc/passwd",
        "a/../../b",
        "/absolute",
        "a//b",
        "a/./b",
        "",
        "back\\slash",
        "new\nline",
        "nul\x00",
        "x" * 501,
        "a\u0308",
        "\ud800",
    ],
)
def test_a_name_that_could_leave_its_place_is_refused(site, name):
    before = site.snapshot_of(*TABLES)
    with pytest.raises(InvalidInput):
        site.files(RSE, ["fine.fits", name])
    assert site.snapshot_of(*TABLES) == before


@pytest.mark.parametrize(
    "values", [{"bytes": -1}, {"bytes": None}, {"adler32": "xyz"}, {"md5": "12"}, {"state": ReplicaState.BAD}]
)
def test_values_that_cannot_be_meant_are_refused(site, values):
    before = site.snapshot_of(*TABLES)
    with pytest.raises(InvalidInput):
        site.files(RSE, ["a.fits"], **values)
    assert site.snapshot_of(*TABLES) == before


def test_an_unknown_scope_or_rse_is_refused(site):
    before = site.snapshot_of(*TABLES)
    with pytest.raises(NotFound) as scope:
        site.files(RSE, ["a.fits"], scope="nowhere")
    with pytest.raises(NotFound) as rse:
        site.files("NOWHERE", ["a.fits"])
    assert (scope.value.rucio_class, rse.value.rucio_class) == ("ScopeNotFound", "RSENotFound")
    assert site.snapshot_of(*TABLES) == before


def test_a_file_sent_twice_counts_once_and_must_be_the_same(site):
    site.files(RSE, ["a.fits", "a.fits"])
    assert site.count(replicas) == 1
    twice = [NewReplica("raw", "b.fits", 1), NewReplica("raw", "b.fits", 2)]
    with pytest.raises(InvalidInput, match="twice"):
        service.add_replicas(site.context, site.root, RSE, twice)


def test_a_collection_cannot_become_a_file(site):
    site.dataset("d")
    with pytest.raises(Conflict, match="is a dataset"):
        site.files(RSE, ["d"])


@pytest.mark.parametrize("state", [ReplicaState.COPYING, ReplicaState.UNAVAILABLE])
def test_what_was_announced_becomes_available_when_it_is_declared(site, state):
    site.files(RSE, ["a.fits"], state=state)
    assert state_of(site, "a.fits") == state
    site.files(RSE, ["a.fits"])
    assert state_of(site, "a.fits") == ReplicaState.AVAILABLE
    site.files(RSE, ["a.fits"], state=ReplicaState.COPYING)
    assert state_of(site, "a.fits") == ReplicaState.AVAILABLE


@pytest.mark.parametrize("state", [ReplicaState.BAD, ReplicaState.BEING_DELETED])
def test_a_bad_replica_is_not_declared_good_without_a_proof(site, state):
    site.files(RSE, ["a.fits"])
    with site.database.transaction() as connection:
        connection.execute(replicas.update().values(state=state))
    with pytest.raises(Conflict, match=state):
        site.files(RSE, ["a.fits"], adler32=None)
    assert state_of(site, "a.fits") == state


def test_paths_of_an_rse_that_is_not_deterministic_come_from_pfns(site):
    site.rse("TAPE", deterministic=False)
    pfn = "davs://dav.example.org:1094/TAPE/night%201/a.fits"
    site.files("TAPE", ["a.fits"], pfn=pfn)
    assert site.rows(select(replicas.c.path))[0]["path"] == "night 1/a.fits"
    assert list(next(list_replicas(site.context, ReplicaQuery([("raw", "a.fits")])))["pfns"]) == [pfn]
    with pytest.raises(Conflict, match="another file"):
        site.files("TAPE", ["b.fits"], pfn=pfn)
    with pytest.raises(InvalidInput, match="give the PFN"):
        site.files("TAPE", ["c.fits"])


@pytest.mark.parametrize(
    "pfn",
    [
        "davs://dav.example.org:1094/TAPE/../etc/passwd",
        "davs://dav.example.org:1094/TAPE/%2e%2e/x",
        "davs://dav.example.org:1094/OTHER/a",
        "davs://evil.example.org:1094/TAPE/a",
        "davs://dav.example.org:1/TAPE/a",
        "https://dav.example.org:1094/TAPE/a",
        "davs://user@dav.example.org:1094/TAPE/a",
        "davs://dav.example.org:1094/TAPE/a?token=x",
        "davs://[half/a",
        "file:///etc/passwd",
    ],
)
def test_a_pfn_outside_the_rse_is_refused(site, pfn):
    site.rse("TAPE", deterministic=False)
    with pytest.raises(InvalidInput):
        site.files("TAPE", ["a.fits"], pfn=pfn)
    assert site.count(replicas) == 0


def test_the_pfn_of_a_deterministic_rse_has_to_be_its_own(site):
    site.files(RSE, ["a b.fits"], pfn=f"davs://dav.example.org:1094/{RSE}/raw/a%20b.fits")
    with pytest.raises(InvalidInput, match="not where"):
        site.files(RSE, ["c.fits"], pfn=f"davs://dav.example.org:1094/{RSE}/raw/elsewhere.fits")


def test_two_files_cannot_have_one_path(site):
    site.scope("other")
    site.rse("BUTLER", algorithm="lsst_butler")
    site.files("BUTLER", ["a.fits"])
    with pytest.raises(Conflict, match="another file"):
        site.files("BUTLER", ["a.fits"], scope="other")


@pytest.mark.parametrize("state", ["BAD", "TEMPORARY_UNAVAILABLE", "UNAVAILABLE", "AVAILABLE"])
def test_a_replica_that_comes_again_at_another_path(site, state):
    site.rse("TAPE", deterministic=False)
    folder = "davs://dav.example.org:1094/TAPE"
    site.files("TAPE", ["a.fits"], pfn=f"{folder}/one")
    with site.database.transaction() as connection:
        connection.execute(
            update(replicas).values(state=state, verified_at=None if state == "BAD" else now())
        )
    if state == "AVAILABLE":
        with pytest.raises(Conflict, match="is AVAILABLE at one") as refused:
            site.files("TAPE", ["a.fits"], pfn=f"{folder}/two")
        assert refused.value.rucio_class == "FileReplicaAlreadyExists"
        return
    site.files("TAPE", ["a.fits"], pfn=f"{folder}/two")
    [row] = site.rows(select(replicas))
    assert (row["state"], row["path"]) == ("AVAILABLE", "two")
    assert row["verified_at"] is None, "what was verified lay elsewhere"


def test_what_lands_at_a_butlers_rse_arrives_once(site):
    with site.database.transaction() as connection:
        scope_id = connection.scalar(select(scopes.c.id))
        butler_id = connection.scalar(
            butlers.insert()
            .values(name="repo", uri="/repo", transfer="direct", instruments=[])
            .returning(butlers.c.id)
        )
        connection.execute(butler_rses.insert().values(butler_id=butler_id, rse_id=1))
        connection.execute(
            butler_selections.insert().values(butler_id=butler_id, scope_id=scope_id, name_like="raw/%")
        )
    site.files(RSE, ["raw/a.fits", "other/b.fits"])
    site.files(RSE, ["raw/c.fits"], state=ReplicaState.COPYING)
    site.files(RSE, ["raw/a.fits"])
    assert site.count(arrivals) == 1
    service.update_states(
        site.context, site.root, RSE, [StateChange("raw", "raw/c.fits", ReplicaState.AVAILABLE)]
    )
    assert site.count(arrivals) == 2


def lock(site, uuid, name: str, state: LockState, rse_id: int) -> None:
    with site.database.transaction() as connection:
        rule_id = connection.scalar(select(rules.c.id).where(rules.c.uuid == uuid))
        file_id = connection.scalar(select(dids.c.id).where(dids.c.name == name))
        connection.execute(
            locks.insert().values(rule_id=rule_id, file_id=file_id, rse_id=rse_id, bytes=1, state=state)
        )


@pytest.mark.parametrize(
    ("lock_state", "lock_rse", "woken"),
    [
        (LockState.STUCK, 2, True),
        (LockState.REPLICATING, 1, True),
        (LockState.REPLICATING, 2, False),
        (LockState.OK, 1, False),
    ],
)
def test_a_new_replica_wakes_the_rules_that_wait_for_it(site, lock_state, lock_rse, woken):
    site.rse("IN2P3_RAW_DISK")
    site.files(RSE, ["a.fits"], state=ReplicaState.UNAVAILABLE)
    [uuid] = add_rules(site.context, site.root, RuleSpec("IN2P3_RAW_DISK", 1), [("raw", "a.fits")])
    site.evaluated()
    lock(site, uuid, "a.fits", lock_state, lock_rse)
    site.files(RSE, ["a.fits"])
    assert (site.generation(uuid) is not None) is woken


def test_states_are_changed_as_an_upload_does(site):
    site.files(RSE, ["a", "b"], state=ReplicaState.COPYING)
    changes = [
        StateChange("raw", "a", ReplicaState.AVAILABLE),
        StateChange("raw", "b", ReplicaState.UNAVAILABLE, "the client gave up"),
    ]
    service.update_states(site.context, site.root, RSE, changes)
    assert (state_of(site, "a"), state_of(site, "b")) == (ReplicaState.AVAILABLE, ReplicaState.UNAVAILABLE)
    assert (
        site.rows(select(replicas.c.reason).order_by(replicas.c.file_id))[1]["reason"] == "the client gave up"
    )
    before = site.snapshot_of(replicas)
    with pytest.raises(Conflict):
        service.update_states(
            site.context, site.root, RSE, [StateChange("raw", "a", ReplicaState.UNAVAILABLE)]
        )
    with pytest.raises(NotFound):
        service.update_states(site.context, site.root, RSE, [StateChange("raw", "z", ReplicaState.AVAILABLE)])
    with pytest.raises(Unsupported):
        service.update_states(site.context, site.root, RSE, [StateChange("raw", "a", ReplicaState.COPYING)])
    assert site.snapshot_of(replicas) == before


def test_lists_files_with_replicas_in_collections_at_any_depth(site):
    site.rse("IN2P3_RAW_DISK", site="IN2P3")
    site.files(RSE, ["a", "b"])
    site.files("IN2P3_RAW_DISK", ["b", "c"], state=ReplicaState.COPYING)
    site.dataset("d1", ["a", "b"])
    site.dataset("d2", ["b", "c"])
    site.container("inner", ["d1", "d2"])
    site.container("outer", ["inner", "d1"])
    found = {row["name"]: row for row in list_replicas(site.context, ReplicaQuery([("raw", "outer")]))}
    assert {name: row["states"] for name, row in found.items()} == {
        "a": {RSE: "AVAILABLE"},
        "b": {RSE: "AVAILABLE"},
        "c": {},
    }
    every = ReplicaQuery([("raw", "outer")], all_states=True, rse_expression="site=IN2P3")
    assert {row["name"]: row["states"] for row in list_replicas(site.context, every)} == {
        "a": {},
        "b": {"IN2P3_RAW_DISK": "COPYING"},
        "c": {"IN2P3_RAW_DISK": "COPYING"},
    }
    none = ReplicaQuery([("raw", "a")], schemes=frozenset({"root"}))
    assert [row["pfns"] for row in list_replicas(site.context, none)] == [{}]
    assert list(list_replicas(site.context, ReplicaQuery([("raw", "nothing"), ("nowhere", "a")]))) == []


def test_counts_how_much_of_a_dataset_lies_where(site):
    site.rse("IN2P3_RAW_DISK")
    site.files(RSE, ["a", "b"])
    site.files("IN2P3_RAW_DISK", ["a"])
    site.dataset("d", ["a", "b"])
    rows = {row["rse"]: row for row in list_dataset_replicas(site.context, "raw", "d")}
    assert {rse: (row["available_length"], row["length"], row["state"]) for rse, row in rows.items()} == {
        "IN2P3_RAW_DISK": (1, 2, "UNAVAILABLE"),
        RSE: (2, 2, "AVAILABLE"),
    }


def test_as_many_statements_for_ten_files_as_for_a_thousand(site):
    counts = []
    for number in (10, 1000):
        with counted_statements(site.database) as statements:
            site.files(RSE, [f"{number}/{i}.fits" for i in range(number)], meta={"k": 1})
        with counted_statements(site.database) as again:
            site.files(RSE, [f"{number}/{i}.fits" for i in range(number)], meta={"k": 1})
        counts.append((len(statements), len(again)))
    assert counts[0] == counts[1]
    assert counts[0][0] < 30


def test_more_than_one_call_may_carry_is_refused(site):
    too_many = [NewReplica("raw", f"{i}", 1) for i in range(site.context.settings.max_bulk_items + 1)]
    with pytest.raises(InvalidInput, match="10000"):
        service.add_replicas(site.context, site.root, RSE, too_many)
