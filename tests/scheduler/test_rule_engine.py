"""Plans are what evaluation then does; moving and reducing rules through the scheduler's own code."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import func, select

from arriero.registry.errors import Conflict, NotAllowed, NotFound, Unsupported
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    accounts,
    audit_log,
    evaluation_items,
    events,
    rse_usage,
    rule_history,
    unplaced_groups,
)
from arriero.registry.services.context import Actor
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_moves import move_rule, plan_reduction, reduce_rule, release_parents
from arriero.registry.services.rule_plans import plan_rules
from arriero.registry.services.rule_removal import remove_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules, get_rule
from arriero.registry.states import DidType, LockState, ReplicaState, Role, RuleGrouping, RuleState
from arriero.rse.errors import InvalidExpression
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.rule_engine import Engine
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.transfer import TransferRunner
from support.database import counted_statements
from support.scheduling import (
    dataset_locks,
    evaluations,
    locks,
    replicas,
    request_history,
    requests,
    rses,
    rules,
)

EVERYTHING = (rules, locks, dataset_locks, replicas, requests, evaluations, rule_history, audit_log)


@pytest.fixture
def desk(catalogue):
    """The catalogue with the rule engine, and root at it."""
    settings = catalogue.context.settings
    catalogue.context = replace(catalogue.context, engine=Engine(settings))
    catalogue.root = Actor(catalogue.account_id, "root", Role.ADMIN)
    return catalogue


@pytest.fixture
def filled(desk, five_rses):
    """Two datasets of ten files in a container: all at SLAC, half of the first at T1; T2 is full, T3 blocked."""
    slac, tier = five_rses
    first = desk.files(10, prefix="a", at=[slac])
    second = desk.files(10, prefix="b", at=[slac])
    desk.replicas(first[:5], tier[1])
    sets = [desk.collection("first", children=first), desk.collection("second", children=second)]
    desk.collection("both", DidType.CONTAINER, children=sets)
    desk.collection("empty")
    return slac, tier


def set_chunk(desk, files: int) -> None:
    settings = desk.context.settings.model_copy(update={"evaluation_chunk_files": files})
    desk.context = replace(desk.context, settings=settings, engine=Engine(settings))


def evaluate(desk) -> None:
    Evaluator(desk.context).run()


def copy(desk) -> None:
    TransferRunner(desk.context, make_mover=ScriptedMover).run()


def everything(desk) -> dict:
    return {table.name: sorted(map(repr, desk.rows(select(table)))) for table in EVERYTHING}


def held(desk, rule_id: str) -> dict[str, tuple[int, int]]:
    """Files and bytes of the locks of a rule at each RSE."""
    query = (
        select(locks.c.rse_id, func.count(), func.sum(locks.c.bytes))
        .join(rules, rules.c.id == locks.c.rule_id)
        .where(rules.c.uuid == UUID(rule_id))
        .group_by(locks.c.rse_id)
    )
    return {row[0]: (row[1], int(row[2])) for row in desk.rows(query)}


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


def added(desk, target: str, expression: str, copies: int = 1, **options) -> str:
    [uuid] = add_rules(desk.context, desk.root, RuleSpec(expression, copies, **options), [("raw", target)])
    evaluate(desk)
    return uuid.hex


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


@pytest.mark.parametrize(
    ("grouping", "chunk"), [(RuleGrouping.ALL, 100_000), (RuleGrouping.DATASET, 7), (RuleGrouping.NONE, 7)]
)
def test_a_reduction_is_ok_at_once(desk, filled, grouping, chunk):
    set_chunk(desk, chunk)
    old = added(desk, "both", "SLAC|T0|T2", 3, grouping=grouping)
    copy(desk)
    assert get_rule(desk.context, old)["state"] is RuleState.OK
    above = added(desk, "both", "SLAC", 1)
    update_rule(desk.context, desk.root, above, {"child_rule_id": old})
    requested = desk.count(requests)
    new = reduce_rule(desk.context, desk.root, old, 2, exclude_expression="T2").hex
    found = get_rule(desk.context, new)
    assert (found["state"], found["copies"], found["locks_ok_cnt"]) == (RuleState.OK, 2, 40)
    assert found["rse_expression"] == "(SLAC|T0|T2)\\(T2)"
    assert desk.count(requests) == requested
    assert get_rule(desk.context, above)["child_rule_id"] == new
    with pytest.raises(NotFound):
        get_rule(desk.context, old)
    evaluate(desk)
    assert get_rule(desk.context, new)["state"] is RuleState.OK
    desk.check_invariants()
    t2 = filled[1][2]
    gone = desk.rows(select(replicas.c.tombstone).where(replicas.c.rse_id == t2))
    assert len(gone) == 20
    assert all(row.tombstone is not None for row in gone)


def undisturbed(desk) -> dict:
    """All that a dry run must leave as it is."""
    return everything(desk) | {
        table.name: sorted(map(repr, desk.rows(select(table))))
        for table in (evaluation_items, unplaced_groups, events)
    }


@pytest.mark.parametrize(
    ("grouping", "chunk"), [(RuleGrouping.ALL, 100_000), (RuleGrouping.DATASET, 7), (RuleGrouping.NONE, 7)]
)
@pytest.mark.parametrize("exclude", [None, "T2"])
def test_the_plan_of_a_reduction_is_what_it_does(desk, filled, grouping, chunk, exclude):
    set_chunk(desk, chunk)
    old = added(desk, "both", "SLAC|T0|T2|T3", 3, grouping=grouping, ignore_availability=True)
    # at one at least of the two places where each file of the first dataset is let go
    other = added(desk, "first", "SLAC|T0|T3", 3, ignore_availability=True)
    copy(desk)
    names = {row.id: row.name for row in desk.rows(select(rses.c.id, rses.c.name))}
    before = undisturbed(desk)
    lay = held_at(desk, old)
    plan = plan_reduction(desk.context, desk.root, old, 1, exclude_expression=exclude)
    assert undisturbed(desk) == before
    new = reduce_rule(desk.context, desk.root, old, 1, exclude_expression=exclude).hex
    told = get_rule(desk.context, new)
    keys = ("scope", "name", "copies", "rse_expression", "purge_replicas")
    assert {key: plan[key] for key in keys} == {key: told[key] for key in keys}
    assert plan["rule_id"] == new
    stays = held_at(desk, new)
    free = {
        (row.file_id, row.rse_id)
        for row in desk.rows(select(replicas).where(replicas.c.tombstone.is_not(None)))
    }
    assert len(stays) == 20
    assert free <= lay - stays
    assert free != lay - stays, "the other rule holds some of it"
    expected = []
    for rse_id in sorted({rse_id for _, rse_id in lay | stays}, key=names.__getitem__):
        here = {"kept": stays, "let_go": lay - stays, "unheld": free}
        counts = {part: sum(rse == rse_id for _, rse in places) for part, places in here.items()}
        expected.append({"rse": names[rse_id]})
        for part, files in counts.items():
            expected[-1] |= {f"{part}_files": files, f"{part}_bytes": 1000 * files}
    assert plan["rses"] == expected
    assert get_rule(desk.context, other)["state"] is RuleState.OK
    desk.check_invariants()


def held_at(desk, rule_id: str) -> set[tuple[int, int]]:
    """File and RSE of each lock of a rule."""
    query = select(locks).join(rules, rules.c.id == locks.c.rule_id).where(rules.c.uuid == UUID(rule_id))
    return {(row.file_id, row.rse_id) for row in desk.rows(query)}


def test_a_plan_of_a_reduction_is_refused_as_the_reduction_is(desk, filled):
    old = added(desk, "first", "T1|T0", 2)
    before = undisturbed(desk)

    def refused(plan, copies: int, **options) -> str:
        with pytest.raises(Conflict) as error:
            plan(desk.context, desk.root, old, copies, **options)
        assert error.value.rucio_class == "RuleReplaceFailed"
        return error.value.message

    for copies, options in ((1, {}), (2, {}), (1, {"exclude_expression": "T1"})):
        assert refused(plan_reduction, copies, **options) == refused(reduce_rule, copies, **options)
    with pytest.raises(NotAllowed):
        plan_reduction(desk.context, replace(desk.root, account="eve", role=Role.READER), old, 1)
    with pytest.raises(Unsupported):
        plan_reduction(replace(desk.context, engine=None), desk.root, old, 1)
    assert {name: rows for name, rows in undisturbed(desk).items() if name != "audit_log"} == {
        name: rows for name, rows in before.items() if name != "audit_log"
    }


def test_the_plan_of_a_reduction_is_a_number_of_statements_whatever_the_number_of_files(desk, filled):
    desk.collection("large", children=desk.files(200, prefix="c", at=filled[1][:1]))
    counts = []
    for name in ("first", "large"):
        rule = added(desk, name, "SLAC|T0", 2)
        copy(desk)
        with counted_statements(desk.database) as statements:
            plan = plan_reduction(desk.context, desk.root, rule, 1)
        counts.append(len(statements))
    assert sum(one["kept_files"] for one in plan["rses"]) == 200
    assert counts[0] == counts[1]


def test_a_reduction_needs_room_nowhere_and_blocked_rses_serve(desk, filled):
    old = added(desk, "first", "SLAC|T0", 2)
    copy(desk)
    with desk.database.transaction() as tx:
        tx.execute(rses.update().values(availability_write=False))
        for rse_id in tx.scalars(select(rses.c.id)).all():
            tx.execute(rse_usage.insert().values(rse_id=rse_id, source="s", free=0, updated_at=after(0)))
    new = reduce_rule(desk.context, desk.root, old, 1).hex
    assert get_rule(desk.context, new)["state"] is RuleState.OK


def test_a_reduction_that_would_have_to_copy_is_refused(desk, filled):
    tier = filled[1]
    old = added(desk, "first", "T1|T0", 2)
    before = everything(desk)

    def refused(copies: int, match: str, exclude: str | None = None) -> None:
        with pytest.raises(Conflict, match=match) as error:
            reduce_rule(desk.context, desk.root, old, copies, exclude_expression=exclude)
        assert error.value.rucio_class == "RuleReplaceFailed"
        assert everything(desk) == before

    refused(1, "5 files at T1")
    refused(2, "are not fewer")
    refused(1, "lacks 10 files|can take", "T1")
    with pytest.raises(InvalidExpression):
        reduce_rule(desk.context, desk.root, old, 1, exclude_expression="T0|T1")
    with pytest.raises(Unsupported):
        reduce_rule(replace(desk.context, engine=None), desk.root, old, 1)
    copy(desk)
    # a copy that has gone bad since
    [some] = desk.rows(select(replicas.c.file_id).where(replicas.c.rse_id == tier[0]).limit(1))
    desk.set_replica(some.file_id, tier[0], ReplicaState.BAD)
    new = reduce_rule(desk.context, desk.root, old, 1).hex
    assert set(held(desk, new)) == {tier[1]}


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
