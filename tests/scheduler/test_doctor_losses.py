"""Lost files, from the last hope to the accepted loss: the doctor and the evaluation say the same of them."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    dids,
    evaluation_items,
    evaluations,
    locks,
    lost_files,
    replicas,
    rules,
)
from arriero.registry.services.bad_replicas import Declaration, Named, declare
from arriero.registry.services.doctor import repair
from arriero.registry.services.losses import accept_losses
from arriero.registry.services.replica_lifetimes import expire_announced
from arriero.registry.services.replicas import StateChange, update_states
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import BadReplicaState, LockState, ReplicaState, RuleGrouping, RuleState
from arriero.scheduler.evaluate import Evaluator
from support import in_process
from support.invariants import assert_invariants, broken_invariants

catalogue = in_process.catalogue

SOURCE, HOPE = "SLAC", "IN2P3"


@pytest.fixture(params=[RuleGrouping.DATASET, RuleGrouping.NONE])
def site(request, catalogue):
    """A rule on a dataset of two files; that one of them comes is announced, and nowhere is a good copy of it."""
    catalogue.scope()
    for rse in (SOURCE, HOPE):
        catalogue.rse(rse)
    catalogue.files(SOURCE, ["a"])
    catalogue.files(HOPE, ["b"])
    catalogue.files(HOPE, ["a"], state=ReplicaState.COPYING)
    catalogue.dataset("night", ["a", "b"])
    [catalogue.rule] = add_rules(
        catalogue.context, catalogue.root, RuleSpec(HOPE, 1, grouping=request.param), [("raw", "night")]
    )
    Evaluator(catalogue.context).run()
    bad = Declaration(BadReplicaState.BAD, "truncated")
    assert declare(catalogue.context, catalogue.root, [Named("raw", "a", SOURCE)], bad) == {}
    Evaluator(catalogue.context).run()
    assert locks_of(catalogue) == {"a": (LockState.REPLICATING, None), "b": (LockState.OK, None)}
    assert catalogue.count(lost_files) == 0
    sound(catalogue)
    return catalogue


def sound(site) -> None:
    assert_invariants(site.database)


def locks_of(site) -> dict[str, tuple[LockState, str | None]]:
    query = select(dids.c.name, locks.c.state, locks.c.code).join(locks, locks.c.file_id == dids.c.id)
    return {row["name"]: (row["state"], row["code"]) for row in site.rows(query)}


def give_up(site) -> None:
    """The client says that the copy is not to come."""
    update_states(site.context, site.root, HOPE, [StateChange("raw", "a", ReplicaState.UNAVAILABLE)])
    assert site.count(lost_files) == 1


def run_late(site) -> None:
    """The client says nothing, for too long."""
    with site.database.transaction() as tx:
        announced = update(replicas).where(replicas.c.announced_at.is_not(None))
        tx.execute(announced.values(announced_at=after(-10 * 86400)))
    assert expire_announced(site.context) == 1
    assert site.count(lost_files) == 1


LOST = {"a": (LockState.STUCK, "lost"), "b": (LockState.OK, None)}


@pytest.mark.parametrize("lose", [give_up, run_late])
def test_a_lost_file_that_its_rule_has_yet_to_look_at_breaks_nothing(site, lose):
    lose(site)
    assert locks_of(site)["a"] == (LockState.REPLICATING, None)
    sound(site)
    Evaluator(site.context).run()
    assert locks_of(site) == LOST
    sound(site)


@pytest.mark.parametrize("lose", [give_up, run_late])
def test_a_lost_file_of_a_rule_that_rests_breaks_nothing(site, lose):
    update_rule(site.context, site.root, site.rule.hex, {"state": "SUSPENDED"})
    Evaluator(site.context).run()
    lose(site)
    Evaluator(site.context).run()
    assert locks_of(site)["a"] == (LockState.REPLICATING, None)
    sound(site)
    update_rule(site.context, site.root, site.rule.hex, {"state": "INJECT"})
    sound(site)
    Evaluator(site.context).run()
    assert locks_of(site) == LOST
    sound(site)


def test_a_lost_file_that_no_rule_is_to_look_at_is_named(site):
    """What must never be: it is lost, and nobody will say so on its lock."""
    give_up(site)
    with site.database.transaction() as tx:
        tx.execute(delete(evaluation_items))
        tx.execute(delete(evaluations))
    assert any(said.startswith("I1: ") for said in broken_invariants(site.database))
    with site.database.transaction() as tx:
        tx.execute(update(rules).values(state=RuleState.SUSPENDED))
    assert any(said.startswith("I1: ") for said in broken_invariants(site.database))


def test_an_accepted_loss_leaves_no_lock_missing_and_none_behind(site):
    give_up(site)
    accept_losses(site.context, site.root, [("raw", "a")], reason="the tape is gone")
    sound(site)
    Evaluator(site.context).run()
    assert locks_of(site) == {"b": (LockState.OK, None)}
    sound(site)


def test_a_lost_file_that_is_content_has_its_lock_or_it_is_missing(site):
    give_up(site)
    accept_losses(site.context, site.root, [("raw", "a")])
    Evaluator(site.context).run()
    # whoever attaches it again wants it: the rule asks for it, and says that it is lost
    site.attach("night", ["a"])
    Evaluator(site.context).run()
    assert locks_of(site) == LOST
    sound(site)
    with site.database.transaction() as tx:
        tx.execute(delete(locks).where(locks.c.state == LockState.STUCK))
        tx.execute(update(rules).values(locks_stuck=0, state=RuleState.OK))
    [said] = broken_invariants(site.database)
    assert said.startswith("I2: a file of a rule has fewer locks than `copies`: 1, such as")
    repair(site.context, site.root)
    Evaluator(site.context).run()
    assert locks_of(site) == LOST
    sound(site)
