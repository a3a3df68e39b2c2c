"""The command line of `benchmarks/rules`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchlib.report import table, write
from benchlib.rucio_peer import Rucio
from benchlib.rules_found import Found
from benchlib.rules_large import Large
from benchlib.rules_report import by_processor_time, costs, results
from benchlib.rules_run import Plan, Run

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "bench"
EXPRESSIONS = 20
"""Of each kind, a round."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print its table and write its JSON."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rses <= 2 * options.rounds * EXPRESSIONS:
        parser.error(
            f"--rses: each of {options.rounds} rounds needs {2 * EXPRESSIONS} that were not asked for"
        )
    plan = _plan(options)
    run = Run(plan)
    try:
        if plan.peer is not None:
            plan.peer.start()
        run.go()
    finally:
        if plan.peer is not None:
            plan.peer.stop()
    found = results(run.found.samples, plan.sizes, plan.rses, plan.large)
    print("\n".join(costs(run.found.samples)), end="\n\n")
    print(table(found))
    print(_small_print(plan, run.found))
    print("\n".join(by_processor_time(run.found.samples)))
    write(found, options.output)
    print(f"\nWritten: {options.output}")
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    if options.quick:
        return Plan(
            admin_url=options.postgresql,
            sizes=[300],
            rounds=1,
            appended=30,
            large=Large(
                files=600, datasets=6, per_dataset=100, appended=30, rounds=1, small_rules=2, pause_s=0.1
            ),
            rses=30,
            expressions=2,
        )
    return Plan(
        admin_url=options.postgresql,
        sizes=sorted(options.sizes),
        rounds=options.rounds,
        appended=options.appended,
        large=Large(
            files=options.large,
            datasets=options.datasets,
            per_dataset=options.per_dataset,
            appended=options.appended,
            rounds=options.large_rounds,
        ),
        rses=options.rses,
        expressions=EXPRESSIONS,
        peer_settled=options.peer_settled,
        peer=None if options.no_peer else Rucio(options.peer, options.postgresql),
    )


def _small_print(plan: Plan, found: Found) -> str:
    large = plan.large
    return "\n".join(
        [
            "",
            f"Medians of {plan.rounds} rounds (the peer: 1 at sizes above {min(plan.sizes):,}), sides in turns on one",
            "PostgreSQL with default settings, VACUUM ANALYZE and CHECKPOINT before each; every result was counted.",
            f"Both in core, with account limits. New rule: adding and evaluating it. {plan.appended:,} files are appended.",
            "Settling ends with rule counts, history and events; claiming (the peer: marking) requests is not timed.",
            f"'bounded': of all that asked for a copy the peer settles {plan.peer_settled:,} a round, half in each way.",
            f"At {large.files:,} files Arriero alone, {large.rounds} round(s), each on a new copy of the same data.",
            f"Load average while measuring: {min(found.loads):.1f} to {max(found.loads):.1f} on {os.cpu_count()} processors.",
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/rules", description=__doc__)
    add = parser.add_argument
    url = os.environ.get("ARRIERO_TEST_POSTGRESQL_URL")
    add("--postgresql", default=url, required=url is None, help="account that may create databases and roles")
    add("--sizes", type=int, nargs="+", default=[10_000, 50_000], help="files of a rule, beside the peer")
    add("--rounds", type=int, default=3, help="rounds of each")
    add("--appended", type=int, default=1_000, help="files appended under a rule")
    add("--peer-settled", type=int, default=2_000, help="copies that the peer settles, a round")
    add("--large", type=int, default=1_000_000, help="files of a rule, Arriero alone")
    add("--large-rounds", type=int, default=1, help="rounds of each")
    add("--datasets", type=int, default=2_000, help="datasets of the container")
    add("--per-dataset", type=int, default=500, help="files in each: of the large rule's")
    add("--rses", type=int, default=1_000, help="RSEs that expressions choose from")
    add("--no-peer", action="store_true", help="only Arriero and the bare rows")
    add("--quick", action="store_true", help="a few hundred files, no peer, one round: shows that it works")
    add(
        "--peer",
        type=Path,
        default=Path(os.environ.get("ARRIERO_BENCH_PEER", BUILD / "peer")),
        help="where Rucio is installed, or is to be",
    )
    add("--output", type=Path, default=BUILD / "rules.json", help="where the JSON goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
