"""The command line of `benchmarks/ingest`."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchlib.command import command_parser, tell
from benchlib.ingest_exposure import WORK as EXPOSURE
from benchlib.ingest_exposure import Asked, measure_exposure
from benchlib.ingest_night import Night, measure_night
from benchlib.ingest_report import costs, night, results
from benchlib.ingest_run import (
    BARE,
    CAMPAIGN,
    EXPOSURES,
    ONE_BY_ONE,
    ONE_FILE,
    TWO_AGENTS,
    Ingest,
    Sizes,
)
from benchlib.ingest_site import POSTGRESQL, Site, site
from benchlib.report import Result, load_average
from benchlib.rules_found import Found
from benchlib.rules_sides import OURS
from benchlib.transfers_ours import crew
from benchlib.transfers_storage import running_storages

NIGHT = "night"
PARTS = (EXPOSURES, ONE_FILE, EXPOSURE, CAMPAIGN, NIGHT)
QUICK = Sizes(
    exposures=7,
    singles=2,
    peer_singles=1,
    campaign=90,
    kinds=(POSTGRESQL,),
    sides=(OURS, TWO_AGENTS, BARE, ONE_BY_ONE),
)
QUICK_EXPOSURE = Asked(detectors=11, megabytes=1, rounds=1)
QUICK_NIGHT = Night(exposures=6, speed=40, faults=0.06, deaths=1, lease_s=10)

SMALL_PRINT = [
    "Exposures: medians of rounds, sides in turns, each into a new repository. Arriero: a warm agent, or two, that claim over HTTP from",
    "`arriero serve` on PostgreSQL with default settings, ingests in place and reports; the peers have no ledger and define no",
    "visits. Of the Butler's API the clock has the calls alone: what they are given was read and made before. One exposure a",
    "transaction: syncDimensionData for each record, then ingest, as RawIngestTask of obs_base does. Bare: all records and files",
    "in one transaction. `butler ingest-files` is one process; it finds its dimension records there.",
    "One file: registered over HTTP, until another process has read it with butler.get; the agent is `arriero agent run`.",
    "One exposure: LSSTCam's, from POST /replicas at one XRootD until it is whole in the Butler of the other one's site, with two",
    "Celery processes for rules, two for copies, beat, Redis; headers are read there, by range. The peer is `curl` with COPY alone,",
    "without a checksum. What all processors of the machine were busy with meanwhile says what bounds it.",
    "Campaign: links to nine files with an index for each exposure; nobody reads the headers of files that have an index.",
    "Night: two agents of production on one Butler; one of them is killed now and then. Lag is from AVAILABLE to ingested, of all",
    "files, those that were late and those that a killed agent held included. Refused: the files that are no FITS, and no others.",
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print its table and write its JSON."""
    options = _parser().parse_args(arguments)
    found, lines = Found(), []
    with tempfile.TemporaryDirectory(prefix="arriero-bench-", dir=options.directory) as directory:
        root, work = Path(directory) / "storage", Path(directory) / "work"
        for folder in (root, work):
            folder.mkdir()
        if set(options.parts) != {EXPOSURE}:
            with site(options.postgresql, root, work) as made:
                lines = _at_a_site(options, made, found)
        if EXPOSURE in options.parts:
            asked = QUICK_EXPOSURE if options.quick else Asked(rounds=options.rounds)
            with (
                crew(options.postgresql, 1, work) as workers,
                running_storages(options.directory) as storages,
            ):
                pair = storages.pair("XRootD", "http")
                measure_exposure(workers, options.redis, pair, work, asked=asked, found=found)
    tell(
        [*results(found.samples), *lines],
        options,
        costs=costs(found.samples),
        small_print=SMALL_PRINT,
        loads=found.loads,
    )
    return 0


def _at_a_site(options: argparse.Namespace, made: Site, found: Found) -> list[Result]:
    sizes = QUICK if options.quick else Sizes(options.exposures, options.singles, campaign=options.campaign)
    ingest = Ingest(made, sizes, 1 if options.quick else options.rounds, found)
    if EXPOSURES in options.parts:
        ingest.exposures()
    if ONE_FILE in options.parts:
        ingest.one_file()
    if CAMPAIGN in options.parts:
        ingest.campaign()
    if NIGHT not in options.parts:
        return []
    asked = Night(options.night, options.night_speed)
    found.loads.append(load_average())
    worker = made.worker()
    try:
        return night(measure_night(made, worker, QUICK_NIGHT if options.quick else asked))
    finally:
        worker.close()


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("ingest", __doc__, alone="the Butler's own API", quick="a few exposures")
    add, default = parser.add_argument, Sizes()
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured")
    add("--exposures", type=int, default=default.exposures, help="exposures of nine files")
    add("--singles", type=int, default=default.singles, help="files whose latency is measured")
    add("--campaign", type=int, default=default.campaign, help="raws of a whole campaign")
    add("--night", type=int, default=1000, help="exposures of a night")
    add("--night-speed", type=float, default=20.0, help="how many times faster than they are taken they come")
    url = os.environ.get("ARRIERO_TEST_REDIS_URL")
    add("--redis", default=url, required=url is None, help="broker; its database 9 is emptied")
    add("--directory", type=Path, help="where files and repositories go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
