"""What a run of a benchmark has found so far."""

import sys
from collections import defaultdict
from dataclasses import dataclass, field

from benchlib.registry_run import RoundVoid
from benchlib.report import Sample, load_average


@dataclass
class Found:
    """Samples by work, size and side, and the load of the machine beside each."""

    samples: dict[tuple[str, int, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    loads: list[float] = field(default_factory=list)
    loads_of: dict[tuple[str, int, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """The same, beside each."""

    def keep(self, work: str, size: int, side: str, sample: Sample) -> None:
        """Add what one round measured."""
        self.samples[work, size, side].append(sample)
        self.loads.append(load_average())
        self.loads_of[work, size, side].append(self.loads[-1])
        say(f"{size:>9,}: {side}: {work}: {sample.rate:,.1f}")


def say(what: str) -> None:
    """Show how far it is."""
    print(f"[load {load_average():.1f}] {what}", file=sys.stderr, flush=True)


def require(holds: bool, what: object) -> None:
    """Void the round if what it did is not what it should have done.

    Raises
    ------
    RoundVoid
        It is not.
    """
    if not holds:
        raise RoundVoid(str(what))
