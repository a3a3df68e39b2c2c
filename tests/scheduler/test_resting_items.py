"""What rules that rest have yet to look at: bounded by what they hold, and nothing of it is missed when they go on."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from arriero.registry.schema.tables import dids, evaluation_items, locks, rules
from arriero.registry.services.resting_rules import ALWAYS, compact_resting
from arriero.registry.services.rule_approval import decide_rule
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import EvaluationItem, RuleGrouping, RuleState
from arriero.scheduler.evaluate import Evaluator
from support import in_process
from support.database import counted_statements
from support.in_process import InProcess
from support.invariants import assert_invariants

catalogue = in_process.catalogue

HELD = ["a", "b", "c"]
OTHERS = [f"x{number:02}" for number in range(8)]


@pytest.fixture
def site(catalogue) -> InProcess:
    """A dataset of three files in a container, and eight files that are in nothing."""
    catalogue.scope()
    for rse in ("SLAC", "IN2P3"):
        catalogue.rse(rse)
    catalogue.files("SLAC", [*HELD, *OTHERS])
    catalogue.dataset("night", HELD)
    catalogue.container("all", ["night"])
    return catalogue


def resting(site: InProcess, on: str, **options) -> str:
    """A rule that holds what it asks for, and is suspended."""
    [rule] = add_rules(site.context, site.root, RuleSpec("IN2P3", 1, **options), [("raw", on)])
    Evaluator(site.context).run()
    update_rule(site.context, site.root, rule.hex, {"state": "SUSPENDED"})
    return rule.hex


def go_on(site: InProcess, rule: str, state: str = "INJECT") -> None:
    update_rule(site.context, site.root, rule, {"state": state})
    Evaluator(site.context).run()
    assert_invariants(site.database)
    assert site.count(evaluation_items) == 0


def items_of(site: InProcess) -> list[tuple[EvaluationItem, str | None]]:
    query = (
        select(evaluation_items.c.kind, dids.c.name)
        .outerjoin(dids, dids.c.id == evaluation_items.c.did_id)
        .order_by(evaluation_items.c.kind, dids.c.name)
    )
    return [(row["kind"], row["name"]) for row in site.rows(query)]


def locked_files(site: InProcess) -> set[str]:
    return {row["name"] for row in site.rows(select(dids.c.name).join(locks, locks.c.file_id == dids.c.id))}


def churn(site: InProcess, times: int = 2) -> None:
    """Attach and detach all the files, those that the rule holds too, one by one; a, b and x00 are in it afterwards."""
    for _ in range(times):
        for name in (*OTHERS, *HELD):
            site.attach("night", [name], ignore_duplicate=True)
        for name in (*OTHERS, *HELD):
            site.detach("night", [name])
    site.attach("night", ["a", "b", "x00"])


@pytest.mark.parametrize("state", ["INJECT", "STUCK"])
@pytest.mark.parametrize("grouping", [RuleGrouping.DATASET, RuleGrouping.NONE])
@pytest.mark.parametrize("on", ["night", "all"])
def test_what_a_rule_that_rests_has_to_look_at_is_no_more_than_what_it_holds(site, on, grouping, state):
    rule = resting(site, on, grouping=grouping)
    churn(site)
    before = site.count(evaluation_items)
    assert before > 40
    assert compact_resting(site.context, spare=ALWAYS) == before - 3
    assert items_of(site) == [(EvaluationItem.FILE, name) for name in HELD]
    assert_invariants(site.database)
    assert compact_resting(site.context, spare=ALWAYS) == 0
    go_on(site, rule, state)
    assert locked_files(site) == {"a", "b", "x00"}


def test_a_collection_that_has_left_is_kept_until_its_files_have_been_let_go(site):
    site.container("outer", ["all"])
    rule = resting(site, "outer")
    for _ in range(3):
        site.detach("outer", ["all"])
        site.attach("outer", ["all"])
    site.detach("outer", ["all"])
    site.detach("all", ["night"])
    assert compact_resting(site.context, spare=ALWAYS) > 0
    assert sorted(items_of(site)) == [(EvaluationItem.CONTAINER, "all"), (EvaluationItem.DATASET, "night")]
    # only the items lead from the dataset to the rule
    site.detach("night", ["a"])
    assert compact_resting(site.context, spare=ALWAYS) == 0
    go_on(site, rule)
    assert site.count(locks) == 0


def test_a_rule_that_holds_nothing_has_nothing_to_look_at_until_it_is_approved(site):
    spec = RuleSpec("IN2P3", 1, ask_approval=True)
    [rule] = add_rules(site.context, site.root, spec, [("raw", "all")])
    churn(site)
    site.dataset("more", ["x01"])
    site.attach("all", ["more"])
    assert compact_resting(site.context, spare=ALWAYS) > 40
    assert site.count(evaluation_items) == 0
    decide_rule(site.context, site.root, rule.hex, approve=True)
    Evaluator(site.context).run()
    assert_invariants(site.database)
    assert locked_files(site) == {"a", "b", "x00", "x01"}


def test_a_rule_that_was_suspended_before_anybody_looked_goes_on_as_a_whole(site):
    [rule] = add_rules(site.context, site.root, RuleSpec("IN2P3", 1), [("raw", "all")])
    update_rule(site.context, site.root, rule.hex, {"state": "SUSPENDED"})
    assert compact_resting(site.context, spare=ALWAYS) == 1
    go_on(site, rule.hex, "STUCK")
    assert locked_files(site) == set(HELD)


def test_what_was_looked_at_in_part_is_looked_at_from_where_the_first_left_off(site):
    rule = resting(site, "all")
    [night] = [row["id"] for row in site.rows(select(dids.c.id).where(dids.c.name == "night"))]
    [rule_id] = [row["id"] for row in site.rows(select(rules.c.id))]
    item = {"rule_id": rule_id, "kind": EvaluationItem.DATASET, "did_id": night}
    with site.database.transaction() as tx:
        for after_file_id in (7, 2, 5):
            tx.execute(evaluation_items.insert().values(after_file_id=after_file_id, **item))
    site.detach("all", ["night"])
    assert compact_resting(site.context, spare=ALWAYS) == 3
    [left] = site.rows(select(evaluation_items.c.after_file_id))
    assert left["after_file_id"] == 0
    go_on(site, rule)
    assert site.count(locks) == 0


def test_rules_that_work_and_those_with_little_to_look_at_are_left_alone(site):
    rule = resting(site, "night")
    add_rules(site.context, site.root, RuleSpec("SLAC", 1), [("raw", "night")])
    churn(site, times=1)
    per_rule = select(evaluation_items.c.rule_id, func.count().label("n")).group_by(
        evaluation_items.c.rule_id
    )
    before = {row["rule_id"]: row["n"] for row in site.rows(per_rule)}
    [[resting_id, held]] = [
        (row["id"], row["locks_replicating"])
        for row in site.rows(select(rules).where(rules.c.state == RuleState.SUSPENDED))
    ]
    assert compact_resting(site.context) == 0
    assert compact_resting(site.context, spare=before[resting_id] - held) == 0
    assert compact_resting(site.context, spare=before[resting_id] - held - 1) > 0
    after = {row["rule_id"]: row["n"] for row in site.rows(per_rule)}
    assert {**before, resting_id: 3} == after
    go_on(site, rule)


def test_a_number_of_statements_whatever_the_number_of_items(site):
    resting(site, "night")
    counts = []
    for times in (1, 3):
        churn(site, times=times)
        with counted_statements(site.database) as statements:
            assert compact_resting(site.context, spare=ALWAYS) > 0
        counts.append(len(statements))
        for name in ("a", "b", "x00"):
            site.detach("night", [name])
    assert counts[0] == counts[1]


def test_every_rule_that_rests_is_looked_at_in_the_end(site):
    names = [f"set{number}" for number in range(4)]
    for name in names:
        site.dataset(name, HELD)
        resting(site, name)
        for other in OTHERS[:5]:
            site.attach(name, [other])
    rounds = 0
    while site.count(evaluation_items):
        rounds += 1
        assert rounds < 200, "one is never drawn"
        compact_resting(site.context, limit=1, spare=ALWAYS)
    assert rounds >= len(names)
