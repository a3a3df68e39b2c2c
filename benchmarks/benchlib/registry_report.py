"""Turns the samples of a run into the lines of its report."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from benchlib.report import Result, Sample, compare

PEER = "rucio 41.5.1"
TARGETS = {"register, core": 40, "register, HTTP": 15, "list replicas, core": 15, "list replicas, HTTP": 15}
FLAT = 0.8
"""How much of the rate at the smallest size is left at the largest for "flat"."""

Samples = Mapping[tuple[str, int, str], Sequence[Sample]]


def rates(samples: Samples, work: str, size: int, side: str) -> list[float]:
    """Give the rates of all rounds."""
    return [sample.rate for sample in samples.get((work, size, side), ())]


def results(samples: Samples, sizes: Sequence[int], bounded_from: int) -> list[Result]:
    """Make the lines: work by work, each at every size."""
    works = list(dict.fromkeys(work for work, _, side in samples if side == "arriero"))
    lines = []
    for work in works:
        unit = "searches/s" if work.startswith("search") else "files/s"
        for size in sizes:
            peer_name = f"{PEER}, bounded" if size >= bounded_from else PEER
            ours = rates(samples, work, size, "arriero")
            theirs = rates(samples, work, size, PEER)
            target = TARGETS.get(work)
            lines.append(compare(f"{work}, {size:,}", unit, ours, theirs, peer_name=peer_name, target=target))
            if limit := rates(samples, work, size, "COPY"):
                lines.append(
                    compare(f"{work}, {size:,}", unit, ours, limit, peer_name="bare COPY", target=0.5)
                )
    return lines + _flat(samples, works, sizes) + _memory(samples, sizes)


def _flat(samples: Samples, works: Iterable[str], sizes: Sequence[int]) -> list[Result]:
    small, large = min(sizes), max(sizes)
    if small == large:
        return []
    return [
        compare(
            f"{work}, {large:,} against {small:,}",
            "files/s",
            rates(samples, work, large, "arriero"),
            rates(samples, work, small, "arriero"),
            peer_name=f"arriero at {small:,}",
            target=FLAT,
        )
        for work in works
        if not work.startswith("search")
    ]


def _memory(samples: Samples, sizes: Sequence[int]) -> list[Result]:
    small, large = min(sizes), max(sizes)
    return [
        compare(
            f"memory of the service: {work}, {large:,} against {small:,}",
            "MB",
            _memory_of(samples, work, large),
            _memory_of(samples, work, small),
            peer_name=f"arriero at {small:,}",
            target=0.9,
            less_is_better=True,
        )
        for work in ("register, HTTP", "list replicas, HTTP", "list files, HTTP")
    ]


def costs(samples: Samples) -> list[str]:
    """Say what each work cost: processor time per 1,000 files of client, service and database, and memory."""
    lines = []
    for (work, size, side), rounds in samples.items():
        if side == "COPY" or work.startswith("search"):
            continue
        spread = f"{min(one.rate for one in rounds):,.0f} to {max(one.rate for one in rounds):,.0f} /s"
        cpu = ", ".join(
            f"{name} {median(getattr(one, field) for one in rounds):.2f} s"
            for name, field in (
                ("client", "client_cpu_s"),
                ("service", "server_cpu_s"),
                ("database", "database_cpu_s"),
            )
        )
        memory = median(max(one.client_rss_mb, one.service_rss_mb) for one in rounds)
        lines.append(f"{side:<13} {work:<22} {size:>9,}: {spread}; CPU {cpu}; peak memory {memory:.0f} MB")
    return lines


def _memory_of(samples: Samples, work: str, size: int) -> list[float]:
    return [sample.service_rss_mb for sample in samples.get((work, size, "arriero"), ())]
