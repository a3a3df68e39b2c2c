"""Changes of one rule by several at once on PostgreSQL: exactly one wins, and nobody gets an unexpected error."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from arriero.registry.errors import Conflict, NotFound, RegistryError
from arriero.registry.schema.tables import rules
from arriero.registry.services.rule_approval import decide_rule
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_moves import move_rule, reduce_rule, release_parents
from arriero.registry.services.rule_removal import remove_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules, list_rules
from arriero.registry.services.subscriptions import add_subscription, list_subscriptions
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.rule_engine import Engine
from support.database import counted_statements
from support.rule_site import IN2P3, LANCS, SLAC, add

ROUNDS = 2


@pytest.fixture
def site(postgresql_catalogue):
    made = postgresql_catalogue
    made.context = replace(made.context, engine=Engine(made.context.settings))
    made.scope()
    for name in (SLAC, IN2P3, LANCS):
        made.rse(name)
    made.files(SLAC, ["a", "b", "c"])
    made.files(IN2P3, ["a", "b", "c"])
    made.dataset("d", ["a", "b", "c"])
    return made


def race(*works: Callable[[], object]) -> list[object]:
    """Do things at once; give what each gave, or the error of the registry that it ended with."""
    start = Barrier(len(works))

    def one(work: Callable[[], object]) -> object:
        start.wait(timeout=20)
        try:
            return work()
        except RegistryError as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(one, works))


def won(results: list[object]) -> int:
    lost = [one for one in results if isinstance(one, RegistryError)]
    assert all(isinstance(one, (Conflict, NotFound)) for one in lost), results
    return len(results) - len(lost)


def evaluate(site) -> None:
    Evaluator(site.context).run()


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_replacing_and_removing(site, round_):
    rule = add(site, f"{SLAC}|{IN2P3}", 2).hex
    evaluate(site)
    context, root = site.context, site.root
    results = race(
        lambda: move_rule(context, root, rule, LANCS, {"copies": 1}),
        lambda: move_rule(context, root, rule, f"{LANCS}|{SLAC}", {}),
        lambda: reduce_rule(context, root, rule, 1),
        lambda: remove_rule(context, root, rule, now=True),
    )
    assert won(results) == 1, results
    evaluate(site)
    left = [row["id"] for row in list_rules(context, {})]
    # a move leaves two, a reduction one, a removal none
    assert len(left) == [2, 2, 1, 0][[isinstance(one, RegistryError) for one in results].index(False)]


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_approving_and_denying(site, round_):
    rule = add(site, ask_approval=True).hex
    results = race(
        *(
            lambda approve=approve: decide_rule(site.context, site.root, rule, approve=approve)
            for approve in (True, False, True, False)
        )
    )
    assert won(results) == 1, results


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_changing_hands_suspending_and_evaluating(site, round_):
    names = [site.account(name).account for name in ("alice", "bob")]
    rule = add(site, f"{SLAC}|{LANCS}", 2).hex
    context, root = site.context, site.root
    results = race(
        *(lambda name=name: update_rule(context, root, rule, {"account": name}) for name in names),
        lambda: update_rule(context, root, rule, {"state": "SUSPENDED", "cancel_requests": True}),
        lambda: evaluate(site),
        lambda: add(site, f"{SLAC}|{LANCS}", 2, account="alice"),
    )
    assert not [one for one in results[2:4] if isinstance(one, RegistryError)], results
    # one of the two rules of alice is refused, whichever comes second
    assert won([results[0], results[4]]) == 1, results


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_circle_is_closed_by_nobody(site, round_):
    one, two = add(site, SLAC).hex, add(site, IN2P3).hex
    evaluate(site)
    context, root = site.context, site.root
    results = race(
        lambda: update_rule(context, root, one, {"child_rule_id": two}),
        lambda: update_rule(context, root, two, {"child_rule_id": one}),
        lambda: release_parents(context),
    )
    refused = [result for result in results if isinstance(result, RegistryError)]
    assert len(refused) == 1, results
    release_parents(context)
    assert site.count(rules) == 1


def test_one_subscription_of_a_name(site):
    options = {"filter": {"pattern": ".*"}, "replication_rules": [{"rse_expression": SLAC, "copies": 1}]}
    results = race(
        *(lambda: add_subscription(site.context, site.root, "root", "nightly", options) for _ in range(4))
    )
    assert won(results) == 1, results
    assert len(list(list_subscriptions(site.context))) == 1


def test_as_many_statements_for_ten_dids_as_for_many(site):
    names = [f"f{number}" for number in range(200)]
    site.files(SLAC, names)

    def statements(targets: list[str]) -> int:
        with counted_statements(site.database) as seen:
            add_rules(site.context, site.root, RuleSpec(SLAC, 1), [("raw", name) for name in targets])
        return len(seen)

    assert statements(names[:10]) == statements(names[10:]) < 20


def test_as_many_statements_for_one_template_as_for_many(site):
    template = {"rse_expression": SLAC, "copies": 1, "source_replica_expression": IN2P3}

    def statements(name: str, count: int) -> int:
        options = {"filter": {"pattern": ".*"}, "replication_rules": [template] * count}
        with counted_statements(site.database) as seen:
            add_subscription(site.context, site.root, "root", name, options)
        return len(seen)

    assert statements("one", 1) == statements("many", 100) < 20
