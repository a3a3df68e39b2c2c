"""The benchmark of rules: what is measured, at which sizes, in which order, and how it is verified.

Sides take turns within each round (A/B, then B/A). Work whose results are not what was asked for raises: there is no
figure of work that was not done.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchlib import rules_data
from benchlib.report import Sample
from benchlib.rucio_peer import Rucio
from benchlib.rules_fill import fill
from benchlib.rules_found import Found, require, say
from benchlib.rules_large import Large, measure_large
from benchlib.rules_sides import (
    OURS,
    TEMPLATE,
    CoreSide,
    arriero,
    arriero_process,
    bare_rows,
    make_template,
    rucio,
)
from benchlib.sides import recreate

BATCH = 100
"""Copies that are settled together, on both sides by default."""
LARGE_BATCH = 1000


@dataclass
class Plan:
    """What a run does."""

    admin_url: str
    sizes: Sequence[int]
    rounds: int
    appended: int
    large: Large
    rses: int
    expressions: int
    """Of each kind, a round."""
    peer_settled: int = 2_000
    """Copies that the peer settles at most, a round."""
    peer: Rucio | None = None


class Run:
    """One run of the benchmark."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.found = Found()

    def go(self) -> Found:
        """Measure everything."""
        plan = self.plan
        with ExitStack() as stack:
            worker = stack.enter_context(arriero_process(plan.admin_url))
            make_template(worker, plan.admin_url)
            ours, url = arriero(worker, plan.admin_url, "bench_rules")
            bare = recreate(plan.admin_url, "bench_rules_bare", template=TEMPLATE)
            sides = [ours]
            if plan.peer is not None:
                sides.append(stack.enter_context(rucio(plan.peer)))
            for size in plan.sizes:
                for turn in range(plan.rounds):
                    for side in sides if turn % 2 == 0 else reversed(sides):
                        if side.name == OURS or turn < self._peer_rounds(size):
                            self._round(side, size, turn, url)
                    self._bare(bare, size, turn)
            self._expressions(sides)
            measure_large(worker, plan.admin_url, plan.large, self.found)
        return self.found

    def _peer_rounds(self, size: int) -> int:
        # the peer's rounds at larger sizes take minutes each
        return self.plan.rounds if size == min(self.plan.sizes) else 1

    def _round(self, side: CoreSide, size: int, turn: int, url: str) -> None:
        dataset, appended = f"r{size}x{turn}", self.plan.appended
        say(f"{size:>9,}: {side.name}: round {turn + 1}")
        if side.name == OURS:
            fill(url, dataset, size, dataset=dataset)
            fill(url, f"{dataset}a", appended)
        else:
            side.worker.do("fill", prefix=dataset, count=size, dataset=dataset, loose=appended)
        rule = self._new_rule(side, "one missing copy", dataset, rules_data.DESTINATION, size)
        self._check(side, rule, ok=0, replicating=size)
        if size == min(self.plan.sizes):
            self._changes(side, size, dataset, rule)
        there = self._new_rule(side, "all there", dataset, rules_data.THERE, size)
        extra = appended if size == min(self.plan.sizes) else 0
        self._check(side, there, ok=size + extra, replicating=0)

    def _new_rule(self, side: CoreSide, work: str, dataset: str, expression: str, size: int) -> str:
        side.calm()
        answer, sample = side.do("new_rule", dataset=dataset, expression=expression, count=size)
        self.found.keep(f"new rule, {work}", size, side.name, sample)
        return str(answer["rule"])

    def _changes(self, side: CoreSide, size: int, dataset: str, rule: str) -> None:
        appended = self.plan.appended
        side.calm()
        answer, sample = side.do("append", prefix=f"{dataset}a", start=0, count=appended, dataset=dataset)
        self._check(side, rule, ok=0, replicating=size + appended)
        self.found.keep("evaluate what is appended", size, side.name, sample)
        both = answer["seconds"] + answer["attach_seconds"]
        self.found.keep("attach and evaluate", size, side.name, Sample(appended / both))
        side.calm()
        copies = size if side.name == OURS else min(size, self.plan.peer_settled)
        # half of them in batches as they are by default, half in larger ones
        for work, batch, settled in (
            (f"settle copies, {BATCH} a batch", BATCH, copies - copies // 2),
            (f"settle copies, {LARGE_BATCH:,} a batch", LARGE_BATCH, copies // 2),
        ):
            answer, sample = side.do("settle_copies", rule=rule, count=settled, batch=batch)
            require(answer["n"] == settled, f"{side.name}: settled {answer['n']} of {settled}")
            self.found.keep(work, size, side.name, sample)
        self._check(side, rule, ok=copies, replicating=size + appended - copies)
        side.calm()
        _, sample = side.do("remove", rule=rule, count=size + appended)
        require(side.worker.do("counts", rule=rule)["state"] is None, f"{side.name}: the rule is still there")
        self.found.keep("remove a rule", size, side.name, sample)

    @staticmethod
    def _check(side: CoreSide, rule: str, *, ok: int, replicating: int) -> None:
        counts = side.worker.do("counts", rule=rule)
        expected = {
            "state": "REPLICATING" if replicating else "OK",
            "ok": ok,
            "replicating": replicating,
            "stuck": 0,
            "locks": ok + replicating,
            "requests": replicating,
        }
        require(counts == expected, f"{side.name}: {counts} instead of {expected}")

    def _bare(self, url: str, size: int, turn: int) -> None:
        dataset = f"r{size}x{turn}"
        fill(url, dataset, size, dataset=dataset)
        self.found.keep(
            "new rule, one missing copy", size, "INSERT", bare_rows(self.plan.admin_url, url, dataset)
        )

    def _expressions(self, sides: Sequence[CoreSide]) -> None:
        plan = self.plan
        for side in sides:
            side.worker.do("add_rses", count=plan.rses)
            side.calm()
        for turn in range(plan.rounds):
            # what the peer knows again is what it has just read
            for offset, mode in ((0, "loaded"), (1, "read"), (1, "again")):
                for side in sides if turn % 2 == 0 else reversed(sides):
                    for kind in rules_data.KINDS:
                        self._evaluate(side, kind, (2 * turn + offset) * plan.expressions, mode)

    def _evaluate(self, side: CoreSide, kind: str, first: int, mode: str) -> None:
        answer, sample = side.do(
            "expressions", kind=kind, first=first, count=self.plan.expressions, mode=mode
        )
        numbers = range(first, first + self.plan.expressions)
        expected = [rules_data.satisfying(kind, number, self.plan.rses) for number in numbers]
        require(answer["found"] == expected, f"{side.name}: {kind} {answer['found']} instead of {expected}")
        self.found.keep(f"expression, {kind}, {mode}", self.plan.rses, side.name, sample)
