"""The command line of `benchmarks/transfers`."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchlib.command import command_parser, peer_of, running, tell
from benchlib.transfers_deletions import BARE, CONNECTIONS, PROCESSES
from benchlib.transfers_report import costs, results, whole_pages
from benchlib.transfers_run import CONTROL, DELETIONS, LARGE, LATENCY, PARTS, SMALL, Plan, Run, Sizes

QUICK = Sizes(small=24, small_kb=10, large=2, large_mb=3, control=200, rules=2, deletions=60, peer_control=50)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print its table and write its JSON."""
    parser = _parser()
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="arriero-bench-") as work:
        plan = _plan(options, Path(work))
        run = Run(plan)
        with running(plan.rucio):
            run.go()
    samples = run.found.samples
    tell(
        results(samples, plan.sizes),
        options,
        costs=costs(run.found),
        small_print=_small_print(plan),
        loads=run.found.loads,
        more=whole_pages(samples),
    )
    return 0


def _plan(options: argparse.Namespace, work: Path) -> Plan:
    peers = not (options.quick or options.no_peer)
    sizes = Sizes(
        small=options.small,
        small_kb=options.small_kb,
        large=options.large,
        large_mb=options.large_mb,
        control=options.control,
        rules=options.rules,
        deletions=options.deletions,
        peer_control=options.peer_control,
    )
    return Plan(
        admin_url=options.postgresql,
        broker_url=options.redis,
        work=work,
        storages=options.directory,
        sizes=QUICK if options.quick else sizes,
        rounds=1 if options.quick else options.rounds,
        processes=2 if options.quick else options.processes,
        small_at_once=options.small_at_once,
        large_at_once=options.large_at_once,
        parts=options.parts,
        rclone=peers,
        gfal2=peers,
        rucio=peer_of(options) if "control" in options.parts else None,
    )


def _small_print(plan: Plan) -> list[str]:
    sizes, said = plan.sizes, []
    if {SMALL, LARGE} & set(plan.parts):
        said += [
            f"Copies: medians of {plan.rounds} rounds, sides in turns between the same two servers with the settings of deploy/services.",
            "After each, every byte at the destination was read and compared, and no other file was there; sync before the next.",
            "All read the same files, from the page cache.",
            f"Arriero: {plan.processes} worker processes with default settings, which keep connections and what they know of the link, and",
            "have copied two files each before.",
            "The clock runs from when the requests are there until the rule is OK: verified, and settled in PostgreSQL with default",
            "settings. What finds nothing to take looks again as a sweep would ring. Each small copy is COPY, a GET that reads",
            "it back, a look at the final name, MOVE; streamed: GET, PUT, GET, the look where it is needed, MOVE.",
            f"Peers have {plan.small_at_once} small files at once and {plan.large_at_once} large ones; the clock has their start. rclone 1.60 waits 10 ms before each",
            "call and compares nothing but sizes here. curl: one process for all HEADs, then one for all COPYs, HEADs, MOVEs, their times",
            "added: it knows no order among what it does at once. curl (COPY alone) and gfal2 verify nothing; neither can stream.",
            f"Large: {sizes.large} x {sizes.large_mb} MB at each source, as much again at the destination.",
        ]
    if CONTROL in plan.parts:
        said += [
            "Control plane: claim, plan and settle copies that succeed at once, after VACUUM ANALYZE and CHECKPOINT; CPU of workers",
            "and database together. The peer: submitter, poller and finisher in one process, one after the other, with default",
            "batches and no pauses, and its mock transfer tool (its preparer is off by default; its FTS cannot be had here).",
        ]
    if LATENCY in plan.parts:
        said.append(
            "Latency: POST /rules/ to `arriero serve`, on an idle system: two Celery processes for rules, one for copies, beat, Redis."
        )
    if DELETIONS in plan.parts:
        said += [
            f"Deletions: {sizes.deletion_kb} kB each. The bare loop: {CONNECTIONS[BARE]} threads with http.client. Arriero: {PROCESSES} processes, as many",
            "threads together, and proofs, history, events and counts in PostgreSQL.",
        ]
    return said


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "transfers",
        __doc__,
        alone="curl and bare DELETE loops",
        quick="a few small files",
    )
    add, default = parser.add_argument, Sizes()
    url = os.environ.get("ARRIERO_TEST_REDIS_URL")
    add("--redis", default=url, required=url is None, help="broker; its database 9 is emptied")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured")
    add("--small", type=int, default=default.small, help="small files")
    add("--small-kb", type=int, default=default.small_kb, help="kB of each")
    add("--large", type=int, default=default.large, help="large files; twice their size of disk is used")
    add("--large-mb", type=int, default=default.large_mb, help="MB of each")
    add("--control", type=int, default=default.control, help="copies of the control plane")
    add("--peer-control", type=int, default=default.peer_control, help="of them the peer's")
    add("--rules", type=int, default=default.rules, help="rules whose latency is measured")
    add("--deletions", type=int, default=default.deletions, help="files that are deleted")
    add("--processes", type=int, default=3, help="worker processes of Arriero that copy")
    add("--small-at-once", type=int, default=16, help="small files that a peer has under way")
    add("--large-at-once", type=int, default=8, help="large files that a peer has under way")
    add("--directory", type=Path, help="where the storages' files go, a folder that everybody may enter")
    return parser


if __name__ == "__main__":
    sys.exit(main())
