"""What a copy costs beside the copy: claiming, planning and settling, of copies that succeed at once."""

from collections.abc import Callable
from functools import partial

from benchlib import rules_data
from benchlib.report import Sample
from benchlib.rucio_peer import Rucio
from benchlib.rules_fill import fill
from benchlib.rules_found import Found, require
from benchlib.rules_sides import OURS, PEER, CoreSide
from benchlib.transfers_meter import Meter, metered
from benchlib.transfers_ours import RULES_TEMPLATE, Crew
from benchlib.worker import Worker

DATASET = "control"
PROCESSES = 2
WORK, WAL, PAGES = (
    "control plane",
    "control plane, WAL bytes a file",
    "control plane, WAL bytes of whole pages a file",
)


def measure_control(
    crew: Crew, *, files: int, rounds: int, peer: Rucio | None, peer_files: int, found: Found
) -> None:
    """Measure both sides in turns, each round on a new database."""
    sides: list[Callable[[], None]] = [partial(_arriero, crew, files, found)]
    if peer is not None:
        sides.append(partial(_rucio, peer, peer_files, found))
    for turn in range(rounds):
        for measure in sides if turn % 2 == 0 else reversed(sides):
            measure()


def _arriero(crew: Crew, files: int, found: Found) -> None:
    fill(crew.begin(RULES_TEMPLATE), DATASET, files, dataset=DATASET)
    asked = crew.first.do("new_rule", dataset=DATASET, expression=rules_data.DESTINATION, count=files)
    crew.calm()
    done = crew.work("copy_nothing", asked["rule"], files, processes=PROCESSES)
    crew.require_done(asked["rule"], files)
    _keep(found, files, OURS, done.sample, done.meter)


def _rucio(peer: Rucio, files: int, found: Found) -> None:
    peer.fresh_database()
    worker = Worker(peer.worker("conveyor_worker.py"), peer.environment())
    try:
        worker.do("set_up")
        worker.do("set_up_conveyor")
        worker.do("fill", prefix=DATASET, count=files, dataset=DATASET, loose=0)
        asked = worker.do("new_rule", dataset=DATASET, expression=rules_data.DESTINATION, count=files)
        CoreSide(PEER, worker, peer.admin_url).calm()
        with metered(peer.admin_url) as meter:
            answer = worker.do("convey", rule=asked["rule"], count=files)
        counts = worker.do("counts", rule=asked["rule"])
    finally:
        worker.close()
    there = {"state": "OK", "ok": files, "replicating": 0, "stuck": 0, "locks": files, "requests": 0}
    require(counts == there, f"{PEER}: {counts} instead of {there}")
    sample = Sample(
        files / answer["seconds"],
        client_cpu_s=answer["client_cpu_s"],
        client_rss_mb=answer["client_rss_mb"],
        database_cpu_s=meter.cpu_s,
        items=files,
    )
    _keep(found, files, PEER, sample, meter)


def _keep(found: Found, files: int, side: str, sample: Sample, meter: Meter) -> None:
    found.keep(WORK, files, side, sample)
    found.keep(WAL, files, side, Sample(meter.wal_bytes / files))
    if meter.page_bytes is not None:
        found.keep(PAGES, files, side, Sample(meter.page_bytes / files))
