"""What is done to the work of a rule by hand: whose copies it touches, and which limits stand against it."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import delete, insert, select

from arriero.registry.errors import Conflict
from arriero.registry.schema.tables import account_limits, accounts, subscriptions
from arriero.registry.services.context import Actor
from arriero.registry.services.rses import delete_rse
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_moves import move_rule, reduce_rule
from arriero.registry.services.rule_removal import remove_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules, get_rule
from arriero.registry.states import Role, RuleGrouping, RuleState
from arriero.scheduler.rule_engine import Engine
from support.rule_desk import copy, evaluate
from support.scheduling import replicas, requests, rules


@pytest.fixture
def desk(catalogue, five_rses):
    """Ten files of 1000 bytes at SLAC in a dataset, the rule engine, and root at it."""
    catalogue.context = replace(catalogue.context, engine=Engine(catalogue.context.settings))
    catalogue.root = Actor(catalogue.account_id, "root", Role.ADMIN)
    catalogue.slac, catalogue.tier = five_rses
    catalogue.first = catalogue.collection("first", children=catalogue.files(10, at=[catalogue.slac]))
    return catalogue


def added(desk, expression: str, copies: int = 1, **options) -> str:
    [uuid] = add_rules(desk.context, desk.root, RuleSpec(expression, copies, **options), [("raw", "first")])
    evaluate(desk)
    return uuid.hex


def test_copies_that_another_rule_has_asked_for_since_are_not_taken_back(desk):
    rule = added(desk, "T0")
    taken_back = {"state": "SUSPENDED", "cancel_requests": True}
    update_rule(desk.context, desk.root, rule, taken_back)
    other = added(desk, "T0|T0")
    assert desk.count(requests) == 10
    update_rule(desk.context, desk.root, rule, taken_back)
    assert desk.count(requests) == 10
    copy(desk)
    assert get_rule(desk.context, other)["state"] is RuleState.OK
    desk.check_invariants()


@pytest.mark.parametrize("grouping", [RuleGrouping.DATASET, RuleGrouping.NONE])
def test_no_limit_stands_against_a_reduction(desk, grouping):
    old = added(desk, "SLAC|T0", 2, grouping=grouping)
    copy(desk)
    with desk.database.transaction() as tx:
        for rse_id in (desk.slac, desk.tier[0]):
            tx.execute(insert(account_limits).values(account_id=desk.account_id, rse_id=rse_id, bytes=0))
    new = reduce_rule(desk.context, desk.root, old, 1).hex
    found = get_rule(desk.context, new)
    assert (found["state"], found["locks_ok_cnt"]) == (RuleState.OK, 10)
    desk.check_invariants()


def test_a_rule_that_has_changed_hands_is_moved_without_its_subscription(desk):
    subscription = uuid4()
    with desk.database.transaction() as tx:
        tx.execute(insert(accounts).values(name="alice", type="USER", role="data_manager"))
        tx.execute(
            insert(subscriptions).values(
                uuid=subscription,
                name="s",
                account_id=desk.account_id,
                filter={"pattern": ".*"},
                replication_rules=[],
            )
        )
    rule = added(desk, "SLAC", subscription=subscription)
    update_rule(desk.context, desk.root, rule, {"account": "alice"})
    child = move_rule(desk.context, desk.root, rule, "T0", {}).hex
    found = get_rule(desk.context, child)
    assert (found["account"], found["subscription_id"]) == ("alice", None)


def test_an_rse_where_a_rule_has_placed_a_dataset_is_not_removed(desk):
    """Also when the dataset is empty by now: what is attached to it goes there."""
    rule = added(desk, "T0")
    copy(desk)
    [rule_id] = desk.rows(select(rules.c.id))[0]
    there = [
        row.file_id for row in desk.rows(select(replicas.c.file_id).where(replicas.c.rse_id == desk.slac))
    ]
    desk.detach(desk.first, there)
    desk.wake(rule_id)
    evaluate(desk)
    assert desk.locks_of(rule_id) == {}
    with desk.database.transaction() as tx:
        tx.execute(delete(replicas).where(replicas.c.rse_id == desk.tier[0]))
    with pytest.raises(Conflict, match="1 dataset locks"):
        delete_rse(desk.context, desk.root, "T0")
    remove_rule(desk.context, desk.root, rule, now=True)
    delete_rse(desk.context, desk.root, "T0")
