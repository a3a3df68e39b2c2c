"""A night at a site: exposures that land one after the other, faster than they are taken, with faults and with agents that die.

Faults are of three kinds, in turn: a file that is no FITS, a file that is told of before it is there, and a file that is told
of once more. The first must be refused, each with its reason; everything else must be in the Butler.
"""

import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil
from pathlib import Path
from random import Random

import psycopg

from benchlib.ingest_files import A_NIGHT, DETECTORS, FIRST_DAY, Raw, write_exposures
from benchlib.ingest_site import POSTGRESQL, Site
from benchlib.rules_found import require, say
from benchlib.sides import BIN
from benchlib.worker import Worker

CADENCE_S = 36.0
"""Seconds from one exposure to the next: a thousand in ten hours."""

FIRST = 100 * A_NIGHT
"""Of its exposures, in a month of their own."""

LATE_S = (2.0, 6.0)
"""How long a file may come after it was told of."""

AGENTS = 2
END_S = 180.0
BUTLER = "night"


@dataclass(frozen=True)
class Night:
    """How much is asked."""

    exposures: int = 1000
    speed: float = 20.0
    faults: float = 0.01
    """Of the files."""
    deaths: int = 3
    lease_s: float = 60.0
    """How long a killed agent holds what it had; the agents' default."""


@dataclass
class Told:
    """What was done to the files."""

    sound: set[str] = field(default_factory=set)
    poisoned: set[str] = field(default_factory=set)
    late: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    waiting: list[tuple[float, Path, bytes]] = field(default_factory=list)
    """What is late: when it comes, where, and its bytes."""


class _Agents:
    """Agents of production, of which one is killed now and then."""

    def __init__(self, site: Site, token: str, lease_s: float) -> None:
        self._site = site
        self._token = token
        self._lease_s = lease_s
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        settings = {"ARRIERO_URL": self._site.server.url, "ARRIERO_TOKEN": self._token}
        with (self._site.work / "night.log").open("ab") as log:
            self._running.append(
                subprocess.Popen(
                    [
                        str(BIN / "arriero"),
                        "agent",
                        "run",
                        "--butler",
                        BUTLER,
                        "--lease-s",
                        str(self._lease_s),
                    ],
                    env=self._site.environment | settings,
                    stdout=log,
                    stderr=log,
                )
            )

    def kill_one(self) -> None:
        """Kill the oldest, and start another one."""
        oldest = self._running.pop(0)
        oldest.kill()
        oldest.wait()
        self.start()

    def end(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(60)


def measure_night(site: Site, worker: Worker, night: Night) -> dict[str, float]:
    """Let a night happen, and give what came of it."""
    repository = site.repository(worker, POSTGRESQL)
    month = FIRST_DAY + timedelta(days=FIRST // A_NIGHT)
    token = site.take(BUTLER, repository, only=f"LSSTComCam/{month:%Y%m}*")
    with ExitStack() as stack:
        agents = _Agents(site, token, night.lease_s)
        stack.callback(agents.end)
        for _ in range(AGENTS):
            agents.start()
        told = _night(site, agents, night)
        _until(lambda: not _unfinished(site), END_S)
    found = _found(site)
    refused = {name for name, (state, *_) in found.items() if state == "failed"}
    require(refused == told.poisoned, f"refused: {sorted(refused ^ told.poisoned)[:3]}")
    lost = told.sound - {name for name, (state, *_) in found.items() if state == "ingested"}
    there = worker.do("count", repository=repository)["datasets"]
    require(there == len(told.sound), f"{there} datasets of {len(told.sound)} files")
    lags = sorted(lag for state, lag in found.values() if state == "ingested")
    return {
        "exposures": night.exposures,
        "speed": night.speed,
        "faults": len(told.poisoned) + len(told.late) + len(told.again),
        "sound": len(told.sound),
        "ingested": len(lags),
        "lost": len(lost),
        "p50_s": lags[ceil(0.50 * len(lags)) - 1],
        "p99_s": lags[ceil(0.99 * len(lags)) - 1],
        "most_s": lags[-1],
    }


def _night(site: Site, agents: _Agents, night: Night) -> Told:
    chance = Random(7)  # noqa: S311 - which files are faulty
    total = night.exposures * DETECTORS
    faulty = dict(zip(chance.sample(range(total), round(total * night.faults)), _kinds(), strict=False))
    deaths = {night.exposures * (number + 1) // (night.deaths + 1) for number in range(night.deaths)}
    told = Told()
    began = time.monotonic()
    for number in range(night.exposures):
        due = began + number * CADENCE_S / night.speed
        while (left := due - time.monotonic()) > 0:
            _appear(told.waiting)
            time.sleep(min(left, 0.2))
        _appear(told.waiting)
        raws = write_exposures(site.root, FIRST + number, 1)
        landed = [
            _landed(site, raw, faulty.get(number * DETECTORS + raw.detector), chance, told) for raw in raws
        ]
        site.register(landed)
        site.register([raw for raw in landed if raw.name in told.again])
        if number in deaths:
            say(f"exposure {number}: an agent is killed")
            agents.kill_one()
    while told.waiting:
        _appear(told.waiting)
        time.sleep(0.2)
    return told


def _kinds() -> Iterator[str]:
    while True:
        yield from ("poisoned", "late", "again")


def _landed(site: Site, raw: Raw, fault: str | None, chance: Random, told: Told) -> Raw:
    path = site.root / raw.name
    if fault == "poisoned":
        content = chance.randbytes(raw.bytes)
        path.write_bytes(content)
        told.poisoned.add(raw.name)
        return Raw(raw.name, raw.bytes, f"{zlib.adler32(content):08x}", raw.exposure, raw.detector)
    told.sound.add(raw.name)
    if fault == "late":
        told.waiting.append((time.monotonic() + chance.uniform(*LATE_S), path, path.read_bytes()))
        path.unlink()
        told.late.add(raw.name)
    elif fault == "again":
        told.again.add(raw.name)
    return raw


def _appear(waiting: list[tuple[float, Path, bytes]]) -> None:
    """Write the files that are late and due now."""
    now = time.monotonic()
    for one in [one for one in waiting if one[0] <= now]:
        waiting.remove(one)
        one[1].write_bytes(one[2])


def _unfinished(site: Site) -> int:
    states = site.states(BUTLER)
    return sum(count for state, count in states.items() if state not in {"ingested", "failed"})


def _until(condition: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        require(time.monotonic() < deadline, f"the ledger is not settled after {patience_s:.0f} s")
        time.sleep(0.5)


def _found(site: Site) -> dict[str, tuple[str, float]]:
    """Give state and seconds from AVAILABLE to ingested, by the file's name."""
    query = (
        "SELECT d.name, a.state, extract(epoch FROM coalesce(a.ingested_at, now()) - a.created_at) FROM arrivals a "
        "JOIN dids d ON d.id = a.file_id JOIN butlers b ON b.id = a.butler_id WHERE b.name = %s"
    )
    with psycopg.connect(site.url) as connection:
        rows = connection.execute(query, [BUTLER]).fetchall()
    return {str(name): (str(state), float(lag)) for name, state, lag in rows}
