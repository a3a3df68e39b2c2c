"""The command line of `benchmarks/registry`."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchlib.registry_report import costs, results
from benchlib.registry_run import Plan, Run
from benchlib.report import table, write
from benchlib.rucio_peer import Rucio

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "bench"
QUICK_FILES = 2_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print its table and write its JSON."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="arriero-bench-") as log:
        plan = Plan(
            admin_url=options.postgresql,
            broker_url=options.redis,
            log=Path(log),
            sizes=[QUICK_FILES] if options.quick else sorted(options.sizes),
            rounds=1 if options.quick else options.rounds,
            chunk=options.chunk,
            bounded_from=options.bounded_from,
            bounded_files=options.bounded_files,
            meta_files=options.meta_files,
            peer=None if options.quick or options.no_peer else Rucio(options.peer, options.postgresql),
        )
        run = Run(plan)
        try:
            if plan.peer is not None:
                plan.peer.start()
            run.go()
        finally:
            if plan.peer is not None:
                plan.peer.stop()
    found = results(run.samples, plan.sizes, plan.bounded_from)
    print("\n".join(costs(run.samples)), end="\n\n")
    print(table(found))
    print(_small_print(plan, run))
    write(found, options.output)
    print(f"\nWritten: {options.output}")
    return 0


def _small_print(plan: Plan, run: Run) -> str:
    return "\n".join(
        [
            "",
            f"Medians of {plan.rounds} rounds (the peer: 1 at sizes above {min(plan.sizes):,}), sides in turns on one",
            "PostgreSQL with default settings; every result was counted, and lists compared with what was put in.",
            f"Calls of {plan.chunk:,} files here and of 1,000 at the peer. Metadata: of {plan.meta_files:,} files.",
            f"'bounded': from {plan.bounded_from:,} files the peer's catalogue was filled with SQL, and its rate is that of",
            f"{plan.bounded_files:,} files more (lists: {5 * plan.bounded_files:,} rows from the first on), never of the whole.",
            f"Load average while measuring: {min(run.loads):.1f} to {max(run.loads):.1f} on {os.cpu_count()} processors.",
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/registry", description=__doc__)
    add = parser.add_argument
    url = os.environ.get("ARRIERO_TEST_POSTGRESQL_URL")
    add("--postgresql", default=url, required=url is None, help="account that may create databases and roles")
    add(
        "--redis", default=os.environ.get("ARRIERO_TEST_REDIS_URL", "memory://"), help="broker of the service"
    )
    add("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="files")
    add("--rounds", type=int, default=3, help="rounds of each")
    add("--chunk", type=int, default=10_000, help="files in one call to Arriero")
    add("--bounded-from", type=int, default=1_000_000, help="size from which the peer does a part")
    add("--bounded-files", type=int, default=20_000, help="how large that part is")
    add("--meta-files", type=int, default=2_000, help="files whose metadata are set, 189 at least")
    add("--no-peer", action="store_true", help="only Arriero and COPY")
    add("--quick", action="store_true", help=f"{QUICK_FILES} files, no peer, one round: shows that it works")
    add(
        "--peer",
        type=Path,
        default=Path(os.environ.get("ARRIERO_BENCH_PEER", BUILD / "peer")),
        help="where Rucio is installed, or is to be",
    )
    add("--output", type=Path, default=BUILD / "registry.json", help="where the JSON goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
