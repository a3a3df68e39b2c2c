"""Plans are what evaluation then does; moving and reducing rules through the scheduler's own code."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from arriero.registry.errors import Conflict, NotFound, Unsupported
from arriero.registry.schema.tables import (
    accounts,
    rule_history,
)
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_moves import move_rule, release_parents
from arriero.registry.services.rule_plans import plan_rules
from arriero.registry.services.rule_removal import remove_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules, get_rule
from arriero.registry.states import LockState, RuleGrouping, RuleState
from arriero.rse.errors import InvalidExpression
from support import rule_desk
from support.rule_desk import added, copy, evaluate, everything, held, set_chunk
from support.scheduling import (
    locks,
    replicas,
    request_history,
    requests,
    rses,
)

desk = rule_desk.desk
filled = rule_desk.filled


@pytest.mark.parametrize(
    ("grouping", "chunk"), [(RuleGrouping.ALL, 100_000), (RuleGrouping.DATASET, 7), (RuleGrouping.NONE, 7)]
)
def test_a_plan_is_what_evaluation_does(desk, filled, grouping, chunk):
    set_chunk(desk, chunk)
    names = {row.id: row.name for row in desk.rows(select(rses))}
    for target, expression, copies in (
        ("both", "tier=2", 2),
        ("first", "SLAC|tier=2", 1),
        ("empty", "tier=2", 1),
    ):
        spec = RuleSpec(expression, copies, grouping=grouping)
        before = everything(desk)
        [plan] = plan_rules(desk.context, desk.root, spec, [("raw", target)])
        assert everything(desk) == before
        [uuid] = add_rules(desk.context, desk.root, spec, [("raw", target)], rule_ids=[plan["rule_id"]])
        assert uuid.hex == plan["rule_id"]
        evaluate(desk)
        chosen = {one["rse"]: (one["files"], one["bytes"]) for one in plan["rses"] if one["chosen"]}
        assert {names[rse]: count for rse, count in held(desk, uuid.hex).items()} == chosen
        found = get_rule(desk.context, uuid.hex)
        assert found["state"] is plan["state"]
        sums = {
            key: sum(one[f"{key}_files"] for one in plan["rses"])
            for key in ("there", "under_way", "to_move", "stuck")
        }
        assert sums["there"] == found["locks_ok_cnt"]
        assert sums["under_way"] + sums["to_move"] == found["locks_replicating_cnt"]
        assert plan["files"] == {"both": 20, "first": 10, "empty": 0}[target]
        assert plan["bytes"] == 1000 * plan["files"]
        assert all(one["reason"] for one in plan["rses"])
        remove_rule(desk.context, desk.root, uuid.hex, now=True)
    desk.check_invariants()


def test_a_plan_says_what_cannot_be_placed_and_why(desk, five_rses):
    slac, _ = five_rses
    desk.rse("FULL", free=10, attributes={"tier": "3"})
    desk.rse("BLOCKED", availability_write=False, attributes={"tier": "3"})
    desk.rse("EMPTY", attributes={"tier": "4"})
    desk.collection("d", children=desk.files(3, at=[slac]))
    desk.collection("nowhere", children=desk.files(2, prefix="n"))
    spec = RuleSpec("tier=3", 1)
    [plan] = plan_rules(desk.context, desk.root, spec, [("raw", "d")])
    assert plan["state"] is RuleState.STUCK
    assert "FULL is full" in plan["reason"]
    reasons = {one["rse"]: one["reason"] for one in plan["rses"]}
    assert "3000 bytes are needed" in reasons["FULL"]
    assert reasons["BLOCKED"] == "is blocked for writing"
    [plan] = plan_rules(desk.context, desk.root, RuleSpec("EMPTY", 1), [("raw", "nowhere")])
    assert plan["state"] is RuleState.STUCK
    assert "2 locks: no RSE" in plan["reason"]
    assert plan["rses"][0]["stuck_files"] == 2


def test_what_adding_refuses_a_plan_refuses(desk, filled):
    with pytest.raises(NotFound):
        plan_rules(desk.context, desk.root, RuleSpec("tier=2", 1), [("raw", "missing")])
    with pytest.raises(InvalidExpression):
        plan_rules(desk.context, desk.root, RuleSpec("NOWHERE", 1), [("raw", "first")])
    add_rules(desk.context, desk.root, RuleSpec("tier=2", 1), [("raw", "first")])
    with pytest.raises(Conflict):
        plan_rules(desk.context, desk.root, RuleSpec("tier=2", 1), [("raw", "first")])
    without = replace(desk.context, engine=None)
    with pytest.raises(Unsupported):
        plan_rules(without, desk.root, RuleSpec("tier=2", 1), [("raw", "second")])


def test_an_id_is_given_once(desk, filled):
    [plan] = plan_rules(desk.context, desk.root, RuleSpec("tier=2", 1), [("raw", "first")])
    ids = [plan["rule_id"]]
    add_rules(desk.context, desk.root, RuleSpec("tier=2", 1), [("raw", "first")], rule_ids=ids)
    for spec in (RuleSpec("SLAC", 1), RuleSpec("tier=2", 2)):
        with pytest.raises(Conflict):
            add_rules(desk.context, desk.root, spec, [("raw", "second")], rule_ids=ids)
    remove_rule(desk.context, desk.root, ids[0], now=True)
    with pytest.raises(Conflict):
        add_rules(desk.context, desk.root, RuleSpec("SLAC", 1), [("raw", "second")], rule_ids=ids)


def test_a_moved_rule_goes_when_its_child_is_ok(desk, filled):
    slac, _ = filled
    parent = added(desk, "first", "SLAC", comment="why")
    assert get_rule(desk.context, parent)["state"] is RuleState.OK
    child = move_rule(desk.context, desk.root, parent, "T0", {"activity": "Production"}).hex
    assert get_rule(desk.context, parent)["child_rule_id"] == child
    described = get_rule(desk.context, child)
    assert (described["rse_expression"], described["activity"], described["comments"]) == (
        "T0",
        "Production",
        "why",
    )
    assert release_parents(desk.context) == 0
    with pytest.raises(Conflict, match="goes by itself"):
        remove_rule(desk.context, desk.root, parent, now=True)
    evaluate(desk)
    assert release_parents(desk.context) == 0
    copy(desk)
    assert get_rule(desk.context, child)["state"] is RuleState.OK
    assert release_parents(desk.context) == 1
    with pytest.raises(NotFound):
        get_rule(desk.context, parent)
    assert release_parents(desk.context) == 0
    # what only the parent held is held by nobody; nothing is deleted
    held_no_more = desk.rows(
        select(replicas).where(replicas.c.rse_id == slac, replicas.c.tombstone.is_not(None))
    )
    assert len(held_no_more) == 10
    desk.check_invariants()
    [last] = desk.rows(select(rule_history.c.reason).order_by(rule_history.c.id.desc()).limit(1))
    assert child in last.reason


def test_a_child_that_is_moved_on_takes_its_parent_along(desk, filled):
    first = added(desk, "first", "SLAC")
    second = move_rule(desk.context, desk.root, first, "T0", {}).hex
    third = move_rule(desk.context, desk.root, second, "T2", {}).hex
    evaluate(desk)
    copy(desk)
    assert release_parents(desk.context, limit=1) == 1
    assert get_rule(desk.context, first)["child_rule_id"] == third
    assert release_parents(desk.context) == 1
    with pytest.raises(NotFound):
        get_rule(desk.context, first)
    desk.check_invariants()


def test_a_child_that_goes_leaves_its_parent(desk, filled):
    parent = added(desk, "first", "SLAC")
    child = move_rule(desk.context, desk.root, parent, "T0", {}).hex
    remove_rule(desk.context, desk.root, child, now=True)
    assert get_rule(desk.context, parent)["child_rule_id"] is None
    assert release_parents(desk.context) == 0
    again = move_rule(desk.context, desk.root, parent, "T0", {}).hex
    update_rule(desk.context, desk.root, parent, {"child_rule_id": None})
    evaluate(desk)
    copy(desk)
    assert release_parents(desk.context) == 0
    update_rule(desk.context, desk.root, parent, {"child_rule_id": again, "locked": True})
    assert release_parents(desk.context) == 0
    update_rule(desk.context, desk.root, parent, {"locked": False})
    assert release_parents(desk.context) == 1


def test_rules_cannot_wait_for_each_other(desk, filled):
    one, two, three = (added(desk, "first", name) for name in ("SLAC", "T1", "SLAC|T1"))
    elsewhere = added(desk, "second", "SLAC")
    update_rule(desk.context, desk.root, one, {"child_rule_id": two})
    update_rule(desk.context, desk.root, two, {"child_rule_id": three})
    for rule, child in ((three, one), (three, three), (three, elsewhere)):
        with pytest.raises(Exception, match=r"itself to be replaced|another DID"):
            update_rule(desk.context, desk.root, rule, {"child_rule_id": child})
    with pytest.raises(Conflict):
        update_rule(desk.context, desk.root, one, {"child_rule_id": three})


def test_moves_that_are_refused_change_nothing(desk, filled):
    parent = added(desk, "first", "SLAC")
    locked = added(desk, "second", "SLAC", locked=True)
    [waiting] = add_rules(desk.context, desk.root, RuleSpec("T0", 1, ask_approval=True), [("raw", "second")])
    before = everything(desk)
    for rule, expression in ((parent, "SLAC"), (locked, "T0"), (waiting.hex, "T1")):
        with pytest.raises(Conflict) as refused:
            move_rule(desk.context, desk.root, rule, expression, {})
        assert refused.value.rucio_class == "RuleReplaceFailed"
    with pytest.raises(InvalidExpression):
        move_rule(desk.context, desk.root, parent, "NOWHERE", {})
    with pytest.raises(Conflict) as refused:
        move_rule(desk.context, desk.root, parent, "T0", {"copies": 2})
    assert refused.value.rucio_class == "InsufficientTargetRSEs"
    assert everything(desk) == before
    move_rule(desk.context, desk.root, parent, "T0", {})
    with pytest.raises(Conflict, match="already") as refused:
        move_rule(desk.context, desk.root, parent, "T2", {})
    assert refused.value.rucio_class == "RuleReplaceFailed"


def test_copies_are_taken_back_and_tried_again(desk, filled):
    rule = added(desk, "first", "T0|T2", 2)
    other = added(desk, "first", "T0")
    assert desk.count(requests) == 20
    update_rule(desk.context, desk.root, rule, {"state": "SUSPENDED", "cancel_requests": True})
    described = get_rule(desk.context, rule)
    # what another rule wants too goes on
    assert (described["locks_replicating_cnt"], described["locks_stuck_cnt"]) == (10, 10)
    assert desk.count(requests) == 10
    assert desk.count(request_history, code="cancelled") == 10
    copy(desk)
    assert get_rule(desk.context, other)["state"] is RuleState.OK
    assert get_rule(desk.context, rule)["state"] is RuleState.SUSPENDED
    update_rule(desk.context, desk.root, rule, {"state": "INJECT"})
    evaluate(desk)
    copy(desk)
    assert get_rule(desk.context, rule)["state"] is RuleState.OK
    desk.check_invariants()


def test_a_rule_set_stuck_rests_until_it_is_boosted(desk, filled):
    rule = added(desk, "first", "T0")
    update_rule(desk.context, desk.root, rule, {"state": "STUCK", "cancel_requests": True})
    described = get_rule(desk.context, rule)
    assert (described["state"], described["locks_stuck_cnt"]) == (RuleState.STUCK, 10)
    assert described["stuck_at"] is not None
    evaluate(desk)
    assert get_rule(desk.context, rule)["state"] is RuleState.STUCK
    desk.check_invariants()
    update_rule(desk.context, desk.root, rule, {"boost_rule": True})
    evaluate(desk)
    assert get_rule(desk.context, rule)["state"] is RuleState.REPLICATING
    # without taking anything back it is only looked at
    update_rule(desk.context, desk.root, rule, {"state": "STUCK"})
    evaluate(desk)
    assert get_rule(desk.context, rule)["state"] is RuleState.REPLICATING
    copy(desk)
    assert desk.count(locks, state=LockState.OK) == 10
    desk.check_invariants()


def test_requests_inherit_priority_and_activity(desk, filled):
    rule = added(desk, "first", "T0")
    update_rule(desk.context, desk.root, rule, {"priority": 5, "activity": "Express"})
    assert desk.count(requests, priority=5, activity="Express") == 10


def test_a_rule_changes_hands(desk, filled):
    with desk.database.transaction() as tx:
        tx.execute(accounts.insert().values(name="alice", type="USER", role="data_manager"))
    rule = added(desk, "first", "T0")
    update_rule(desk.context, desk.root, rule, {"account": "alice"})
    assert get_rule(desk.context, rule)["account"] == "alice"
    added(desk, "first", "T0")
    with pytest.raises(Conflict) as refused:
        update_rule(desk.context, desk.root, rule, {"account": "root"})
    assert refused.value.rucio_class == "DuplicateRule"
