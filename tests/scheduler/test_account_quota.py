"""Limits of accounts while files are placed: RSEs that are over them drop out, and come back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, select, update

from arriero.registry.schema.tables import account_global_limits, account_limits, rules
from arriero.registry.services import account_limits as limits
from arriero.registry.services.context import Actor
from arriero.registry.states import Role, RuleGrouping, RuleState
from arriero.scheduler.evaluate import Evaluator
from support.scheduling import Catalogue, locks


@pytest.fixture
def site(catalogue) -> Catalogue:
    catalogue.slac = catalogue.rse("SLAC")
    catalogue.a, catalogue.b, catalogue.c = (catalogue.rse(name, attributes={"to": name}) for name in "ABC")
    return catalogue


def dataset(site: Catalogue, name: str) -> int:
    """Add a dataset of three files of 1000 bytes at SLAC."""
    return site.collection(name, children=site.files(3, prefix=name, at=[site.slac]))


def limit(site: Catalogue, rse_id: int, size: int) -> None:
    with site.database.transaction() as tx:
        tx.execute(insert(account_limits).values(account_id=site.account_id, rse_id=rse_id, bytes=size))


def limit_all(site: Catalogue, expression: str, size: int) -> None:
    values = {"account_id": site.account_id, "rse_expression": expression, "bytes": size}
    with site.database.transaction() as tx:
        tx.execute(insert(account_global_limits).values(**values))


def evaluate(site: Catalogue) -> None:
    Evaluator(site.context).run()
    site.check_invariants()


def places(site: Catalogue, rule: int) -> set[int]:
    return {rse_id for one in site.locks_of(rule).values() for rse_id in one}


def test_what_is_over_its_limit_is_not_chosen(site):
    limit(site, site.a, 2999)
    limit(site, site.b, 0)
    for number in range(4):
        rule = site.rule(dataset(site, f"d{number}"), "A|B|C")
        evaluate(site)
        assert places(site, rule) == {site.c}


def test_what_one_rule_takes_the_next_has_not(site):
    limit(site, site.a, 4000)
    first, second = (site.rule(dataset(site, name), "A") for name in ("d", "e"))
    evaluate(site)
    states = {site.rule_row(rule).state: rule for rule in (first, second)}
    assert set(states) == {RuleState.REPLICATING, RuleState.STUCK}
    reason = site.rule_row(states[RuleState.STUCK]).reason
    assert "A is over a limit of account root: 3000 bytes are needed and 1000 are left" in reason
    assert site.locks_of(states[RuleState.STUCK]) == {}


def test_what_the_account_holds_already_costs_nothing(site):
    limit(site, site.a, 3000)
    did = dataset(site, "d")
    site.rule(did, "A")
    evaluate(site)
    again = site.rule(did, "A|SLAC", copies=1, grouping=RuleGrouping.ALL)
    above = site.rule(site.collection("night", children=[]), "A")
    both = site.rule(did, "to=A")
    evaluate(site)
    assert places(site, both) == {site.a}
    assert {site.rule_row(rule).state for rule in (again, above, both)} <= {
        RuleState.REPLICATING,
        RuleState.OK,
    }


def test_global_limits_hold_for_the_rses_together(site):
    limit_all(site, "A|B", 3000)
    rule = site.rule(dataset(site, "d"), "A|B|C", copies=2)
    evaluate(site)
    assert len(places(site, rule) & {site.a, site.b}) <= 1
    assert len(places(site, rule)) == 2
    too_much = site.rule(dataset(site, "e"), "A|B", copies=2)
    evaluate(site)
    assert site.rule_row(too_much).state == RuleState.STUCK
    assert site.locks_of(too_much) == {}


def test_file_by_file(site):
    limit(site, site.a, 0)
    rule = site.rule(dataset(site, "d"), "A|B|C", grouping=RuleGrouping.NONE)
    none = site.rule(dataset(site, "e"), "A", grouping=RuleGrouping.NONE)
    evaluate(site)
    assert places(site, rule) <= {site.b, site.c}
    assert site.rule_row(none).state == RuleState.STUCK
    assert "limits of the account" in site.rule_row(none).reason


def test_a_rule_may_ignore_limits(site):
    limit(site, site.a, 0)
    rule = site.rule(dataset(site, "d"), "A")
    with site.database.transaction() as tx:
        tx.execute(update(rules).where(rules.c.id == rule).values(ignore_account_limit=True))
    evaluate(site)
    assert places(site, rule) == {site.a}


def test_a_rule_without_room_comes_back_when_the_limit_is_raised(site):
    limit(site, site.a, 0)
    rule = site.rule(dataset(site, "d"), "A")
    evaluate(site)
    assert site.rule_row(rule).state == RuleState.STUCK
    root = Actor(site.account_id, "root", Role.ADMIN)
    limits.set_local_limit(site.context, root, "root", "A", 3000)
    evaluate(site)
    assert places(site, rule) == {site.a}


def test_of_two_evaluations_at_once_only_one_takes_the_room(site):
    limit(site, site.a, 4000)
    for name in ("d", "e", "f", "g"):
        site.rule(dataset(site, name), "A")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: Evaluator(site.context).run(), range(4)))
    site.check_invariants()
    assert len(site.rows(select(locks.c.rule_id).distinct())) == 1
