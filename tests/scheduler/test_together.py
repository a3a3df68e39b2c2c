"""Evaluators, workers, people who attach, detach, remove rules and bring files, all at once: nothing is missing then."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import literal, select

from arriero.registry.database import Database
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.replicas import NewReplica, add_replicas
from arriero.registry.services.rule_removal import remove_rule
from arriero.registry.states import DidType, Role, RuleGrouping, RuleState
from arriero.registry.store.evaluations import look_at_contents
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.transfer import TransferRunner
from support.invariants import assert_invariants
from support.scheduling import Catalogue, contents, dids, evaluations, requests, rules

RULES = [
    (1, RuleGrouping.DATASET),
    (2, RuleGrouping.NONE),
    (2, RuleGrouping.ALL),
    (3, RuleGrouping.DATASET),
]
FILES = 120


class Trouble:
    """Two containers of three datasets with four rules each, and those who work on them at once."""

    def __init__(self, catalogue: Catalogue, slac: int, seed: int) -> None:
        self.catalogue = catalogue
        self.seed = seed
        self.files = catalogue.files(FILES, at=[slac])
        self.sets = [
            catalogue.collection(f"set{number}", children=self.files[number * 20 : number * 20 + 10])
            for number in range(6)
        ]
        self.tops = [
            catalogue.collection(f"top{half}", DidType.CONTAINER, children=self.sets[half * 3 : half * 3 + 3])
            for half in range(2)
        ]
        self.rules = [
            catalogue.rule(top, "tier=2" + "|T0" * number, copies=copies, grouping=grouping)
            for top in self.tops
            for number, (copies, grouping) in enumerate(RULES)
        ]
        self.faults: list[Exception] = []
        self.ended = threading.Event()
        self.others = Database(catalogue.url)
        self.context = Context(self.others, catalogue.context.settings, catalogue.bells)
        self.root = Actor(catalogue.account_id, "root", Role.ADMIN)

    def evaluate(self) -> None:
        while not self.ended.is_set():
            Evaluator(self.catalogue.context).run()

    def copy(self) -> None:
        settings = self.catalogue.context.settings.model_copy(update={"transfer_batch": 25})
        context = Context(self.catalogue.database, settings, self.catalogue.bells)
        runner = TransferRunner(context, make_mover=ScriptedMover)
        while not self.ended.is_set():
            runner.run()

    def attach_and_detach(self, number: int) -> None:
        dice = random.Random(self.seed * 10 + number)
        for _ in range(25):
            dataset, chosen = dice.choice(self.sets), dice.sample(self.files, 8)
            attaches = dice.random() < 0.6

            def work(tx, dataset=dataset, chosen=chosen, attaches=attaches) -> None:
                held = set(tx.scalars(select(contents.c.child_id).where(contents.c.parent_id == dataset)))
                if attaches:
                    changed = sorted(set(chosen) - held)
                    for child in changed:
                        tx.execute(contents.insert().values(parent_id=dataset, child_id=child))
                else:
                    changed = sorted(set(chosen) & held)
                    where = (contents.c.parent_id == dataset, contents.c.child_id.in_(changed))
                    tx.execute(contents.delete().where(*where))
                pairs = select(literal(dataset), dids.c.id).where(dids.c.id.in_(changed))
                look_at_contents(tx, [dataset], pairs)

            try:
                self.others.run(work)
            except Exception as error:
                if "UNIQUE" not in str(error).upper():
                    raise

    def rules_come_and_go(self) -> None:
        for number in range(8):
            rule = self.catalogue.rule(self.tops[number % 2], f"tier=2&T{number % 4}", copies=1)
            uuid = self.catalogue.rule_row(rule).uuid
            Evaluator(self.context).run()
            remove_rule(self.context, self.root, uuid.hex, now=True)

    def bring_files(self) -> None:
        dice = random.Random(self.seed)
        for _ in range(20):
            chosen = [f"file-{number:06d}" for number in dice.sample(range(FILES), 5)]
            new = [NewReplica("raw", name, 1000, "0a0b0c0d") for name in chosen]
            add_replicas(self.context, self.root, f"T{dice.randrange(4)}", new)

    def run(self) -> None:
        """Have everybody work until those who change things are done."""
        workers = [self._thread(work) for work in (self.evaluate, self.evaluate, self.copy, self.copy)]
        changers = [self._thread(lambda number=number: self.attach_and_detach(number)) for number in range(3)]
        changers += [self._thread(self.rules_come_and_go), self._thread(self.bring_files)]
        for thread in changers:
            thread.join()
        self.ended.set()
        for thread in workers:
            thread.join()

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - shown by the test
                self.faults.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread


@pytest.fixture(params=[1, 2])
def trouble(catalogue, five_rses, request) -> Iterator[Trouble]:
    made = Trouble(catalogue, five_rses[0], request.param)
    yield made
    made.others.dispose()


def test_every_file_has_its_locks_in_the_end(catalogue, trouble):
    trouble.run()
    assert trouble.faults == []
    for _ in range(5):
        Evaluator(catalogue.context).run()
        TransferRunner(catalogue.context, make_mover=ScriptedMover).run()
    assert_invariants(catalogue.database)
    assert catalogue.count(evaluations) == 0
    assert catalogue.count(requests) == 0
    assert catalogue.count(rules) == len(trouble.rules)
    for rule in trouble.rules:
        assert catalogue.rule_row(rule).state == RuleState.OK
        assert catalogue.locks_of(rule)
