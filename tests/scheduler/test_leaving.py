"""What leaves a rule before the rule is looked at, in however many steps: nothing is missed, also while the rule rests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from arriero.registry.services.resting_rules import ALWAYS, compact_resting
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import RuleGrouping
from arriero.scheduler.evaluate import Evaluator
from support import in_process
from support.in_process import InProcess
from support.invariants import assert_invariants

catalogue = in_process.catalogue

Change = Callable[[InProcess], None]


@pytest.fixture
def site(catalogue) -> InProcess:
    """A container of two datasets that share a file, and two RSEs."""
    catalogue.scope()
    for rse in ("SLAC", "IN2P3"):
        catalogue.rse(rse)
    catalogue.files("SLAC", ["a", "b", "c"])
    catalogue.dataset("night", ["a", "b", "c"])
    catalogue.dataset("other", ["c"])
    catalogue.container("all", ["night", "other"])
    return catalogue


def _detach_file(site: InProcess) -> None:
    site.detach("night", ["a"])


def _detach_dataset(site: InProcess) -> None:
    site.detach("all", ["night"])


def _empty_and_detach_dataset(site: InProcess) -> None:
    site.detach("night", ["a", "b", "c"])
    site.detach("all", ["night"])


def _exchange(site: InProcess) -> None:
    site.detach("night", ["a", "b"])
    site.files("SLAC", ["d"])
    site.attach("night", ["d"])


def _looks(site: InProcess) -> None:
    Evaluator(site.context).run()


def _is_thinned_out(site: InProcess) -> None:
    compact_resting(site.context, spare=ALWAYS)


@pytest.mark.parametrize("meanwhile", [lambda _: None, _looks, _is_thinned_out])
@pytest.mark.parametrize("on", ["night", "all"])
@pytest.mark.parametrize("change", [_detach_file, _detach_dataset, _empty_and_detach_dataset, _exchange])
def test_what_changed_meanwhile_is_seen_when_it_goes_on(site, change, on, meanwhile):
    [rule] = add_rules(site.context, site.root, RuleSpec("IN2P3", 1), [("raw", on)])
    Evaluator(site.context).run()
    update_rule(site.context, site.root, rule.hex, {"state": "SUSPENDED"})
    change(site)
    meanwhile(site)
    assert_invariants(site.database)
    update_rule(site.context, site.root, rule.hex, {"state": "INJECT"})
    Evaluator(site.context).run()
    assert_invariants(site.database)


def _file_after_its_dataset(site: InProcess) -> None:
    site.detach("inner", ["night"])
    site.detach("night", ["a"])


def _all_files_after_their_dataset(site: InProcess) -> None:
    site.detach("inner", ["night"])
    site.detach("night", ["a", "b", "c"])


def _dataset_after_its_container(site: InProcess) -> None:
    site.detach("outer", ["inner"])
    site.detach("inner", ["night"])
    site.detach("night", ["a"])


def _file_after_its_container(site: InProcess) -> None:
    site.detach("outer", ["inner"])
    site.detach("night", ["a"])


def _back_again_without_a_file(site: InProcess) -> None:
    site.detach("inner", ["night"])
    site.detach("night", ["a"])
    site.attach("inner", ["night"])


STEPS = [
    _file_after_its_dataset,
    _all_files_after_their_dataset,
    _dataset_after_its_container,
    _file_after_its_container,
    _back_again_without_a_file,
]


@pytest.mark.parametrize("grouping", list(RuleGrouping))
@pytest.mark.parametrize("change", STEPS)
def test_what_leaves_step_by_step_is_seen(site, change, grouping):
    site.container("inner", ["night"])
    site.container("outer", ["inner", "other"])
    add_rules(site.context, site.root, RuleSpec("IN2P3", 1, grouping=grouping), [("raw", "outer")])
    Evaluator(site.context).run()
    assert_invariants(site.database)
    change(site)
    Evaluator(site.context).run()
    assert_invariants(site.database)
