"""Rules: validated at once, evaluated later."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import select

from arriero.registry.errors import Conflict, InvalidInput, NotFound, Unsupported
from arriero.registry.ports import Bell
from arriero.registry.schema.tables import (
    evaluations,
    rule_history,
    rules,
)
from arriero.registry.services.authorisation import Denied
from arriero.registry.services.locks import list_dataset_locks, list_dataset_locks_at, list_rule_locks
from arriero.registry.services.rses import update_rse
from arriero.registry.services.rule_approval import decide_rule
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_removal import remove_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import (
    add_rules,
    get_rule,
    list_associated_rules,
    list_did_rules,
    list_rules,
)
from arriero.registry.states import LockState, Role, RuleGrouping, RuleState
from arriero.rse.errors import InvalidExpression
from support.rule_site import IN2P3, SLAC, add, place, site

TABLES = (rules, rule_history, evaluations)
__all__ = ["site"]


def test_a_rule_waits_for_its_evaluation(site):
    uuid = add(
        site, "SLAC_RAW_DISK|IN2P3_RAW_DISK", 2, grouping=RuleGrouping.NONE, lifetime_s=3600, priority=1
    )
    described = get_rule(site.context, uuid.hex)
    assert described["state"] is RuleState.INJECT
    assert (described["copies"], described["grouping"], described["priority"]) == (2, "NONE", 1)
    assert described["expires_at"] > described["created_at"]
    assert site.generation(uuid) == 1
    assert site.doorbell.rung == [Bell.EVALUATIONS]
    [history] = site.rows(select(rule_history))
    assert (history["account"], history["from_state"], history["to_state"]) == (
        "root",
        None,
        RuleState.INJECT,
    )
    assert site.audited(action="rule_add")[0]["detail"]["rules"] == [uuid.hex]


@pytest.mark.parametrize(
    ("options", "error", "rucio_class"),
    [
        ({"on": "missing"}, NotFound, "DataIdentifierNotFound"),
        ({"account": "nobody"}, NotFound, "AccountNotFound"),
        ({"expression": "NOWHERE"}, InvalidExpression, None),
        ({"expression": "site=SLAC&site=IN2P3"}, InvalidExpression, None),
        ({"expression": "SLAC_RAW_DISK|"}, InvalidExpression, None),
        ({"expression": ""}, InvalidInput, "InvalidRSEExpression"),
        ({"expression": "x" * 1025}, InvalidInput, "InvalidRSEExpression"),
        ({"copies": 0}, InvalidInput, "InvalidReplicationRule"),
        ({"copies": 2}, Conflict, "InsufficientTargetRSEs"),
        ({"priority": 6}, InvalidInput, "InvalidReplicationRule"),
        ({"lifetime_s": 0}, InvalidInput, "InvalidReplicationRule"),
        ({"activity": "x" * 51}, InvalidInput, "InvalidReplicationRule"),
        ({"weight": "no such"}, InvalidInput, "InvalidRuleWeight"),
        ({"source_replica_expression": "NOWHERE"}, InvalidInput, "InvalidSourceReplicaExpression"),
        ({"meta": "x" * 5000}, InvalidInput, "InputValidationError"),
    ],
)
def test_a_rule_that_cannot_be_done_is_refused_at_once(site, options, error, rucio_class):
    before = site.snapshot_of(*TABLES)
    with pytest.raises(error) as refused:
        add(site, **options)
    if rucio_class is not None:
        assert refused.value.rucio_class == rucio_class
    assert site.snapshot_of(*TABLES) == before


def test_blocked_rses_take_no_rule_unless_told_to(site):
    update_rse(site.context, site.root, IN2P3, {"availability_write": False})
    with pytest.raises(Conflict) as refused:
        add(site)
    assert refused.value.rucio_class == "RSEWriteBlocked"
    with pytest.raises(Conflict) as too_few:
        add(site, f"{IN2P3}|{SLAC}", 2)
    assert too_few.value.rucio_class == "InsufficientTargetRSEs"
    add(site, ignore_availability=True)
    add(site, f"{IN2P3}|{SLAC}", 1)


def test_the_same_rule_twice_is_refused_for_one_account_only(site):
    add(site)
    with pytest.raises(Conflict) as refused:
        add(site)
    assert refused.value.rucio_class == "DuplicateRule"
    alice = site.account("alice")
    add(site, actor=alice)
    add(site, IN2P3, on="a")
    assert site.count(rules) == 3


def test_rules_on_several_dids_are_added_together(site):
    spec = RuleSpec(IN2P3, 1)
    uuids = add_rules(site.context, site.root, spec, [("raw", "d"), ("raw", "a")])
    assert [get_rule(site.context, uuid.hex)["name"] for uuid in uuids] == ["d", "a"]
    with pytest.raises(Conflict):
        add_rules(site.context, site.root, spec, [("raw", "b"), ("raw", "d")])
    assert site.count(rules) == 2


def test_a_rule_that_asks_for_approval_waits_for_an_administrator(site):
    alice = site.account("alice")
    uuid = add(site, actor=alice, ask_approval=True)
    assert get_rule(site.context, uuid.hex)["state"] is RuleState.WAITING_APPROVAL
    assert site.generation(uuid) is None
    with pytest.raises(Denied):
        decide_rule(site.context, alice, uuid.hex, approve=True)
    decide_rule(site.context, site.root, uuid.hex, approve=True)
    assert get_rule(site.context, uuid.hex)["state"] is RuleState.INJECT
    assert site.generation(uuid) == 1
    with pytest.raises(Conflict):
        decide_rule(site.context, site.root, uuid.hex, approve=True)


def test_rules_are_for_ones_own_account(site):
    alice, bob, eve = site.account("alice"), site.account("bob"), site.account("eve", Role.READER)
    uuid = add(site, actor=alice)
    assert get_rule(site.context, uuid.hex)["account"] == "alice"
    for actor in (bob, eve):
        with pytest.raises(Denied):
            add(site, f"{SLAC}", actor=actor, account="alice")
        with pytest.raises(Denied):
            update_rule(site.context, actor, uuid.hex, {"comment": "mine"})
        with pytest.raises(Denied):
            remove_rule(site.context, actor, uuid.hex)
    with pytest.raises(Denied):
        add(site, actor=eve)
    add(site, SLAC, account="alice")
    assert [row["account"] for row in list_rules(site.context, {"account": "alice"})] == ["alice", "alice"]


def test_lists_rules_by_did_account_state_and_for_a_file(site):
    site.container("c1", ["d"])
    on_container, on_dataset, on_file = add(site, on="c1"), add(site, on="d"), add(site, SLAC, on="a")
    add(site, on="c")
    assert [row["id"] for row in list_did_rules(site.context, "raw", "d")] == [on_dataset.hex]
    found = {row["id"] for row in list_associated_rules(site.context, "raw", "a")}
    assert found == {on_container.hex, on_dataset.hex, on_file.hex}
    assert len(list(list_rules(site.context, {"state": "I"}))) == 4
    assert len(list(list_rules(site.context, {"state": "OK"}))) == 0
    assert [row["id"] for row in list_rules(site.context, {"scope": "raw", "name": "a"})] == [on_file.hex]
    with pytest.raises(InvalidInput):
        list(list_rules(site.context, {"state": "HAPPY"}))
    with pytest.raises(InvalidInput):
        list(list_rules(site.context, {"1=1 --": "x"}))
    with pytest.raises(NotFound):
        get_rule(site.context, uuid4().hex)
    with pytest.raises(NotFound):
        get_rule(site.context, "../../etc")


def test_a_rule_changes_what_may_change(site):
    uuid = add(site)
    changes = {
        "lifetime": 60,
        "locked": False,
        "comment": "for the campaign",
        "priority": 5,
        "activity": "Production",
        "purge_replicas": True,
        "source_replica_expression": SLAC,
    }
    update_rule(site.context, site.root, uuid.hex, changes)
    described = get_rule(site.context, uuid.hex)
    assert described["expires_at"] is not None
    kept = ("comments", "priority", "activity", "purge_replicas", "source_replica_expression")
    assert [described[key] for key in kept] == ["for the campaign", 5, "Production", True, SLAC]
    before = site.snapshot_of(rules)
    refused = [
        ({"priority": 9}, InvalidInput),
        ({"lifetime": "soon"}, InvalidInput),
        ({"locked": "yes"}, InvalidInput),
        ({"source_replica_expression": "NOWHERE"}, InvalidInput),
        ({"source_replica_expression": 5}, InvalidInput),
        ({"activity": None}, InvalidInput),
        ({"priority": 2.5}, InvalidInput),
        ({"comment": ["x"]}, InvalidInput),
        ({"meta": "x" * 5000}, InvalidInput),
        ({"boost_rule": "yes"}, InvalidInput),
        ({"account": "nobody"}, NotFound),
        ({"child_rule_id": uuid4().hex}, NotFound),
        ({"child_rule_id": uuid.hex}, InvalidInput),
        ({"comment": "x", "eol_at": "2030-01-01"}, Unsupported),
        ({"comment": "x", "copies": 2}, InvalidInput),
        ({"cancel_requests": True}, InvalidInput),
        ({"state": "OK"}, InvalidInput),
        ({"state": "HAPPY"}, InvalidInput),
        ({"state": "INJECT"}, Conflict),
    ]
    for options, error in refused:
        with pytest.raises(error):
            update_rule(site.context, site.root, uuid.hex, options)
    assert site.snapshot_of(rules) == before


def test_suspending_and_resuming_is_kept_in_the_history(site):
    uuid = add(site)
    site.evaluated()
    update_rule(site.context, site.root, uuid.hex, {"state": "SUSPENDED"})
    assert site.generation(uuid) is None
    update_rule(site.context, site.root, uuid.hex, {"state": "INJECT"})
    assert site.generation(uuid) == 1
    states = [
        (row["account"], row["from_state"], row["to_state"])
        for row in site.rows(select(rule_history).order_by(rule_history.c.id))
    ]
    assert states[1:] == [("root", "INJECT", "SUSPENDED"), ("root", "SUSPENDED", "INJECT")]


def test_locks_are_listed_by_rule_did_and_rse(site):
    uuid = add(site)
    place(site, uuid, state=LockState.REPLICATING)
    assert [(row["name"], row["rse"], row["state"]) for row in list_rule_locks(site.context, uuid.hex)] == [
        ("a", IN2P3, "REPLICATING"),
        ("b", IN2P3, "REPLICATING"),
    ]
    [placed] = list_dataset_locks(site.context, "raw", "d")
    assert (placed["rule_id"], placed["rse"], placed["state"]) == (uuid.hex, IN2P3, "REPLICATING")
    assert [row["name"] for row in list_dataset_locks_at(site.context, IN2P3)] == ["d"]
    assert list(list_dataset_locks_at(site.context, SLAC)) == []
