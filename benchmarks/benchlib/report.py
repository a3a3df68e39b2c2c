"""What a run found: the table for people and the JSON for whoever compares."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Result:
    """One line: how fast we are at some work, how fast the other is, and what was to be reached.

    ``ratio`` is ours to the peer's, the higher the better; where less is better (memory) it is the peer's to ours.
    """

    work: str
    unit: str
    ours: float
    peer: float | None
    peer_name: str | None
    ratio: float | None
    target: float | None


@dataclass
class Sample:
    """What one round measured of one side."""

    rate: float
    client_cpu_s: float = 0.0
    client_rss_mb: float = 0.0
    server_cpu_s: float = 0.0
    database_cpu_s: float = 0.0
    service_rss_mb: float = 0.0
    items: int = 0
    """Of which the rate is; 0 where nobody asks."""


def compare(
    work: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    *,
    peer_name: str | None,
    target: float | None = None,
    less_is_better: bool = False,
) -> Result:
    """Make a line of the medians of rounds."""
    mine = median(ours)
    other = median(peer) if peer else None
    ratio = None
    if other:
        ratio = other / mine if less_is_better else mine / other
    return Result(
        work,
        unit,
        round(mine, 1),
        None if other is None else round(other, 1),
        peer_name if other is not None else None,
        None if ratio is None else round(ratio, 2),
        target,
    )


def at_most(work: str, unit: str, found: Sequence[float], most: float) -> Result:
    """Make a line of the median of rounds, which should not be above a figure."""
    return compare(work, unit, found, [most], peer_name="at most", target=1, less_is_better=True)


def at_least(work: str, unit: str, found: Sequence[float], least: float) -> Result:
    """Make a line of the median of rounds, which should not be below a figure."""
    return compare(work, unit, found, [least], peer_name="at least", target=1)


def table(results: Sequence[Result]) -> str:
    """Lay the results out as text."""
    rows = [("work", "unit", "arriero", "other", "", "ratio", "target", "")]
    for one in results:
        met = ""
        if one.ratio is not None and one.target is not None:
            met = "reached" if one.ratio >= one.target else "MISSED"
        rows.append(
            (
                one.work,
                one.unit,
                f"{one.ours:,.1f}" if one.ours < 100 else f"{one.ours:,.0f}",
                "" if one.peer is None else f"{one.peer:,.1f}" if one.peer < 100 else f"{one.peer:,.0f}",
                one.peer_name or "",
                "" if one.ratio is None else f"{one.ratio:,.2f}",
                "" if one.target is None else f"{one.target:g}",
                met,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {2, 3, 5, 6}
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def write(results: Sequence[Result], path: Path) -> None:
    """Write the results as JSON: a list of objects with the fields of `Result`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(one) for one in results], indent=1) + "\n")


def load_average() -> float:
    """Give the load of the last minute."""
    return os.getloadavg()[0]
