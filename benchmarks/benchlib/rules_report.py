"""Turns what a run of the benchmark of rules has found into the lines of its report."""

from collections.abc import Mapping, Sequence
from statistics import median

from benchlib import rules_data
from benchlib.registry_report import FLAT, rates
from benchlib.report import Result, Sample, at_most, compare
from benchlib.rules_large import FEW, Large
from benchlib.rules_sides import OURS, PEER

Samples = Mapping[tuple[str, int, str], Sequence[Sample]]

LIMIT = round(1 / 1.5, 2)
"""Of the rate of the bare rows: within 1.5 times the time."""

NEW = "new rule, one missing copy"
APPENDED = "evaluate what is appended"
TARGETS: Mapping[str, float | None] = {
    NEW: 100,
    "new rule, all there": 100,
    APPENDED: 50,
    "attach and evaluate": None,
    "settle copies, 100 a batch": 50,
    "settle copies, 1,000 a batch": 50,
    "remove a rule": 50,
}
MODES = {
    "loaded": (", RSEs read before, index kept (peer: reads them)", 50.0),
    "read": (", RSEs read first", None),
    "again": (", RSEs read first (peer: from its cache)", None),
}
MOST_S = {"files": 60.0, "container": 90.0, "few": 0.1, "wait": 2.0}
MOST_MB = 50.0


def results(samples: Samples, sizes: Sequence[int], rses: int, large: Large) -> list[Result]:
    """Make the lines."""
    return _beside(samples, sizes) + _expressions(samples, rses) + _large(samples, min(sizes), large)


def _beside(samples: Samples, sizes: Sequence[int]) -> list[Result]:
    lines = []
    for work, target in TARGETS.items():
        for size in sizes:
            ours = rates(samples, work, size, OURS)
            if not ours:
                continue
            peer, name = rates(samples, work, size, PEER), f"{work}, {size:,}"
            bounded = work.startswith("settle") and any(
                one.items < size // 2 for one in samples.get((work, size, PEER), ())
            )
            peer_name = f"{PEER}, bounded" if peer and bounded else PEER
            lines.append(compare(name, "files/s", ours, peer, peer_name=peer_name, target=target))
            if bare := rates(samples, work, size, "INSERT"):
                lines.append(
                    compare(name, "files/s", ours, bare, peer_name="bare INSERT ... SELECT", target=LIMIT)
                )
    return lines


def _expressions(samples: Samples, rses: int) -> list[Result]:
    return [
        compare(
            f"expression over {rses:,} RSEs, {kind}{words}",
            "expressions/s",
            rates(samples, f"expression, {kind}, {mode}", rses, OURS),
            rates(samples, f"expression, {kind}, {mode}", rses, PEER),
            peer_name=PEER,
            target=target,
        )
        for mode, (words, target) in MODES.items()
        for kind in rules_data.KINDS
    ]


def _large(samples: Samples, small: int, large: Large) -> list[Result]:
    files, container = large.files, large.datasets * large.per_dataset
    whole, few = rates(samples, NEW, files, OURS), "evaluate a few that are appended"
    return [
        at_most(f"{NEW}, {files:,}", "s", [files / one for one in whole], MOST_S["files"]),
        compare(
            f"{NEW}, {files:,}",
            "files/s",
            whole,
            rates(samples, NEW, files, "INSERT"),
            peer_name="bare INSERT ... SELECT",
        ),
        _against_small(samples, NEW, files, small),
        at_most(
            f"growth of the worker, {files:,}",
            "MB",
            rates(samples, "growth of the worker, MB", files, OURS),
            MOST_MB,
        ),
        _against_small(samples, APPENDED, files, small),
        at_most(
            f"evaluate {FEW} appended to {files:,}",
            "ms",
            [1000 * FEW / one for one in rates(samples, few, files, OURS)],
            1000 * MOST_S["few"],
        ),
        at_most(
            f"new rule on {large.datasets:,} datasets of {large.per_dataset:,}",
            "s",
            [container / one for one in rates(samples, "new rule on a container", container, OURS)],
            MOST_S["container"],
        ),
        at_most(
            f"wait of a rule on 10 files beside one on {files:,}, longest",
            "s",
            [max(rates(samples, "wait of a small rule, s", files, OURS))],
            MOST_S["wait"],
        ),
    ]


def _against_small(samples: Samples, work: str, size: int, small: int) -> Result:
    return compare(
        f"{work}, {size:,} against {small:,}",
        "files/s",
        rates(samples, work, size, OURS),
        rates(samples, work, small, OURS),
        peer_name=f"arriero at {small:,}",
        target=FLAT,
    )


def costs(samples: Samples) -> list[str]:
    """Say what each work cost: the spread, processor time of worker and database, and memory."""
    lines = []
    for (work, size, side), rounds in samples.items():
        if not any(one.client_rss_mb for one in rounds):
            continue
        spread = f"{min(one.rate for one in rounds):,.0f} to {max(one.rate for one in rounds):,.0f} /s"
        worker = median(one.client_cpu_s for one in rounds)
        database = median(one.database_cpu_s for one in rounds)
        memory = median(one.client_rss_mb for one in rounds)
        lines.append(
            f"{side:<13} {work:<34} {size:>9,}: {spread}; CPU worker {worker:.2f} s, database {database:.2f} s; "
            f"peak memory {memory:.0f} MB"
        )
    return lines


def by_processor_time(samples: Samples) -> list[str]:
    """Compare what an item cost both sides, worker and database together: this says more where the machine is shared."""
    lines = []
    for (work, size, side), rounds in samples.items():
        ours, theirs = _cpu_ms(samples.get((work, size, OURS), ())), _cpu_ms(rounds)
        if side != OURS and ours and theirs:
            lines.append(
                f"{work}, {size:,}: {ours:.3f} ms of processor time each, {side} {theirs:.3f}: "
                f"{theirs / ours:.2f} times"
            )
    return lines and ["", *lines]


def _cpu_ms(rounds: Sequence[Sample]) -> float:
    # seconds of processor time an item, from those of the whole
    each = [1000 * (one.client_cpu_s + one.database_cpu_s) / one.items for one in rounds if one.items]
    return median(each) if each else 0.0
