"""Turns what a run of the benchmark of ingest has found into the lines of its report."""

import os
from collections.abc import Mapping, Sequence
from math import ceil
from statistics import median

from benchlib.ingest_exposure import WORK as EXPOSURE
from benchlib.ingest_run import (
    BARE,
    CAMPAIGN,
    EXPOSURES,
    INGEST_FILES,
    MEMORY,
    ONE_BY_ONE,
    ONE_FILE,
    TWO_AGENTS,
    WITH_VISITS,
    WRITER,
)
from benchlib.ingest_site import KINDS, POSTGRESQL
from benchlib.registry_report import rates
from benchlib.report import Result, Sample, at_least, at_most, compare
from benchlib.rules_sides import OURS

Samples = Mapping[tuple[str, int, str], Sequence[Sample]]

OF_ONE_BY_ONE, OF_BARE = 10.0, 0.9
FASTER_THAN_A_PROCESS, ONE_FILE_MS = 20.0, 500.0
CAMPAIGN_S = 180.0
EXPOSURE_S = 7.0
"""What Rubin has from the summit to the Butler (rubin.md)."""

CAMPAIGN_FILES = 148_845
FLAT_MB = 50.0


def results(samples: Samples) -> list[Result]:
    """Make the lines."""
    lines = [line for kind in KINDS for line in _exposures(samples, kind)]
    lines += [line for kind in KINDS for line in _one_file(samples, kind)]
    return lines + _exposure(samples) + _campaign(samples)


def _size(samples: Samples, work: str) -> int | None:
    return next((size for known, size, _ in samples if known == work), None)


def _exposures(samples: Samples, kind: str) -> list[Result]:
    work = f"{EXPOSURES}, {kind}"
    size = _size(samples, work)
    if size is None:
        return []
    name = f"{size:,} raws with indexes, {kind}"
    there = {side for known, _, side in samples if known == work}
    peers = {ONE_BY_ONE: OF_ONE_BY_ONE, BARE: OF_BARE, INGEST_FILES: None}
    return [
        compare(
            f"{name}{said}",
            "files/s",
            rates(samples, work, size, side),
            rates(samples, work, size, peer),
            peer_name=peer,
            target=target if side in {OURS, TWO_AGENTS} or (side, peer) == (WRITER, BARE) else None,
        )
        for side, said in (
            (OURS, ""),
            (TWO_AGENTS, ", two agents"),
            (WITH_VISITS, ", visits defined too"),
            (WRITER, ", without the ledger"),
        )
        for peer, target in peers.items()
        if (side == OURS or peer != INGEST_FILES) and {side, peer} <= there
    ]


def _one_file(samples: Samples, kind: str) -> list[Result]:
    work = f"{ONE_FILE}, {kind}"
    ours, peer = rates(samples, work, 1, OURS), rates(samples, work, 1, INGEST_FILES)
    if not ours:
        return []
    name = f"one file from its registration to butler.get, {kind}"
    lines = [at_most(f"{name}, p50 of {len(ours)}", "ms", [_percentile(ours, 50)], ONE_FILE_MS)]
    lines.append(compare(f"{name}, p95 of {len(ours)}", "ms", [_percentile(ours, 95)], (), peer_name=None))
    if peer:
        lines.append(
            compare(
                f"{name}, median",
                "ms",
                ours,
                peer,
                peer_name=f"a process of {INGEST_FILES}",
                target=FASTER_THAN_A_PROCESS,
                less_is_better=True,
            )
        )
    return lines


def _exposure(samples: Samples) -> list[Result]:
    size = _size(samples, EXPOSURE)
    if size is None:
        return []
    sides = {side: [size / rate for rate in rates(samples, EXPOSURE, size, side)] for _, _, side in samples}
    ours = sides.pop(OURS)
    name = f"one exposure of {size} files, landed to whole in the other site's Butler"
    lines = [at_most(name, "s", ours, EXPOSURE_S)]
    return lines + [
        compare(name, "s", ours, took, peer_name=f"{side} of the same files", less_is_better=True)
        for side, took in sides.items()
        if took
    ]


def _percentile(values: Sequence[float], share: int) -> float:
    return sorted(values)[ceil(share / 100 * len(values)) - 1]


def _campaign(samples: Samples) -> list[Result]:
    size = _size(samples, CAMPAIGN)
    if size is None:
        return []
    ours = rates(samples, CAMPAIGN, size, OURS)
    name = f"campaign of {size:,} raws, {POSTGRESQL}, visits defined too"
    most = CAMPAIGN_S * size / CAMPAIGN_FILES
    lines = [at_most(name, "s", [size / median(ours)], most)]
    work = f"{EXPOSURES}, {POSTGRESQL}"
    if small := _size(samples, work):
        stock = rates(samples, work, small, ONE_BY_ONE)
        lines.append(
            compare(
                name,
                "s",
                [size / median(ours)],
                [size / median(stock)],
                peer_name=f"{ONE_BY_ONE} (extrapolated)",
                less_is_better=True,
            )
        )
    growth = rates(samples, MEMORY, size, OURS)
    lines.append(at_most(f"{name}: {MEMORY} after its first tenth", "MB", growth, FLAT_MB))
    return lines


def night(found: Mapping[str, float]) -> list[Result]:
    """Make the lines of a night."""
    name = f"night of {found['exposures']:,.0f} exposures, {found['speed']:g} times as fast, {found['faults']:.0f} faults"
    return [
        at_most(f"{name}: lag p99", "s", [found["p99_s"]], 10.0),
        compare(f"{name}: lag p50", "s", [found["p50_s"]], (), peer_name=None),
        compare(f"{name}: lost", "files", [found["lost"]], (), peer_name=None),
        at_least(f"{name}: in the Butler", "files", [found["ingested"]], found["sound"]),
    ]


def costs(samples: Samples) -> list[str]:
    """Say what each work cost."""
    return [
        f"{work}, {size:,}: {side}: {min(one.rate for one in rounds):,.1f} to {max(one.rate for one in rounds):,.1f} files/s; "
        f"CPU ms a file: process {1000 * median(one.client_cpu_s / one.items for one in rounds):.2f}, "
        f"database {1000 * median(one.database_cpu_s / one.items for one in rounds):.2f}; "
        f"peak memory {median(one.client_rss_mb for one in rounds):.0f} MB"
        for (work, size, side), rounds in samples.items()
        if work != EXPOSURE and any(one.items for one in rounds)
    ] + [
        f"{work}, {size:,}: {side}: {median(size / one.rate for one in rounds):.1f} s; seconds of processors: "
        f"storages {median(one.server_cpu_s for one in rounds):.1f}, database {median(one.database_cpu_s for one in rounds):.1f}, "
        f"all else {median(one.client_cpu_s for one in rounds):.1f}; busy {median(map(_busy_share, rounds)):.0%}"
        for (work, size, side), rounds in samples.items()
        if work == EXPOSURE
    ]


def _busy_share(sample: Sample) -> float:
    """Return how much of the machine's processors a round of an exposure has kept busy."""
    used = sample.server_cpu_s + sample.database_cpu_s + sample.client_cpu_s
    return used * sample.rate / sample.items / (os.cpu_count() or 1)
