"""Time, processor time and memory of the process that works; no import beyond the standard library.

The machine may be shared, so that wall time alone says little: both sides report what they used, and the load.
"""

import os
import time
from pathlib import Path
from typing import Self


def reset_peak(pid: int | str = "self") -> None:
    """Forget the highest resident memory so far (Linux)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int | str = "self") -> float:
    """Give the highest resident memory since `reset_peak`, MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def cpu_s(pid: int) -> float:
    """Give the processor time of a process and of its children that have ended, seconds; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Give the processes that a process has started."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in threads for child in (task / "children").read_text().split()]
    except OSError:
        return []


def tree_cpu_s(pid: int) -> float:
    """Give the processor time of a process and all below it, seconds."""
    return cpu_s(pid) + sum(tree_cpu_s(child) for child in children(pid))


def machine_cpu_s() -> float:
    """Give the processor time that everything on the machine has had, what others took of it included, seconds."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    user, nice, system, _idle, _iowait, *interrupts = map(int, fields)
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


class Stopwatch:
    """Adds up what happens within its ``with`` blocks, and nothing between them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.cpu = 0.0
        reset_peak()

    def __enter__(self) -> Self:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]

    def report(self, count: int, **more: object) -> dict[str, object]:
        """Give what a worker answers."""
        return {
            "n": count,
            "seconds": self.seconds,
            "client_cpu_s": self.cpu,
            "client_rss_mb": peak_mb(),
            **more,
        }
