"""``arriero transfer list --watch``: how much is left to copy, round and round."""

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from arriero.agent.cli.failures import PartialSuccess
from arriero.agent.cli.output import Format, table_of
from arriero.agent.cli.session import Session
from arriero.agent.cli.transfer import TOTALS, summed

if TYPE_CHECKING:
    from arriero.registry.operations import TransferFilter, TransferTotal

Round = list["TransferTotal"]


def watch_transfers(session: Session, chosen: "TransferFilter", *, every_s: float) -> None:
    """Show what is left of some transfers until nothing is.

    Raises
    ------
    PartialSuccess
        Some were given up.
    """
    rounds = _rounds(session, chosen, every_s)
    match session.output.format:
        case Format.TABLE if sys.stdout.isatty():
            last = _on_a_terminal(rounds)
        case Format.TABLE:
            last = _as_sentences(session, rounds)
        case Format.JSONL:
            last = _as_lines(session, rounds)
        case _:
            raise click.UsageError("--watch writes a table or lines: -o table or -o jsonl.")
    failed = sum(one.files for one in last if one.state == "FAILED")
    if failed:
        raise PartialSuccess(f"{failed} transfers were given up: see 'arriero transfer list --state FAILED'.")


def _rounds(session: Session, chosen: "TransferFilter", every_s: float) -> Iterator[Round]:
    while True:
        found = session.client.total_transfers(chosen)
        yield found
        if all(one.state == "FAILED" for one in found):
            return
        time.sleep(every_s)


def _left(totals: Round) -> dict[str, int]:
    sums = {"queued_files": 0, "under_way_files": 0, "failed_files": 0, "bytes_left": 0}
    words = {"QUEUED": "queued", "SUBMITTED": "under_way", "FAILED": "failed"}
    for one in totals:
        sums[f"{words[one.state.value]}_files"] += one.files
        sums["bytes_left"] += 0 if one.state == "FAILED" else one.bytes
    return sums


def _as_lines(session: Session, rounds: Iterator[Round]) -> Round:
    last: Round = []
    for last in rounds:
        session.output.record(_left(last))
    return last


def _as_sentences(session: Session, rounds: Iterator[Round]) -> Round:
    last: Round = []
    for last in rounds:
        session.output.lines("line", [summed(last)])
    return last


def _on_a_terminal(rounds: Iterator[Round]) -> Round:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns)
    task = bar.add_task("Copied", total=0)
    total, before = 0, 0
    last: Round = []
    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        for last in rounds:
            left = _left(last)["bytes_left"]
            # what is asked for meanwhile makes it longer, and is no step back
            total += max(left - before, 0)
            before = left
            bar.update(task, total=total, completed=total - left)
            rows = [one.model_dump(mode="json") for one in last]
            live.update(Group(table_of(TOTALS, rows), summed(last), bar), refresh=True)
    return last
