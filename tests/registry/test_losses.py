"""Lost files: written down once, told of, found again, and given up by who may."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from arriero.registry.errors import Conflict, NotAllowed, NotFound
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import bad_replicas as bad_table
from arriero.registry.schema.tables import (
    contents,
    contents_history,
    dids,
    evaluation_items,
    events,
    locks,
    lost_files,
    replicas,
    rules,
)
from arriero.registry.services import bad_replicas
from arriero.registry.services.bad_replicas import Declaration, Named
from arriero.registry.services.dids import get_did
from arriero.registry.services.losses import accept_losses, list_losses, sweep_losses
from arriero.registry.services.replica_removal import delete_replicas
from arriero.registry.services.replicas import StateChange, update_states
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import BadReplicaState, LockState, ReplicaState, Role, RuleState
from support.database import counted_statements
from support.invariants import assert_invariants

RSE, OTHER = "SLAC", "IN2P3"
BAD = Declaration(BadReplicaState.BAD, "truncated")


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse(RSE)
    catalogue.rse(OTHER)
    return catalogue


def declare(site, *names: str, rse: str = RSE) -> None:
    assert (
        bad_replicas.declare(site.context, site.root, [Named("raw", name, rse) for name in names], BAD) == {}
    )


def hold(site, name: str, *, did: str | None = None, rse_id: int = 1, state: LockState = LockState.OK) -> int:
    """A rule on the file or on a dataset, with its lock on the file at an RSE; give its id."""
    [uuid] = add_rules(site.context, site.root, RuleSpec(RSE, 1), [("raw", did or name)])
    rule_state = RuleState.OK if state is LockState.OK else RuleState.STUCK
    code = None if state is LockState.OK else "no_source"
    with site.database.transaction() as connection:
        rule_id = connection.scalar(select(rules.c.id).where(rules.c.uuid == uuid))
        file_id = connection.scalar(select(dids.c.id).where(dids.c.name == name))
        row = {"rule_id": rule_id, "file_id": file_id, "rse_id": rse_id, "bytes": 1000, "state": state}
        connection.execute(locks.insert().values(**row, code=code, reason=code))
        connection.execute(
            update(rules)
            .where(rules.c.id == rule_id)
            .values(
                state=rule_state,
                code=code,
                reason=code,
                locks_ok=int(state is LockState.OK),
                locks_stuck=int(state is LockState.STUCK),
            )
        )
    site.evaluated()
    return rule_id


def told(site, kind: str) -> list[dict[str, object]]:
    query = select(events.c.payload).where(events.c.event_type == kind).order_by(events.c.id)
    return [row["payload"] for row in site.rows(query)]


def test_the_last_copy_declared_bad_loses_the_file(site):
    site.files(RSE, ["a", "b"])
    site.files(OTHER, ["b"])
    site.dataset("d", ["a", "b"])
    hold(site, "a")
    declare(site, "a", "b")
    [lost] = site.rows(select(lost_files))
    assert lost["reason"] == "no good copy of it is known: bad at SLAC (truncated)"
    [lock] = site.rows(select(locks))
    assert (lock["state"], lock["code"], lock["reason"]) == (LockState.STUCK, "lost", lost["reason"])
    [rule] = site.rows(select(rules))
    assert (rule["state"], rule["code"], rule["locks_stuck"]) == (RuleState.STUCK, "lost", 1)
    assert told(site, "LOST") == [
        {
            "scope": "raw",
            "name": "a",
            "dataset_scope": "raw",
            "dataset_name": "d",
            "reason": lost["reason"],
        }
    ]
    assert get_did(site.context, "raw", "a")["availability"] == "LOST"
    assert "availability" not in get_did(site.context, "raw", "b")
    [row] = list_losses(site.context, scope="raw")
    assert (row["name"], row["bytes"], row["accepted_at"]) == ("a", 1000, None)
    assert_invariants(site.database)
    # said once
    bad_replicas.declare(
        site.context, site.root, [Named("raw", "a", RSE)], Declaration(BAD.state, "again", force=True)
    )
    sweep_losses(site.context)
    assert len(told(site, "LOST")) == 1


@pytest.mark.parametrize("hope", [ReplicaState.TEMPORARY_UNAVAILABLE, ReplicaState.COPYING])
def test_a_file_with_hope_is_not_lost(site, hope):
    site.files(RSE, ["a"])
    if hope is ReplicaState.COPYING:
        site.files(OTHER, ["a"], state=hope)
    else:
        site.files(OTHER, ["a"])
        away = Declaration(BadReplicaState.TEMPORARY_UNAVAILABLE)
        bad_replicas.declare(site.context, site.root, [Named("raw", "a", OTHER)], away)
    declare(site, "a")
    sweep_losses(site.context)
    assert site.count(lost_files) == 0


@pytest.mark.parametrize("how", ["not to come", "removed"])
def test_a_file_loses_its_last_hope(site, how):
    site.files(RSE, ["a", "b"])
    site.files(OTHER, ["a", "b"], state=ReplicaState.COPYING)
    site.dataset("d", ["a", "b"])
    declare(site, "a")
    with site.database.transaction() as connection:
        # long ago: no sweep looks at what was declared then
        connection.execute(update(bad_table).values(created_at=after(-86400)))
    assert site.count(lost_files) == 0
    if how == "removed":
        delete_replicas(site.context, site.root, OTHER, [("raw", "a"), ("raw", "b")])
    else:
        said = [StateChange("raw", name, ReplicaState.UNAVAILABLE) for name in "ab"]
        update_states(site.context, site.root, OTHER, said)
    [lost] = site.rows(select(dids.c.name).join(lost_files, lost_files.c.file_id == dids.c.id))
    assert lost["name"] == "a"
    assert [(one["name"], one["dataset_name"]) for one in told(site, "LOST")] == [("a", "d")]


def test_two_last_copies_declared_at_one_moment_are_found_by_the_sweep(site):
    site.files(RSE, ["a"])
    site.files(OTHER, ["a"])
    rule_id = hold(site, "a")
    other = hold(site, "a", did=site.dataset("d", ["a"]), rse_id=2, state=LockState.STUCK)
    declare(site, "a")
    declare(site, "a", rse=OTHER)
    with site.database.transaction() as connection:
        # as if neither transaction had seen the other
        connection.execute(lost_files.delete())
        connection.execute(update(locks).values(code="bad_replica", reason="replica declared bad"))
    sweep_losses(site.context)
    assert site.count(lost_files) == 1
    assert {(row["rule_id"], row["code"]) for row in site.rows(select(locks))} == {
        (rule_id, "lost"),
        (other, "lost"),
    }
    assert {row["code"] for row in site.rows(select(rules))} == {"lost"}
    assert_invariants(site.database)


def test_a_good_copy_finds_the_file_again_and_has_its_rules_look(site):
    site.files(RSE, ["a", "b"])
    rule_id = hold(site, "a")
    declare(site, "a")
    site.evaluated()
    site.files(OTHER, ["a"])
    assert "availability" not in get_did(site.context, "raw", "a")
    assert {row["rule_id"] for row in site.rows(select(evaluation_items))} == {rule_id}
    assert list(list_losses(site.context)) == []
    assert sweep_losses(site.context) == 1
    assert site.count(lost_files) == 0
    assert told(site, "FOUND") == [{"scope": "raw", "name": "a"}]
    # lost once more: told once more
    declare(site, "a", rse=OTHER)
    assert len(told(site, "LOST")) == 2


def test_accepting_a_loss_takes_the_file_out_of_what_rules_ask_for(site):
    site.files(RSE, ["a", "b"])
    dataset_rule = hold(site, "a", did=site.dataset("d", ["a", "b"]))
    file_rule = hold(site, "a")
    declare(site, "a")
    with site.database.transaction() as connection:
        connection.execute(update(dids).where(dids.c.name == "d").values(monotonic=True, is_open=False))
    accept_losses(site.context, site.root, [("raw", "a")], reason="the disk is gone")
    [lost] = site.rows(select(lost_files))
    assert (lost["accepted_reason"], lost["account_id"]) == ("the disk is gone", site.root.account_id)
    assert lost["accepted_at"] is not None
    assert site.count(contents) == 1
    assert site.count(contents_history) == 1
    assert [row["id"] for row in site.rows(select(rules))] == [dataset_rule]
    assert site.count(locks, locks.c.rule_id == file_rule) == 0
    assert {row["rule_id"] for row in site.rows(select(evaluation_items))} >= {dataset_rule}
    assert get_did(site.context, "raw", "a")["availability"] == "LOST"
    assert list(list_losses(site.context)) == []
    [row] = list_losses(site.context, accepted=True)
    assert row["accepted_by"] == "root"
    [audited] = site.audited(action="did_accept_loss")
    assert audited["detail"] == {"count": 1, "datasets": 1, "reason": "the disk is gone"}
    assert told(site, "loss-accepted") == [{"scope": "raw", "name": "a", "reason": "the disk is gone"}]
    with pytest.raises(Conflict, match="no lost file"):
        accept_losses(site.context, site.root, [("raw", "a")])


def test_only_what_is_lost_is_accepted_all_or_nothing(site):
    site.files(RSE, ["a", "b"])
    site.dataset("d", ["a", "b"])
    declare(site, "a")
    before = site.snapshot_of(lost_files, contents)
    for others in ([("raw", "b")], [("raw", "d")]):
        with pytest.raises(Conflict):
            accept_losses(site.context, site.root, [("raw", "a"), *others])
    with pytest.raises(NotFound):
        accept_losses(site.context, site.root, [("raw", "a"), ("raw", "nothing")])
    site.files(OTHER, ["a"])
    with pytest.raises(Conflict):
        accept_losses(site.context, site.root, [("raw", "a")])
    assert site.snapshot_of(lost_files, contents) == before


def test_a_locked_rule_on_the_file_is_in_the_way(site):
    site.files(RSE, ["a"])
    rule_id = hold(site, "a")
    declare(site, "a")
    with site.database.transaction() as connection:
        connection.execute(update(rules).where(rules.c.id == rule_id).values(locked=True))
    with pytest.raises(Conflict, match="locked"):
        accept_losses(site.context, site.root, [("raw", "a")])
    assert site.count(rules) == 1


def test_who_may_accept(site):
    site.scope("hers", owner=site.account("ada").account)
    ada, eve = site.actor("ada", Role.DATA_MANAGER), site.account("eve")
    site.files(RSE, ["a"], scope="hers", actor=ada)
    bad_replicas.declare(site.context, site.root, [Named("hers", "a", RSE)], BAD)
    with pytest.raises(NotAllowed):
        accept_losses(site.context, eve, [("hers", "a")])
    accept_losses(site.context, ada, [("hers", "a")])


def test_a_number_of_statements_whatever_the_number_of_files(site):
    names = [f"f{number}" for number in range(60)]
    site.files(RSE, names)
    site.dataset("d", names)
    few, many = names[:3], names[3:]
    with counted_statements(site.database) as first:
        declare(site, *few)
    with counted_statements(site.database) as second:
        declare(site, *many)
    assert len(second) == len(first)
    with counted_statements(site.database) as first:
        accept_losses(site.context, site.root, [("raw", name) for name in few])
    with counted_statements(site.database) as second:
        accept_losses(site.context, site.root, [("raw", name) for name in many])
    assert len(second) == len(first)
    assert site.count(contents) == 0
    assert site.count(replicas, replicas.c.state == ReplicaState.BAD) == 60
