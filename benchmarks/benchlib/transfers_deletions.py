"""Deletions at one XRootD: Arriero's service with its proofs, beside bare requests over kept connections."""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchlib import data
from benchlib.report import Sample
from benchlib.rules_found import Found, require
from benchlib.rules_sides import OURS
from benchlib.sides import HERE, bare_environment
from benchlib.transfers_meter import metered
from benchlib.transfers_ours import DESTINATION, SOURCE, Crew, add_files, set_up
from benchlib.transfers_peers import sample_of
from benchlib.transfers_storage import Files, Pair, clear, lay, names_on
from benchlib.worker import Worker

WORK = "deletions"
BARE, SERIAL = "bare DELETE loop", "bare DELETE loop, one connection"
CONNECTIONS = {BARE: 16, SERIAL: 1}
"""The first has as many as Arriero's processes together."""

PROCESSES = 2
"""Of Arriero's, that delete; each with its share of the connections of the bare loop."""

FOLDER = f"{data.SCOPE}/deletions"
MARK = ".arriero-deletions"
"""What the service leaves on a storage that it deletes from."""


def measure_deletions(crew: Crew, pair: Pair, *, files: int, size: int, rounds: int, found: Found) -> None:
    """Measure all sides in turns, each with the same files, written anew."""
    sides: list[Callable[[], None]] = [
        partial(_arriero, crew, pair, files, size, found),
        *(partial(_bare, pair, files, size, found, name) for name in CONNECTIONS),
    ]
    for turn in range(rounds):
        for measure in sides if turn % 2 == 0 else reversed(sides):
            measure()
            clear(pair.source)


def _lay(pair: Pair, files: int, size: int) -> Files:
    laid = lay(pair.source, FOLDER, files, size)
    os.sync()
    return laid


def _arriero(crew: Crew, pair: Pair, count: int, size: int, found: Found) -> None:
    files, worker = _lay(pair, count, size), crew.first
    crew.begin()
    set_up(worker, pair)
    add_files(worker, files, SOURCE, DESTINATION)
    worker.do("bury", rse=SOURCE, verified_at=DESTINATION)
    crew.calm()
    workers = [one.first for one in crew.alone()[:PROCESSES]]
    with ThreadPoolExecutor(len(workers)) as pool, metered(crew.admin_url) as meter:
        began = time.perf_counter()
        answers = list(
            pool.map(lambda one: one.do("delete", threads=CONNECTIONS[BARE] // PROCESSES), workers)
        )
        seconds = time.perf_counter() - began
    done = sum(answer["n"] for answer in answers)
    require(done == count, f"{answers} instead of {count} deletions")
    left = worker.do("available", rse=SOURCE)
    require(left == {"verified": 0}, f"{left} is left in the catalogue")
    kept = worker.do("available", rse=DESTINATION)
    require(kept == {"AVAILABLE": count, "verified": count}, f"{kept} is left elsewhere")
    _require_gone(pair)
    sample = Sample(
        count / seconds,
        client_cpu_s=sum(answer["client_cpu_s"] for answer in answers),
        client_rss_mb=max(answer["client_rss_mb"] for answer in answers),
        database_cpu_s=meter.cpu_s,
        items=count,
    )
    found.keep(WORK, count, OURS, sample)


def _bare(pair: Pair, count: int, size: int, found: Found, name: str) -> None:
    paths = _lay(pair, count, size).paths()
    environment = bare_environment() | {"PYTHONPATH": str(HERE.parent)}
    worker = Worker([sys.executable, str(HERE / "bare_deletes.py")], environment)
    try:
        answer = worker.do("delete", url=pair.url(pair.source), paths=paths, connections=CONNECTIONS[name])
    finally:
        worker.close()
    _require_gone(pair)
    found.keep(WORK, count, name, sample_of(answer))


def _require_gone(pair: Pair) -> None:
    left = [name for name in names_on(pair.source) if name != MARK]
    require(not left, f"{len(left)} files are left, such as {left[:3]}")
