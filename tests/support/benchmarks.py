"""Runs the quick form of a benchmark and reads what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"work", "unit", "ours", "peer", "peer_name", "ratio", "target"}


def quick_benchmark(
    services, name: str, directory: Path, *, timeout: float, redis: bool = False
) -> tuple[list[dict[str, Any]], str]:
    """Run ``benchmarks/NAME --quick``, with a broker if it needs one; give the lines of its JSON, and what it printed."""
    output = directory / f"{name}.json"
    command = [sys.executable, str(ROOT / "benchmarks" / name), "--quick", "--output", str(output)]
    # not with the credentials in the command line
    environment = dict(os.environ, ARRIERO_TEST_POSTGRESQL_URL=services.postgresql.url)
    if redis:
        environment["ARRIERO_TEST_REDIS_URL"] = services.redis.url
    done = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    assert all(set(result) == FIELDS for result in results)
    return results, done.stdout
