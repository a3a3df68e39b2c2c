"""The command line of `benchmarks/rules`."""

import argparse
import sys
from collections.abc import Sequence

from benchlib.command import command_parser, peer_of, running, tell
from benchlib.rules_large import Large
from benchlib.rules_report import by_processor_time, costs, results
from benchlib.rules_run import Plan, Run

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
    with running(plan.peer):
        run.go()
    samples = run.found.samples
    tell(
        results(samples, plan.sizes, plan.rses, plan.large),
        options,
        costs=costs(samples),
        small_print=_small_print(plan),
        loads=run.found.loads,
        more=by_processor_time(samples),
    )
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
        peer=peer_of(options),
    )


def _small_print(plan: Plan) -> list[str]:
    large = plan.large
    return [
        f"Medians of {plan.rounds} rounds (the peer: 1 at sizes above {min(plan.sizes):,}), sides in turns on one",
        "PostgreSQL with default settings, VACUUM ANALYZE and CHECKPOINT before each; every result was counted.",
        f"Both in core, with account limits. New rule: adding and evaluating it. {plan.appended:,} files are appended.",
        "Settling ends with rule counts, history and events; claiming (the peer: marking) requests is not timed.",
        f"'bounded': of all that asked for a copy the peer settles {plan.peer_settled:,} a round, half in each way.",
        f"At {large.files:,} files Arriero alone, {large.rounds} round(s), each on a new copy of the same data.",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "rules",
        __doc__,
        sizes=(10_000, 50_000),
        files="files of a rule, beside the peer",
        alone="the bare rows",
        quick="a few hundred files",
    )
    add = parser.add_argument
    add("--appended", type=int, default=1_000, help="files appended under a rule")
    add("--peer-settled", type=int, default=2_000, help="copies that the peer settles, a round")
    add("--large", type=int, default=1_000_000, help="files of a rule, Arriero alone")
    add("--large-rounds", type=int, default=1, help="rounds of each")
    add("--datasets", type=int, default=2_000, help="datasets of the container")
    add("--per-dataset", type=int, default=500, help="files in each: of the large rule's")
    add("--rses", type=int, default=1_000, help="RSEs that expressions choose from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
