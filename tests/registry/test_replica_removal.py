"""Taking replicas away by hand: nothing that somebody holds, and never the last good copy."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, select, text, update

from arriero.registry.errors import Conflict, NotAllowed, NotFound
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import (
    arrivals,
    bad_replicas,
    butler_rses,
    butler_selections,
    butlers,
    dids,
    events,
    locks,
    replicas,
    requests,
    rses,
    rules,
)
from arriero.registry.services import bad_replicas as bad_service
from arriero.registry.services import replica_removal as service
from arriero.registry.services.bad_replicas import Declaration, Named
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import ArrivalState, BadReplicaState, LockState, ReplicaState, RequestState
from support.database import counted_statements

HERE, THERE = "SLAC_RAW_DISK", "IN2P3_RAW_DISK"


def prepared(catalogue):
    catalogue.scope()
    catalogue.rse(HERE)
    catalogue.rse(THERE)
    return catalogue


@pytest.fixture
def site(catalogue):
    return prepared(catalogue)


def delete(site, *names: str, rse: str = HERE, actor=None) -> None:
    service.delete_replicas(site.context, actor or site.root, rse, [("raw", name) for name in names])


def at(site, name: str) -> list[str]:
    query = (
        select(rses.c.name)
        .join(replicas, replicas.c.rse_id == rses.c.id)
        .join(dids, dids.c.id == replicas.c.file_id)
        .where(dids.c.name == name)
        .order_by(rses.c.id)
    )
    return [row["name"] for row in site.rows(query)]


def lock_rows(site, uuid, name: str) -> dict[str, int]:
    with site.database.snapshot() as connection:
        rule_id = connection.scalar(select(rules.c.id).where(rules.c.uuid == uuid))
        file_id = connection.scalar(select(dids.c.id).where(dids.c.name == name))
    return {"rule_id": rule_id, "file_id": file_id, "rse_id": 1, "bytes": 1000}


def feed(site) -> int:
    """A butler that takes everything from both RSEs."""
    with site.database.transaction() as connection:
        values = {"name": "repo", "uri": "/repo", "transfer": "direct", "instruments": []}
        butler_id = connection.scalar(insert(butlers).values(**values).returning(butlers.c.id))
        for rse_id in (1, 2):
            connection.execute(insert(butler_rses).values(butler_id=butler_id, rse_id=rse_id))
        selection = {"butler_id": butler_id, "scope_id": 1, "name_like": "%"}
        connection.execute(insert(butler_selections).values(**selection))
    return butler_id


def test_what_nobody_holds_and_is_elsewhere_goes(site):
    site.files(HERE, ["a", "b"])
    site.files(THERE, ["a", "b"])
    delete(site, "a", "a")
    assert (at(site, "a"), at(site, "b")) == ([THERE], [HERE, THERE])
    assert site.count(dids) == 2
    [event] = site.rows(select(events).where(events.c.event_type == "replica-removed"))
    assert event["payload"] == {"scope": "raw", "name": "a", "rse": HERE, "bytes": 1000}
    assert site.audited(action="replica_delete")[0]["detail"] == {"rse": HERE, "count": 1}


def test_the_last_good_copy_stays(site):
    site.files(HERE, ["a", "b"])
    site.files(THERE, ["a"], state=ReplicaState.COPYING)
    site.files(THERE, ["b"])
    with pytest.raises(Conflict, match="raw:a at SLAC_RAW_DISK is the last good one") as refused:
        delete(site, "b", "a")
    assert (refused.value.rucio_class, refused.value.stable_code) == ("UnsupportedOperation", "last_replica")
    assert at(site, "b") == [HERE, THERE]
    with site.database.transaction() as connection:
        connection.execute(update(replicas).values(state=ReplicaState.TEMPORARY_UNAVAILABLE))
    with pytest.raises(Conflict, match="last good"):
        delete(site, "b")


def test_a_verified_copy_goes_only_for_another_that_was_verified(site):
    for rse in (HERE, THERE):
        site.files(rse, ["a"])
    with site.database.transaction() as connection:
        connection.execute(update(replicas).where(replicas.c.rse_id == 1).values(verified_at=now()))
    with pytest.raises(Conflict, match="verify another copy"):
        delete(site, "a")
    delete(site, "a", rse=THERE)
    assert at(site, "a") == [HERE]


def test_what_a_rule_holds_stays(site):
    for rse in (HERE, THERE):
        site.files(rse, ["a"])
    [uuid] = add_rules(site.context, site.root, RuleSpec(HERE, 1), [("raw", "a")])
    with site.database.transaction() as connection:
        connection.execute(insert(locks).values(**lock_rows(site, uuid, "a"), state=LockState.OK))
    for attempt in (lambda: delete(site, "a"), lambda: bury(site, "a")):
        with pytest.raises(Conflict, match="held by a rule") as refused:
            attempt()
        assert refused.value.rucio_class == "ReplicaIsLocked"
    assert at(site, "a") == [HERE, THERE]


def bury(site, *names: str, rse: str = HERE) -> None:
    service.set_tombstones(site.context, site.root, [Named("raw", name, rse) for name in names])


@pytest.mark.parametrize("state", [RequestState.QUEUED, RequestState.SUBMITTED])
def test_what_is_being_copied_stays(site, state):
    site.files(THERE, ["a"])
    site.files(HERE, ["a"], state=ReplicaState.COPYING)
    with site.database.transaction() as connection:
        values = {
            "file_id": 1,
            "destination_id": 1,
            "bytes": 1,
            "activity": "x",
            "priority": 3,
            "state": state,
        }
        connection.execute(insert(requests).values(**values))
    with pytest.raises(Conflict, match="is being copied"):
        delete(site, "a")
    with site.database.transaction() as connection:
        connection.execute(update(requests).values(state=RequestState.FAILED))
    delete(site, "a")
    assert site.count(requests) == 0


@pytest.mark.parametrize(
    ("state", "stays"),
    [
        (ArrivalState.INGESTED, True),
        (ArrivalState.LEASED, True),
        (ArrivalState.PENDING, False),
        (ArrivalState.PARKED, False),
        (ArrivalState.FAILED, False),
        (ArrivalState.RELEASED, False),
    ],
)
def test_what_a_butler_refers_to_stays_until_it_lets_go(site, state, stays):
    feed(site)
    site.files(HERE, ["a"])
    site.files(THERE, ["a"])
    with site.database.transaction() as connection:
        connection.execute(update(arrivals).values(state=state))
    if stays:
        with pytest.raises(Conflict, match="release it first") as refused:
            delete(site, "a")
        assert refused.value.rucio_class == "ReplicaIsLocked"
        assert site.rows(select(arrivals.c.rse_id, arrivals.c.state)) == [{"rse_id": 1, "state": state}]
        return
    delete(site, "a")
    [arrival] = site.rows(select(arrivals))
    # what the butler does not have yet comes from where the file still is
    expected = (1, state) if state is ArrivalState.RELEASED else (2, ArrivalState.PENDING)
    assert (arrival["rse_id"], arrival["state"]) == expected


def test_a_bad_replica_goes_and_its_declaration_ends(site):
    site.files(HERE, ["a"])
    bad_service.declare(site.context, site.root, [Named("raw", "a", HERE)], Declaration(BadReplicaState.BAD))
    delete(site, "a")
    assert at(site, "a") == []
    assert [row["state"] for row in site.rows(select(bad_replicas.c.state))] == ["DELETED"]


def test_what_is_not_there_is_refused_with_all_of_its_call(site):
    for rse in (HERE, THERE):
        site.files(rse, ["a"])
    for attempt, rucio_class in (
        (lambda: delete(site, "a", "missing"), "ReplicaNotFound"),
        (lambda: bury(site, "a", "missing"), "ReplicaNotFound"),
        (lambda: delete(site, "a", rse="NOWHERE"), "RSENotFound"),
        (lambda: bury(site, "a", rse="NOWHERE"), "RSENotFound"),
        (lambda: service.delete_replicas(site.context, site.root, HERE, [("none", "a")]), "ScopeNotFound"),
    ):
        with pytest.raises(NotFound) as refused:
            attempt()
        assert refused.value.rucio_class == rucio_class
    other = site.account("other")
    with pytest.raises(NotAllowed):
        delete(site, "a", actor=other)
    assert at(site, "a") == [HERE, THERE]
    delete(site)


def test_a_tombstone_is_due_at_once(site):
    site.files(HERE, ["a", "b"])
    bury(site, "a")
    rows = site.rows(select(replicas.c.tombstone, replicas.c.purge).order_by(replicas.c.file_id))
    assert [(row["tombstone"] is not None, row["purge"]) for row in rows] == [(True, True), (False, None)]


def test_as_many_statements_for_a_thousand_as_for_ten(site):
    counts = []
    for number in (10, 1000):
        names = [f"{number}/{i}" for i in range(number)]
        for rse in (HERE, THERE):
            site.files(rse, names)
        with counted_statements(site.database) as statements:
            delete(site, *names)
        counts.append(len(statements))
    assert counts[0] == counts[1] < 30


@pytest.fixture
def races(postgresql_catalogue):
    return prepared(postgresql_catalogue)


def waiting(site) -> bool:
    with site.database.snapshot() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return bool(connection.scalar(text(query)))


def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_who_take_away_the_two_copies_leave_one(races):
    for rse in (HERE, THERE):
        races.files(rse, ["a"])
    with ThreadPoolExecutor(1) as pool:
        with races.database.transaction() as connection:
            # the first of the two, held before its commit
            connection.execute(select(dids.c.id).with_for_update(key_share=True)).all()
            connection.execute(replicas.delete().where(replicas.c.rse_id == 1))
            running = pool.submit(delete, races, "a", rse=THERE)
            until(lambda: waiting(races))
        with pytest.raises(Conflict, match="last good"):
            running.result(10)
    assert at(races, "a") == [THERE]


def test_a_lock_that_comes_meanwhile_keeps_the_replica(races):
    for rse in (HERE, THERE):
        races.files(rse, ["a"])
    [uuid] = add_rules(races.context, races.root, RuleSpec(HERE, 1), [("raw", "a")])
    row = lock_rows(races, uuid, "a")
    with ThreadPoolExecutor(1) as pool:
        with races.database.transaction() as connection:
            # as an evaluation does: the replica's row, then the lock
            connection.execute(
                select(replicas.c.file_id).where(replicas.c.rse_id == 1).with_for_update()
            ).all()
            connection.execute(insert(locks).values(**row, state=LockState.OK))
            running = pool.submit(delete, races, "a")
            until(lambda: waiting(races))
        with pytest.raises(Conflict, match="held by a rule"):
            running.result(10)


def test_an_agent_that_claims_meanwhile_keeps_the_replica(races):
    feed(races)
    for rse in (HERE, THERE):
        races.files(rse, ["a"])
    with ThreadPoolExecutor(1) as pool:
        with races.database.transaction() as connection:
            connection.execute(update(arrivals).values(state=ArrivalState.LEASED, lease_owner="w"))
            running = pool.submit(delete, races, "a")
            until(lambda: waiting(races))
        with pytest.raises(Conflict, match="release it first"):
            running.result(10)
    assert races.count(arrivals) == 1
