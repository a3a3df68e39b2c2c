"""Reductions of rules: done at once or refused, and planned as they are then done."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import select

from arriero.registry.errors import Conflict, NotAllowed, NotFound, Unsupported
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import evaluation_items, events, rse_usage, unplaced_groups
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_moves import plan_reduction, reduce_rule
from arriero.registry.services.rules import get_rule
from arriero.registry.states import ReplicaState, Role, RuleGrouping, RuleState
from arriero.rse.errors import InvalidExpression
from support import rule_desk
from support.database import counted_statements
from support.rule_desk import added, copy, evaluate, everything, held, set_chunk
from support.scheduling import locks, replicas, requests, rses, rules

desk = rule_desk.desk
filled = rule_desk.filled


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
