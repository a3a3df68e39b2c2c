"""What the doctor has looked at again is whole afterwards, and no more is touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import delete, insert, update

from arriero.registry.services.context import Actor
from arriero.registry.services.doctor import repair
from arriero.registry.states import DidType, LockState, ReplicaState, Role, RuleState
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.transfer import TransferRunner
from support.invariants import assert_invariants, broken_invariants
from support.scheduling import (
    Catalogue,
    contents,
    dataset_locks,
    evaluations,
    locks,
    replicas,
    requests,
    rules,
)


class Night:
    """A rule in good order on a container of two datasets."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        slac, self.target, self.other = (catalogue.rse(name) for name in ("SLAC", "IN2P3", "LANCS"))
        self.files = catalogue.files(6, at=[slac])
        self.sets = [catalogue.collection(f"s{n}", children=self.files[n * 3 : n * 3 + 3]) for n in range(2)]
        top = catalogue.collection("all", DidType.CONTAINER, children=self.sets)
        self.rule = catalogue.rule(top, "IN2P3|LANCS\\LANCS")
        self.work()

    def work(self) -> None:
        for _ in range(3):
            Evaluator(self.catalogue.context).run()
            TransferRunner(self.catalogue.context, make_mover=ScriptedMover).run()

    def run(self, *statements) -> None:
        with self.catalogue.database.transaction() as tx:
            for statement in statements:
                tx.execute(statement)


@pytest.fixture
def night(catalogue) -> Night:
    made = Night(catalogue)
    assert_invariants(catalogue.database)
    return made


def missing(night: Night) -> None:
    night.run(delete(locks).where(locks.c.file_id == night.files[0]))


def surplus(night: Night) -> None:
    lock = {"rule_id": night.rule, "bytes": 1000, "state": LockState.OK}
    night.run(
        insert(locks).values(file_id=night.files[1], rse_id=night.other, **lock),
        insert(replicas).values(
            file_id=night.files[1], rse_id=night.other, bytes=1000, state=ReplicaState.AVAILABLE
        ),
    )


def uncovered(night: Night) -> None:
    night.run(delete(contents).where(contents.c.child_id == night.files[4]))


def uncovered_dataset(night: Night) -> None:
    night.run(delete(contents).where(contents.c.child_id == night.sets[1]))


def emptied_dataset(night: Night) -> None:
    night.run(delete(contents).where(contents.c.parent_id == night.sets[1]))
    night.run(delete(contents).where(contents.c.child_id == night.sets[1]))


def counts(night: Night) -> None:
    night.run(update(rules).values(locks_ok=1, locks_stuck=4))


def state(night: Night) -> None:
    night.run(update(rules).values(state=RuleState.REPLICATING))


def forgotten(night: Night) -> None:
    night.run(update(rules).values(state=RuleState.INJECT), delete(locks), delete(dataset_locks))
    night.run(update(rules).values(locks_ok=0))


def lock_without_replica(night: Night) -> None:
    gone = (replicas.c.file_id == night.files[2], replicas.c.rse_id == night.target)
    night.run(delete(replicas).where(*gone))


Break = Callable[[Night], None]

BREAKS: list[Break] = [
    missing,
    surplus,
    uncovered,
    uncovered_dataset,
    emptied_dataset,
    counts,
    state,
    forgotten,
    lock_without_replica,
]


@pytest.mark.parametrize("break_it", BREAKS)
def test_a_repair_makes_whole_again(night, break_it):
    break_it(night)
    assert broken_invariants(night.catalogue.database)
    root = Actor(night.catalogue.account_id, "root", Role.ADMIN)
    repair(night.catalogue.context, root)
    night.work()
    assert_invariants(night.catalogue.database)
    assert night.catalogue.rule_row(night.rule).state is RuleState.OK
    assert night.catalogue.count(evaluations) == 0
    assert night.catalogue.count(requests) == 0
