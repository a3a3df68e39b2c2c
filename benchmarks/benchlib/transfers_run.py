"""The benchmark of transfers: what is measured, with which files, in which order, and how it is verified.

Sides take turns within each round (A/B/C, then C/B/A). Each copies the same files into a folder of its own, which is read
whole by the disk afterwards and removed: there is no figure of work that was not done.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchlib import data
from benchlib.rucio_peer import Rucio
from benchlib.rules_found import Found, say
from benchlib.transfers_control import PROCESSES, measure_control
from benchlib.transfers_deletions import measure_deletions
from benchlib.transfers_latency import measure_latency
from benchlib.transfers_ours import Crew, Ours, crew
from benchlib.transfers_peers import CopySide, Curl, Rclone, gfal2
from benchlib.transfers_storage import (
    Files,
    Pair,
    Storages,
    clear,
    lay,
    link,
    require_space,
    running_storages,
    verify,
)

KINDS = ("XRootD", "Apache")
SMALL, LARGE, CONTROL, LATENCY, DELETIONS = PARTS = ("small", "large", "control", "latency", "deletions")


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    small: int = 2_000
    small_kb: int = 100
    large: int = 20
    large_mb: int = 500
    control: int = 10_000
    rules: int = 30
    """Rules whose latency is measured."""
    deletions: int = 20_000
    deletion_kb: int = 1
    peer_control: int = 1_000
    """Of the control plane, at the peer."""


@dataclass(frozen=True)
class Plan:
    """What a run does."""

    admin_url: str
    broker_url: str
    work: Path
    """Where logs and small files go."""
    storages: Path | None
    """Where the files of the storages go."""
    sizes: Sizes
    rounds: int
    processes: int
    """Of Arriero's, that copy."""
    small_at_once: int
    """Small files that a peer has under way."""
    large_at_once: int
    parts: Sequence[str] = PARTS
    rclone: bool = True
    gfal2: bool = True
    rucio: Rucio | None = None


@dataclass(frozen=True)
class Copies:
    """Copies of files of one kind between two storages."""

    name: str
    """SMALL or LARGE."""
    pair: Pair
    count: int
    size: int

    @property
    def work(self) -> str:
        """What it is called in the samples."""
        return f"{self.name}, {self.pair.name}"


class Run:
    """One run of the benchmark."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.found = Found()

    def go(self) -> Found:
        """Measure everything that was asked for."""
        plan, sizes = self.plan, self.plan.sizes
        with crew(plan.admin_url, max(plan.processes, PROCESSES), plan.work) as workers:
            if CONTROL in plan.parts:
                measure_control(
                    workers,
                    files=sizes.control,
                    rounds=plan.rounds,
                    peer=plan.rucio,
                    peer_files=sizes.peer_control,
                    found=self.found,
                )
            if set(plan.parts) != {CONTROL}:
                with running_storages(plan.storages) as storages:
                    self._with(storages, workers)
        return self.found

    def _with(self, storages: Storages, workers: Crew) -> None:
        plan, sizes, xrootd = self.plan, self.plan.sizes, storages.pair("XRootD", "http")
        copies = list(copies_of(plan, storages))
        require_space(storages.directory, [one.count * one.size for one in copies])
        if LATENCY in plan.parts:
            size = sizes.small_kb * 1000
            measure_latency(
                workers, plan.broker_url, xrootd, plan.work, rules=sizes.rules, size=size, found=self.found
            )
        for one in copies:
            self._copies(one, workers)
        if DELETIONS in plan.parts:
            size = sizes.deletion_kb * 1000
            measure_deletions(
                workers, xrootd, files=sizes.deletions, size=size, rounds=plan.rounds, found=self.found
            )

    def _copies(self, copies: Copies, workers: Crew) -> None:
        pair = copies.pair
        say(f"{copies.work}: {copies.count} files of {copies.size / 1e6:g} MB are written")
        files = lay(pair.source, f"{data.SCOPE}/{copies.name}", copies.count, copies.size)
        with self._sides(copies, files, workers) as sides:
            for turn in range(self.plan.rounds):
                folder = f"{files.folder}-{turn}"
                linked = link(pair.source, files, folder)
                for side in sides if turn % 2 == 0 else reversed(sides):
                    self._copy(side, copies, linked)
                clear(pair.source, folder)
        clear(pair.source)
        clear(pair.destination)

    def _copy(self, side: CopySide, copies: Copies, files: Files) -> None:
        # what another side has written must not be on its way to the disk still
        os.sync()
        sample = side.copy(files)
        destination = copies.pair.destination
        verify(destination, files, side.place(files))
        # the folder above it stays: a storage does not lose folders that a worker has seen
        clear(destination, side.place(files))
        self.found.keep(copies.work, copies.count, side.name, sample)

    @contextmanager
    def _sides(self, copies: Copies, files: Files, workers: Crew) -> Iterator[list[CopySide]]:
        plan, pair = self.plan, copies.pair
        at_once = plan.small_at_once if copies.name == SMALL else plan.large_at_once
        with ExitStack() as stack:
            mine = Ours(workers, pair, plan.processes)
            mine.warm_up(files)
            sides: list[CopySide] = [mine]
            if pair.is_pulled:
                sides.append(Curl(pair, plan.work, at_once, only_copy=copies.name == LARGE))
            if plan.rclone:
                sides.append(Rclone(pair, plan.work, at_once))
            if plan.gfal2 and pair.is_pulled and copies.name == LARGE:
                sides.append(stack.enter_context(gfal2(pair, at_once)))
            yield sides


def copies_of(plan: Plan, storages: Storages) -> Iterator[Copies]:
    """Give the copies that a plan asks for: small files in clear and by TLS, large ones in clear."""
    sizes = plan.sizes
    if SMALL in plan.parts:
        for kind in KINDS:
            for scheme in ("http", "https"):
                yield Copies(SMALL, storages.pair(kind, scheme), sizes.small, sizes.small_kb * 1000)
    if LARGE in plan.parts:
        for kind in KINDS:
            yield Copies(LARGE, storages.pair(kind, "http"), sizes.large, sizes.large_mb * 1_000_000)
