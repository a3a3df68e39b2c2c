"""What the command lines of the benchmarks share: their options, the peer beside them, and what a run ends with."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchlib.report import Result, table, write
from benchlib.rucio_peer import Rucio

BUILD = Path(__file__).resolve().parents[2] / "build" / "bench"


def command_parser(
    name: str,
    description: str | None,
    *,
    sizes: Sequence[int] = (),
    files: str = "",
    alone: str,
    quick: str,
) -> argparse.ArgumentParser:
    """Make a parser with the options that every benchmark has.

    Parameters
    ----------
    name
        Of the benchmark, and of the JSON that it writes.
    sizes
        Where none are given; empty for a benchmark that has options of its own for them.
    files
        What the sizes are of.
    alone
        What is measured without the peer.
    quick
        What ``--quick`` does.
    """
    parser = argparse.ArgumentParser(prog=f"benchmarks/{name}", description=description)
    add = parser.add_argument
    url = os.environ.get("ARRIERO_TEST_POSTGRESQL_URL")
    add("--postgresql", default=url, required=url is None, help="account that may create databases and roles")
    if sizes:
        add("--sizes", type=int, nargs="+", default=list(sizes), help=files)
    add("--rounds", type=int, default=3, help="rounds of each")
    add("--no-peer", action="store_true", help=f"only Arriero and {alone}")
    add("--quick", action="store_true", help=f"{quick}, no peer, one round: shows that it works")
    add(
        "--peer",
        type=Path,
        default=Path(os.environ.get("ARRIERO_BENCH_PEER", BUILD / "peer")),
        help="where Rucio is installed, or is to be",
    )
    add("--output", type=Path, default=BUILD / f"{name}.json", help="where the JSON goes")
    return parser


def peer_of(options: argparse.Namespace) -> Rucio | None:
    """Give the peer that was asked for; None where there is to be none."""
    if options.quick or options.no_peer:
        return None
    return Rucio(options.peer, options.postgresql)


@contextmanager
def running(peer: Rucio | None) -> Iterator[None]:
    """Have the peer run, if there is one."""
    try:
        if peer is not None:
            peer.start()
        yield
    finally:
        if peer is not None:
            peer.stop()


def tell(
    found: Sequence[Result],
    options: argparse.Namespace,
    *,
    costs: Sequence[str],
    small_print: Sequence[str],
    loads: Sequence[float],
    more: Sequence[str] = (),
) -> None:
    """Print what a run found, and write it.

    Parameters
    ----------
    costs
        Lines before the table.
    small_print, more
        Lines after it: how it was measured, and what else can be said.
    loads
        Load averages while it ran.
    """
    print("\n".join(costs), end="\n\n")
    print(table(found))
    said = (
        f"Load average while measuring: {min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} processors."
    )
    print("\n".join(["", *small_print, said, *more]))
    write(found, options.output)
    print(f"\nWritten: {options.output}")
