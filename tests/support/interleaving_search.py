"""Finds the orders in which sessions can be stepped, each once, and runs them.

Two orders are one if they differ only in neighbours that could as well come the other way round: steps that have no
table in common, or do nothing to it that the other could notice (`interleaving_footprints`), or that hold rows beside
each other and have been seen not to want the same. Of each such class one
order is run (dynamic partial-order reduction with sleep sets: Flanagan and Godefroid 2005). With a bound on
pre-emptions, where a session is made to wait that could go on, sleep sets are left out and each place to switch is
tried at the last switch before it too, so that the bound hides no order within it (Coons, Musuvathi, McKinley 2013).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from support.interleaving import Event, Session, Step, Stepper

Work = tuple[str, Callable[[Session], object]]


@dataclass(slots=True)
class Frame:
    """A place in an order where it is decided who goes on."""

    ready: dict[int, Step]
    last: int | None
    spent: int
    """Pre-emptions before it."""
    chosen: int = -1
    to_try: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    sleep: set[int] = field(default_factory=set)

    def cost(self, number: int) -> int:
        return int(self.last in self.ready and number != self.last)


@dataclass(slots=True)
class Report:
    """What a search has done."""

    orders: int = 0
    """Run to the end and checked."""
    repeated: int = 0
    """Given up: nothing but what other orders have shown could follow."""
    complete: bool = False
    """No order is left."""
    diverged: int = 0
    """Orders that went another way than when their beginning was run before."""
    replayed: bool = False
    """Only one was asked for."""


class Failed(AssertionError):
    """An order after which something does not hold."""


def text_of(order: Sequence[int]) -> str:
    """An order in short: `0x5 1x3` are five steps of the first session and three of the second."""
    return " ".join(f"{number}x{len(list(same))}" for number, same in itertools.groupby(order))


def order_of(text: str) -> list[int]:
    """Read what `text_of` wrote."""
    parts = [part.split("x") for part in text.split()]
    return [int(number) for number, count in parts for _ in range(int(count))]


def steps_of(events: Sequence[Event], names: Sequence[str]) -> str:
    """An order at length, for people."""
    return "\n".join(f"  {names[event.session]:<12} {event.step.label}" for event in events)


class Search:
    """All orders of some sessions.

    Parameters
    ----------
    prepare
        Brings the catalogue into the state from which each order begins.
    check
        Gives what does not hold after an order, with what the sessions ended with.
    preemptions
        At most so many, at lock and commit points only; None: any number, anywhere.
    """

    def __init__(
        self,
        stepper: Stepper,
        works: Sequence[Work],
        *,
        prepare: Callable[[], None],
        check: Callable[[Sequence[Session]], list[str]],
        preemptions: int | None = None,
    ) -> None:
        self._stepper = stepper
        self._works = works
        self._prepare = prepare
        self._check = check
        self._bound = preemptions
        self._frames: list[Frame] = []
        self.report = Report()

    def explore(self, *, seconds: float | None = None) -> Report:
        """Run all orders, or those that so many seconds suffice for.

        Raises
        ------
        Failed
            With the order, at the first.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            self._run()
            self._find_races()
            if not self._next():
                self.report.complete = True
                return self.report
            if until is not None and time.monotonic() > until:
                return self.report

    def sample(self, count: int, *, seed: str, preemptions: int = 2) -> Report:
        """Run orders with few switches at places drawn by lot, the same ones for the same seed."""
        lot = Random(seed)
        length = 40
        for number in range(count):
            switches = set(lot.sample(range(1, length), preemptions))
            first = number % len(self._works)
            length = max(10, self._drawn(first, switches, lot))
        return self.report

    def replay(self, order: Sequence[int]) -> str:
        """Run one order; give its steps."""
        self.report.replayed = True
        self._prepare()
        self._stepper.start(self._works)
        for number in order:
            if number in self._stepper.ready:
                self._stepper.take(number)
        while self._stepper.ready:
            self._stepper.take(min(self._stepper.ready))
        self._judge()
        return steps_of(self._stepper.events, [name for name, _ in self._works])

    def _drawn(self, first: int, switches: set[int], lot: Random) -> int:
        self._prepare()
        stepper = self._stepper
        stepper.start(self._works)
        current, taken = first, 0
        while ready := stepper.ready:
            others = sorted(ready.keys() - {current})
            if others and (current not in ready or taken in switches):
                current = lot.choice(others)
            elif current not in ready:
                current = min(ready)
            stepper.take(current)
            taken += 1
        self._judge()
        return taken

    def _run(self) -> None:
        self._prepare()
        stepper = self._stepper
        stepper.start(self._works)
        for depth in itertools.count():
            ready = stepper.ready
            if not ready:
                break
            if depth == len(self._frames):
                frame = self._frame(ready)
                if frame is None:
                    stepper.abandon()
                    self.report.repeated += 1
                    return
                self._frames.append(frame)
            frame = self._frames[depth]
            if frame.chosen not in ready:
                # another way than the last time: what follows is worked out anew
                self.report.diverged += 1
                del self._frames[depth:]
                frame = self._frame(ready)
                if frame is None:
                    stepper.abandon()
                    return
                self._frames.append(frame)
            stepper.take(frame.chosen)
        del self._frames[len(stepper.events) :]
        self._judge()

    def _frame(self, ready: dict[int, Step]) -> Frame | None:
        if not self._frames:
            frame = Frame(ready, None, 0)
        else:
            before = self._frames[-1]
            happened = self._stepper.events[-1]
            frame = Frame(ready, before.chosen, before.spent + before.cost(before.chosen))
            if self._bound is None:
                asleep = (before.sleep | before.done) & ready.keys() - {before.chosen}
                frame.sleep = {one for one in asleep if not ready[one].footprint.depends_on(happened.effect)}
        awake = ready.keys() - frame.sleep
        if not awake:
            return None
        frame.chosen = frame.last if frame.last in awake else min(awake)
        return frame

    def _find_races(self) -> None:
        """Note where another session could have come first, and it would have mattered."""
        events = self._stepper.events[: len(self._frames)]
        last: dict[int, Event] = {}
        for later, event in enumerate(events):
            # what this session had seen when it came to this step
            seen = last[event.session].clock if event.session in last else [0] * len(self._works)
            last[event.session] = event
            for earlier in range(later - 1, -1, -1):
                other = events[earlier]
                if seen[other.session] >= other.clock[other.session]:
                    continue
                if other.matters_to(event):
                    self._try_before(earlier, later, event.session)
                    break

    def _try_before(self, earlier: int, later: int, session: int) -> None:
        frame = self._frames[earlier]
        events = self._stepper.events
        leads = {session} | {
            one.session
            for one in events[earlier + 1 : later]
            if events[later].clock[one.session] >= one.clock[one.session]
        }
        candidates = (leads & frame.ready.keys()) - {frame.chosen}
        chosen = {session} if session in candidates else set(sorted(candidates)[:1])
        if not chosen:
            chosen = set(frame.ready) - {frame.chosen}
        self._add(earlier, chosen)
        if self._bound is not None:
            start = earlier
            while start > 0 and self._frames[start - 1].chosen == self._frames[start].chosen:
                start -= 1
            if start != earlier:
                self._add(start, chosen)

    def _add(self, depth: int, sessions: set[int]) -> None:
        frame = self._frames[depth]
        if self._bound is not None:
            while depth > 0 and frame.last in frame.ready and not self._may_switch(depth):
                depth -= 1
                frame = self._frames[depth]
        frame.to_try |= sessions & frame.ready.keys()

    def _may_switch(self, depth: int) -> bool:
        """Whether a session stands at a lock or commit point, or has just committed."""
        frame = self._frames[depth]
        assert frame.last is not None
        step = frame.ready[frame.last]
        return not step.footprint.only_reads or self._stepper.events[depth - 1].step.footprint.ends

    def _next(self) -> bool:
        while self._frames:
            frame = self._frames[-1]
            frame.done.add(frame.chosen)
            left = frame.to_try - frame.done - frame.sleep
            if self._bound is not None:
                left = {one for one in left if frame.spent + frame.cost(one) <= self._bound}
            if left:
                frame.chosen = min(left)
                return True
            self._frames.pop()
        return False

    def _judge(self) -> None:
        self.report.orders += 1
        broken = self._check(self._stepper.active)
        if broken:
            names = [name for name, _ in self._works]
            order = text_of([event.session for event in self._stepper.events])
            said = "\n".join(broken)
            steps = steps_of(self._stepper.events, names)
            raise Failed(f"after the order {order!r} of {names}:\n{said}\n{steps}")
