"""Replicas that clients have announced: they come, or their time ends."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    dids,
    evaluation_items,
    events,
    locks,
    lost_files,
    replicas,
    requests,
    rules,
)
from arriero.registry.services import bad_replicas
from arriero.registry.services.bad_replicas import Declaration, Named
from arriero.registry.services.replica_lifetimes import expire_announced
from arriero.registry.services.replicas import StateChange, update_states
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import BadReplicaState, LockState, ReplicaState, RuleState
from support.database import counted_statements

RSE = "SLAC"


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse(RSE)
    return catalogue


def announce(site, *names: str) -> None:
    site.files(RSE, names, state=ReplicaState.COPYING)


def pass_time(site, seconds: float = 86400 + 60) -> None:
    with site.database.transaction() as connection:
        connection.execute(
            update(replicas).where(replicas.c.announced_at.is_not(None)).values(announced_at=after(-seconds))
        )


def states(site) -> dict[str, tuple[str, str | None]]:
    query = select(dids.c.name, replicas.c.state, replicas.c.code).join(
        replicas, replicas.c.file_id == dids.c.id
    )
    return {row["name"]: (row["state"], row["code"]) for row in site.rows(query)}


@pytest.mark.parametrize("known", [False, True])
def test_what_does_not_come_in_time_is_unavailable_with_the_reason(site, known):
    if known:
        site.rse("IN2P3")
        site.files("IN2P3", ["a"])
    announce(site, "a")
    assert expire_announced(site.context) == 0
    pass_time(site, 80000)
    assert expire_announced(site.context) == 0
    pass_time(site)
    assert expire_announced(site.context) == 1
    [row] = site.rows(select(replicas).where(replicas.c.rse_id == 1))
    assert (row["state"], row["code"]) == ("UNAVAILABLE", "announced_too_long")
    assert row["reason"] == "a client announced it and it was not there after 24 h"
    assert row["announced_at"] is None
    [event] = site.rows(select(events.c.payload).where(events.c.event_type == "replica-unavailable"))
    assert (event["payload"]["name"], event["payload"]["rse"]) == ("a", RSE)
    assert expire_announced(site.context) == 0
    # it may come after all
    update_states(site.context, site.root, RSE, [StateChange("raw", "a", ReplicaState.AVAILABLE)])
    assert [row["state"] for row in site.rows(select(replicas))] == ["AVAILABLE"] * (2 if known else 1)


def test_what_came_or_is_copied_by_now_is_left_alone(site):
    announce(site, "came", "copied", "coming")
    site.files(RSE, ["there"])
    update_states(site.context, site.root, RSE, [StateChange("raw", "came", ReplicaState.AVAILABLE)])
    with site.database.transaction() as connection:
        file_id = connection.scalar(select(dids.c.id).where(dids.c.name == "copied"))
        connection.execute(
            requests.insert().values(
                file_id=file_id, destination_id=1, bytes=1, activity="x", priority=3, state="QUEUED"
            )
        )
    pass_time(site)
    assert expire_announced(site.context) == 1
    assert states(site) == {
        "came": ("AVAILABLE", None),
        "copied": ("COPYING", None),
        "coming": ("UNAVAILABLE", "announced_too_long"),
        "there": ("AVAILABLE", None),
    }
    assert site.count(replicas, replicas.c.announced_at.is_not(None)) == 0


def test_rules_that_wait_for_it_look_at_the_file(site):
    announce(site, "a")
    [uuid] = add_rules(site.context, site.root, RuleSpec(RSE, 1), [("raw", "a")])
    with site.database.transaction() as connection:
        rule_id = connection.scalar(select(rules.c.id).where(rules.c.uuid == uuid))
        file_id = connection.scalar(select(dids.c.id))
        row = {"rule_id": rule_id, "file_id": file_id, "rse_id": 1, "bytes": 1000}
        connection.execute(locks.insert().values(**row, state=LockState.REPLICATING))
        connection.execute(update(rules).values(state=RuleState.REPLICATING, locks_replicating=1))
    site.evaluated()
    pass_time(site)
    assert expire_announced(site.context) == 1
    [item] = site.rows(select(evaluation_items))
    assert (item["rule_id"], item["kind"], item["did_id"]) == (rule_id, "FILE", file_id)
    assert site.generation(uuid) is not None


def test_the_last_hope_that_goes_loses_the_file(site):
    site.rse("IN2P3")
    site.files("IN2P3", ["a"])
    announce(site, "a")
    bad = Declaration(BadReplicaState.BAD, "truncated")
    bad_replicas.declare(site.context, site.root, [Named("raw", "a", "IN2P3")], bad)
    assert site.count(lost_files) == 0
    pass_time(site)
    expire_announced(site.context)
    assert site.count(lost_files) == 1


def test_in_batches_of_as_many_statements_for_one_as_for_many(site):
    announce(site, *(f"f{number}" for number in range(30)))
    pass_time(site)
    with counted_statements(site.database) as few:
        assert expire_announced(site.context, limit=2) == 2
    with counted_statements(site.database) as many:
        assert expire_announced(site.context, limit=20) == 20
    assert len(few) == len(many)
    assert expire_announced(site.context) == 8
