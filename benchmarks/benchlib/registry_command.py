"""The command line of `benchmarks/registry`."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchlib.command import command_parser, peer_of, running, tell
from benchlib.registry_report import costs, results
from benchlib.registry_run import Plan, Run

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
            peer=peer_of(options),
        )
        run = Run(plan)
        with running(plan.peer):
            run.go()
    tell(
        results(run.samples, plan.sizes, plan.bounded_from),
        options,
        costs=costs(run.samples),
        small_print=_small_print(plan),
        loads=run.loads,
    )
    return 0


def _small_print(plan: Plan) -> list[str]:
    return [
        f"Medians of {plan.rounds} rounds (the peer: 1 at sizes above {min(plan.sizes):,}), sides in turns on one",
        "PostgreSQL with default settings; every result was counted, and lists compared with what was put in.",
        f"Calls of {plan.chunk:,} files here and of 1,000 at the peer. Metadata: of {plan.meta_files:,} files.",
        f"'bounded': from {plan.bounded_from:,} files the peer's catalogue was filled with SQL, and its rate is that of",
        f"{plan.bounded_files:,} files more (lists: {5 * plan.bounded_files:,} rows from the first on), never of the whole.",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "registry",
        __doc__,
        sizes=(10_000, 100_000, 1_000_000),
        files="files",
        alone="COPY",
        quick=f"{QUICK_FILES} files",
    )
    add = parser.add_argument
    broker = os.environ.get("ARRIERO_TEST_REDIS_URL", "memory://")
    add("--redis", default=broker, help="broker of the service")
    add("--chunk", type=int, default=10_000, help="files in one call to Arriero")
    add("--bounded-from", type=int, default=1_000_000, help="size from which the peer does a part")
    add("--bounded-files", type=int, default=20_000, help="how large that part is")
    add("--meta-files", type=int, default=2_000, help="files whose metadata are set, 189 at least")
    return parser


if __name__ == "__main__":
    sys.exit(main())
