"""Turns what a run of the benchmark of transfers has found into the lines of its report."""

from collections.abc import Mapping, Sequence
from math import ceil
from statistics import median

from benchlib.registry_report import rates
from benchlib.report import Result, Sample, at_least, at_most, compare
from benchlib.rules_found import Found
from benchlib.rules_sides import OURS, PEER
from benchlib.transfers_control import PAGES, WAL
from benchlib.transfers_control import WORK as CONTROL
from benchlib.transfers_deletions import BARE, SERIAL
from benchlib.transfers_deletions import WORK as DELETIONS
from benchlib.transfers_latency import WORK as LATENCY
from benchlib.transfers_run import LARGE, SMALL, Sizes

Samples = Mapping[tuple[str, int, str], Sequence[Sample]]

SMALL_TARGETS = {"rclone": 10.0, "curl": 0.7}
OF_THE_BEST = 0.9
CPU_OF_RCLONE = 0.05
DELETIONS_OF_BARE = 0.7
CONTROL_US, CONTROL_WAL, CONTROL_RATE = 2000.0, 3000.0, 1000.0
LATENCY_MS = {50: 500.0, 95: 1000.0}


def results(samples: Samples, sizes: Sizes) -> list[Result]:
    """Make the lines."""
    works = dict.fromkeys(work for work, _, _ in samples)
    lines = []
    for work in works:
        kind, _, pair = work.partition(", ")
        if kind == SMALL:
            lines += _small(samples, work, f"{sizes.small:,} x {sizes.small_kb} kB, {pair}", sizes.small)
        elif kind == LARGE:
            lines += _large(samples, work, f"{sizes.large} x {sizes.large_mb} MB, {pair}", sizes)
    return lines + _control(samples, sizes) + _latency(samples) + _deletions(samples, sizes)


def _peers(samples: Samples, work: str) -> list[str]:
    return list(dict.fromkeys(side for known, _, side in samples if known == work and side != OURS))


def _small(samples: Samples, work: str, name: str, count: int) -> list[Result]:
    ours = rates(samples, work, count, OURS)
    peers = _peers(samples, work)
    if not peers:
        return [compare(name, "files/s", ours, (), peer_name=None)]
    return [
        compare(
            name,
            "files/s",
            ours,
            rates(samples, work, count, peer),
            peer_name=peer,
            target=SMALL_TARGETS.get(peer.partition(" ")[0]),
        )
        for peer in peers
    ]


def _large(samples: Samples, work: str, name: str, sizes: Sizes) -> list[Result]:
    def speeds(side: str) -> list[float]:
        return [rate * sizes.large_mb for rate in rates(samples, work, sizes.large, side)]

    def cpu(side: str) -> list[float]:
        gigabytes = sizes.large * sizes.large_mb / 1000
        return [1000 * one.client_cpu_s / gigabytes for one in samples[work, sizes.large, side]]

    peers = _peers(samples, work)
    if not peers:
        return [compare(name, "MB/s", speeds(OURS), (), peer_name=None)]
    best = max(peers, key=lambda peer: median(speeds(peer)))
    lines = []
    for peer in peers:
        is_best = peer == best
        peer_name = f"{peer} (the best)" if is_best and len(peers) > 1 else peer
        target = OF_THE_BEST if is_best else None
        lines.append(compare(name, "MB/s", speeds(OURS), speeds(peer), peer_name=peer_name, target=target))
    # what is streamed passes through the worker, as it does through rclone
    target = None if work.endswith("streamed") else 1 / CPU_OF_RCLONE
    lines += [
        compare(
            f"{name}, CPU of the workers",
            "ms/GB",
            cpu(OURS),
            cpu(peer),
            peer_name=peer,
            target=target,
            less_is_better=True,
        )
        for peer in peers
        if peer.startswith("rclone")
    ]
    return lines


def _control(samples: Samples, sizes: Sizes) -> list[Result]:
    ours = samples.get((CONTROL, sizes.control, OURS), ())
    if not ours:
        return []
    peer = samples.get((CONTROL, sizes.peer_control, PEER), ())
    name = f"control plane of {sizes.control:,} copies"
    lines = [at_least(f"{name}, 2 processes", "files/s", [one.rate for one in ours], CONTROL_RATE)]
    lines.append(at_most(f"{name}, CPU", "us/file", _cpu_us(ours), CONTROL_US))
    wal = rates(samples, WAL, sizes.control, OURS)
    lines.append(at_most(f"{name}, WAL", "B/file", wal, CONTROL_WAL))
    if not peer:
        return lines
    peer_name = f"{PEER}, mock tool, {sizes.peer_control:,}"
    return [
        *lines,
        compare(
            f"{name}, 2 processes (peer: 1)",
            "files/s",
            [one.rate for one in ours],
            [one.rate for one in peer],
            peer_name=peer_name,
        ),
        compare(
            f"{name}, CPU", "us/file", _cpu_us(ours), _cpu_us(peer), peer_name=peer_name, less_is_better=True
        ),
        compare(
            f"{name}, WAL",
            "B/file",
            wal,
            rates(samples, WAL, sizes.peer_control, PEER),
            peer_name=peer_name,
            less_is_better=True,
        ),
    ]


def _cpu_us(rounds: Sequence[Sample]) -> list[float]:
    return [1e6 * (one.client_cpu_s + one.database_cpu_s) / one.items for one in rounds]


def _latency(samples: Samples) -> list[Result]:
    found = sorted(rates(samples, LATENCY, 1, OURS))
    if not found:
        return []
    return [
        at_most(
            f"one small file, rule add to AVAILABLE, p{share} of {len(found)}",
            "ms",
            [found[ceil(share / 100 * len(found)) - 1]],
            most,
        )
        for share, most in LATENCY_MS.items()
    ]


def _deletions(samples: Samples, sizes: Sizes) -> list[Result]:
    ours = rates(samples, DELETIONS, sizes.deletions, OURS)
    if not ours:
        return []
    return [
        compare(
            f"{sizes.deletions:,} deletions, XRootD by http",
            "files/s",
            ours,
            rates(samples, DELETIONS, sizes.deletions, peer),
            peer_name=peer,
            target=target,
        )
        for peer, target in ((BARE, DELETIONS_OF_BARE), (SERIAL, None))
    ]


def costs(found: Found) -> list[str]:
    """Say what each work cost: the spread, processor time of workers and database, memory of the largest process, the load."""
    lines = []
    for (work, size, side), rounds in found.samples.items():
        if not any(one.items for one in rounds):
            continue
        spread = f"{min(one.rate for one in rounds):,.1f} to {max(one.rate for one in rounds):,.1f} files/s"
        worker = 1000 * median(one.client_cpu_s / one.items for one in rounds)
        database = 1000 * median(one.database_cpu_s / one.items for one in rounds)
        memory = median(one.client_rss_mb for one in rounds)
        loads = found.loads_of[work, size, side]
        lines.append(
            f"{work}, {size:,}: {side}: {spread}; CPU ms a file: workers {worker:.2f}, database {database:.2f}; "
            f"peak memory {memory:.0f} MB; load {min(loads):.1f} to {max(loads):.1f}"
        )
    return lines


def whole_pages(samples: Samples) -> list[str]:
    """Say how much of the write-ahead log was pages that went there whole."""
    return [
        f"Of the WAL of the control plane, {median(one.rate for one in rounds):,.0f} B a file ({side}) are pages that went "
        "there whole, for their first change after a checkpoint."
        for (work, _, side), rounds in samples.items()
        if work == PAGES
    ]
