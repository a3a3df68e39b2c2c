"""What the state machine of `test_model` has found, each in as few steps as it takes."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import dids, locks
from arriero.registry.services.erasure import erase_expired_collections
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import RuleGrouping
from arriero.scheduler.evaluate import Evaluator
from support import in_process
from support.in_process import InProcess
from support.invariants import assert_invariants

catalogue = in_process.catalogue


@pytest.fixture
def site(catalogue) -> InProcess:
    """A container of a container of a dataset of three files, and two RSEs."""
    catalogue.scope()
    for name in ("SLAC", "IN2P3"):
        catalogue.rse(name)
    catalogue.files("SLAC", ["f0", "f1", "f2"])
    catalogue.dataset("inner", ["f0", "f1", "f2"])
    catalogue.container("middle", ["inner"])
    catalogue.container("outer", ["middle"])
    return catalogue


def files_with_locks(site: InProcess) -> list[str]:
    Evaluator(site.context).run()
    assert_invariants(site.database)
    query = select(dids.c.name).join(locks, locks.c.file_id == dids.c.id).order_by(dids.c.name)
    return [row["name"] for row in site.rows(query)]


@pytest.mark.parametrize("grouping", list(RuleGrouping))
@pytest.mark.parametrize(("parent", "child"), [("outer", "middle"), ("middle", "inner")])
def test_what_leaves_a_collection_that_has_been_detached_leaves_the_rules_that_were_above_it(
    site, grouping, parent, child
):
    """The rules above a detached collection look at it later: what has left it by then has to lose its locks too."""
    add_rules(site.context, site.root, RuleSpec("SLAC", 1, grouping=grouping), [("raw", "outer")])
    assert files_with_locks(site) == ["f0", "f1", "f2"]
    site.detach(parent, [child])
    site.detach("inner", ["f1"])
    assert files_with_locks(site) == []


@pytest.mark.parametrize(("parent", "child"), [("outer", "middle"), ("middle", "inner")])
def test_a_collection_that_is_detached_and_then_erased_leaves_no_locks(site, parent, child):
    add_rules(site.context, site.root, RuleSpec("SLAC", 1), [("raw", "outer")])
    assert files_with_locks(site) == ["f0", "f1", "f2"]
    site.detach(parent, [child])
    with site.database.transaction() as tx:
        tx.execute(update(dids).where(dids.c.name == child).values(expired_at=after(-1)))
    assert erase_expired_collections(site.context) == 1
    assert files_with_locks(site) == []
