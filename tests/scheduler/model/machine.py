"""The state machine: the same random operations on the model and on the system, compared after each of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from arriero.registry.errors import RegistryError
from arriero.rse.errors import RSEError
from scheduler.model.drivers import Services
from scheduler.model.judge import Diverged, Judge
from scheduler.model.reference import Model, Refused, Rule
from scheduler.model.stage import (
    CONTAINERS,
    DATASETS,
    EXPRESSIONS,
    FAULTY,
    FILES,
    ROUNDS,
    SITES,
    STAGE,
    VALID,
    file,
    number,
    pick,
    site,
)
from support.invariants import assert_invariants


class Machine(RuleBasedStateMachine):
    """Operations of people, of workers and of time; subclasses say on what system."""

    system: ClassVar[Services]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(SITES)
        self.judge = Judge(self.model)
        self.faults: dict[tuple[str, str], str] = {}
        self.chance = 0
        """Of so many ways in which ties can be broken, this one."""
        self.system.begin(SITES)
        self.seen = self.system.look()
        self.is_sound = True

    def act(self, on_model: Callable[[], Any], on_system: Callable[[], Any]) -> bool:
        """Do the same to both; what the model refuses the system has to refuse, and nothing changes."""
        self.is_sound = False
        try:
            on_model()
        except Refused:
            with pytest.raises((RegistryError, RSEError)):
                on_system()
            assert self.system.look() == self.seen, "what was refused has changed something"
            self.is_sound = True
            return False
        on_system()
        self.step()
        return True

    def step(self) -> bool:
        """Compare; give whether anything has changed."""
        self.is_sound = False
        now = self.system.look()
        changed = now != self.seen
        self.judge.adopt(self.seen, now)
        self.seen, self.is_sound = now, True
        return changed

    @property
    def collections(self) -> list[str]:
        return [name for name, did in self.model.dids.items() if did.kind != "FILE"]

    # -- files and collections --

    @initialize(
        asked=st.lists(VALID, min_size=1, max_size=3, unique_by=lambda one: (one["did"], one["expression"])),
        is_settled=st.sampled_from((True, True, False)),
        chance=st.integers(0, 99),
    )
    def night(self, asked: list[dict[str, Any]], is_settled: bool, chance: int) -> None:
        """Overlapping datasets in nested containers, and some rules on them, often done already."""
        self.chance = chance
        self.act(*self._both("add_files", "R0", FILES[:4]))
        self.act(*self._both("add_files", "R2", FILES[2:4]))
        for name, kind, children in STAGE:
            self.act(*self._both("add_collection", name, kind))
            self.act(*self._both("attach", name, children))
        for one in asked:
            self._add(Rule(**one))
        if is_settled:
            self.quiesce(20_000)

    def _both(self, name: str, *args: Any, **options: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
        return (
            lambda: getattr(self.model, name)(*args, **options),
            lambda: getattr(self.system, name)(*args, **options),
        )

    @rule(rse=site, names=st.lists(file, min_size=1, max_size=3, unique=True))
    def add_files(self, rse: str, names: list[str]) -> None:
        self.act(*self._both("add_files", rse, names))

    @rule(container=st.booleans())
    def add_collection(self, container: bool) -> None:
        names = CONTAINERS if container else DATASETS
        free = [name for name in names if name not in self.model.dids]
        if free:
            self.act(*self._both("add_collection", free[0], "CONTAINER" if container else "DATASET"))

    @rule(parent=number, child=number)
    def attach_any(self, parent: int, child: int) -> None:
        children = [*self.model.dids, "nothing"]
        self.act(*self._both("attach", pick(self.collections, parent), [pick(children, child)]))

    @rule(parent=number, chosen=st.sets(number, min_size=1, max_size=3))
    def attach(self, parent: int, chosen: set[int]) -> None:
        above = pick(self.collections, parent)
        kinds = {"DATASET": ("FILE",)}.get(self.model.dids[above].kind, ("DATASET", "CONTAINER"))
        held = self.model.dids[above].children
        free = [name for name, did in self.model.dids.items() if did.kind in kinds and name not in held]
        self.act(*self._both("attach", above, sorted({pick(free, child) for child in chosen})))

    @rule(parent=number, chosen=st.sets(number, min_size=1, max_size=2))
    def detach(self, parent: int, chosen: set[int]) -> None:
        self._detach(pick(self.collections, parent), chosen)

    @rule(parent=number, chosen=st.sets(number, min_size=1, max_size=3))
    def detach_files(self, parent: int, chosen: set[int]) -> None:
        holding = [name for name in self.collections if self.model.dids[name].kind == "DATASET"]
        self._detach(pick(holding or self.collections, parent), chosen)

    def _detach(self, above: str, chosen: set[int]) -> None:
        children = sorted(self.model.dids[above].children)
        self.act(*self._both("detach", above, sorted({pick(children, child) for child in chosen})))

    @rule(which=number, is_open=st.booleans())
    def set_open(self, which: int, is_open: bool) -> None:
        self.act(*self._both("set_open", pick(self.collections, which), is_open=is_open))

    @precondition(lambda self: len(self.collections) > len(STAGE))
    @rule(which=number)
    def expire_collection(self, which: int) -> None:
        # seldom one on which all the rest stands
        later = [name for name in self.collections if name not in [one[0] for one in STAGE]]
        name = pick(later * 4 + self.collections, which)
        self.model.dids[name].expired = True
        self.system.expire(name)

    # -- rules --

    @precondition(lambda self: len(self.model.rules) < 6)
    @rule(
        did=number,
        expression=st.sampled_from((*EXPRESSIONS, *EXPRESSIONS, *FAULTY)),
        copies=st.sampled_from((1, 1, 1, 2, 2, 3, 0)),
        grouping=st.sampled_from(("DATASET", "NONE", "ALL")),
        sources=st.sampled_from((None, None, None, "tier=1", "R7")),
        priority=st.sampled_from((3, 3, 5, 1, 6)),
        ignore=st.booleans(),
        approval=st.sampled_from((False, False, False, True)),
    )
    def add_rule(self, did: int, ignore: bool, approval: bool, **options: Any) -> None:
        on = pick([*self.collections, *self.collections, *self.model.dids], did)
        self._add(
            Rule(on, **options, ignore_availability=ignore, state="WAITING_APPROVAL" if approval else "")
        )

    @precondition(lambda self: len(self.model.rules) < 6)
    @rule(asked=VALID)
    def add_another_rule(self, asked: dict[str, Any]) -> None:
        self._add(Rule(**asked))

    def _add(self, new: Rule) -> None:
        def on_system() -> None:
            self.model.rules[self.system.add_rule(new)] = new

        self.act(lambda: self.model.add_rule(new), on_system)

    def _rule(self, which: int) -> str:
        return pick([*self.model.rules], which) if self.model.rules else "0" * 32

    @rule(which=number)
    def remove_rule(self, which: int) -> None:
        self.act(*self._both("remove_rule", self._rule(which)))

    @rule(which=number, lock=st.booleans())
    def lock_rule(self, which: int, lock: bool) -> None:
        rule_id = self._rule(which)

        def on_model() -> None:
            self.model.rule(rule_id).locked = lock

        self.act(on_model, lambda: self.system.update_rule(rule_id, locked=lock))

    @rule(which=number)
    def expire_rule(self, which: int) -> None:
        rule_id = self._rule(which)

        def on_model() -> None:
            self.model.rule(rule_id).expired = True

        self.act(on_model, lambda: self.system.update_rule(rule_id, lifetime=-1))

    @rule(which=number, priority=st.sampled_from((1, 5, 0)))
    def set_priority(self, which: int, priority: int) -> None:
        rule_id = self._rule(which)

        def on_model() -> None:
            found = self.model.rule(rule_id)
            if not priority:
                raise Refused("priority")
            found.priority = priority

        self.act(on_model, lambda: self.system.update_rule(rule_id, priority=priority))

    @rule(which=number)
    def suspend(self, which: int) -> None:
        rule_id = self._rule(which)
        self.act(
            lambda: self.model.suspend(rule_id),
            lambda: self.system.update_rule(rule_id, state="SUSPENDED"),
        )

    @rule(which=number)
    def resume(self, which: int) -> None:
        resting = [one for one, row in self.model.rules.items() if row.state == "SUSPENDED"]
        rule_id = pick(resting, which) if resting else self._rule(which)
        self.act(
            lambda: self.model.resume(rule_id),
            lambda: self.system.update_rule(rule_id, state="INJECT"),
        )

    @rule(which=number)
    def boost(self, which: int) -> None:
        rule_id = self._rule(which)
        self.act(
            lambda: self.model.boost(rule_id, self.seen.locks.get(rule_id, {})),
            lambda: self.system.update_rule(rule_id, boost_rule=True),
        )

    @rule(which=number, approve=st.sampled_from((True, True, False)))
    def decide(self, which: int, approve: bool) -> None:
        waiting = [one for one, row in self.model.rules.items() if row.state == "WAITING_APPROVAL"]
        rule_id = pick(waiting, which) if waiting else self._rule(which)
        self.act(*self._both("decide", rule_id, approve=approve))

    @rule(which=number, expression=st.sampled_from((*EXPRESSIONS, FAULTY[0])))
    def move(self, which: int, expression: str) -> None:
        rule_id = self._rule(which)
        made: list[Rule] = []

        def on_system() -> None:
            child = self.system.move(rule_id, expression)
            self.model.rules[child] = made[0]
            self.model.rules[rule_id].child = child

        self.act(lambda: made.append(self.model.move(rule_id, expression)), on_system)

    # -- storage --

    @rule(
        chosen=st.sets(site, min_size=1),
        what=st.sampled_from(("read", "write")),
        while_it_lasts=st.booleans(),
    )
    def block(self, chosen: set[str], what: str, while_it_lasts: bool) -> None:
        """Block RSEs that are open, or open those that are not; have rules evaluated before anything else happens."""
        field = {"read": "readable", "write": "writable"}[what]
        for rse in sorted(chosen):
            is_open = not getattr(self.model.rses[rse], field)
            setattr(self.model.rses[rse], field, is_open)
            self.act(lambda: None, partial(self.system.block, rse, what, is_open=is_open))
        if while_it_lasts:
            self.evaluate(20_000, None)

    @rule(rse=site, tier=st.sampled_from(("1", "2")))
    def set_tier(self, rse: str, tier: str) -> None:
        self.model.rses[rse].attributes["tier"] = tier
        self.act(lambda: None, lambda: self.system.set_attribute(rse, "tier", tier))

    @precondition(lambda self: self.model.replicas)
    @rule(which=number, state=st.sampled_from(("BAD", "TEMPORARY_UNAVAILABLE", "AVAILABLE", "AVAILABLE")))
    def declare(self, which: int, state: str) -> None:
        key = sorted(self.model.replicas)[which % len(self.model.replicas)]
        self.act(*self._both("declare", key, state))

    @rule(name=file)
    def lose(self, name: str) -> None:
        """Declare every copy of a file bad that can be declared."""
        for key in sorted(key for key in self.model.replicas if key[0] == name):
            self.act(*self._both("declare", key, "BAD"))

    @rule(rse=site, kind=st.sampled_from(("once", "retryable", "permanent")))
    def break_rse(self, rse: str, kind: str) -> None:
        """Have copies to an RSE fail."""
        self.faults.update({(name, rse): kind for name in FILES})

    @rule(name=file, kind=st.sampled_from(("once", "retryable", "permanent")))
    def break_file(self, name: str, kind: str) -> None:
        """Have copies of a file fail, wherever to."""
        self.faults.update({(name, rse): kind for rse in SITES})

    @precondition(lambda self: self.faults)
    @rule()
    def mend_copies(self) -> None:
        self.faults.clear()

    # -- workers and time --

    @rule(chunk_files=st.sampled_from((1, 2, 3, 20_000)), looks=st.sampled_from((None, 1, 2, 3)))
    def evaluate(self, chunk_files: int, looks: int | None) -> None:
        """Evaluate what is due, or begin to."""
        self.system.evaluate(chunk_files=chunk_files, looks=looks)
        self.step()

    @rule()
    def transfer(self) -> None:
        self._transfer()

    def _transfer(self) -> int:
        return self._noted(self.system.transfer(self.faults, self._note))

    def _noted(self, count: int) -> int:
        self.step()
        return count

    def _note(self, key: tuple[str, str], succeeded: bool) -> None:
        self.model.note_copy(key, succeeded=succeeded)
        if self.faults.get(key) == "once":
            del self.faults[key]

    @rule(limit=st.integers(1, 3))
    def begin_copies(self, limit: int) -> None:
        self.system.begin_copies(limit)
        self.step()

    @precondition(lambda self: self.system.held)
    @rule(succeed=st.booleans())
    def end_copies(self, succeed: bool) -> None:
        self._noted(self.system.end_copies(self._note, succeed=succeed))

    @rule()
    def sweep(self) -> None:
        self._sweep()

    def _sweep(self) -> bool:
        changed = False
        for name, sweep in self.system.sweeps().items():
            count = sweep()
            if name == "rules":
                self.model.end_expired()
            elif name == "collections":
                self.model.erase_expired()
            changed |= bool(count) and self.step()
        return self.step() or changed

    @rule()
    def time_passes(self) -> None:
        self.model.time_passes()
        self.system.make_due(stuck=True)
        self.step()

    @rule(chunk_files=st.sampled_from((1, 2, 20_000)))
    def quiesce(self, chunk_files: int) -> None:
        """Have everything done that is due; then all has to be as the page says."""
        self.is_sound = False
        if self.system.held:
            self._noted(self.system.end_copies(self._note, succeed=True))
        for _ in range(ROUNDS):
            work = self._noted(self.system.evaluate(chunk_files=chunk_files))
            self.system.make_due()
            work += self._transfer()
            if not self._sweep() and not work:
                break
        else:
            raise Diverged("it does not come to rest")
        self.is_sound = False
        self.judge.check_quiet(self.seen)
        assert_invariants(self.system.database)
        self.system.check_told(self.seen)
        self.is_sound = True

    def teardown(self) -> None:
        if self.is_sound:
            self.quiesce(20_000)
