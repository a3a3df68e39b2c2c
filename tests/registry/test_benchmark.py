"""The quick form of the benchmark does the work that it measures, and writes what its readers expect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"work", "unit", "ours", "peer", "peer_name", "ratio", "target"}


def test_the_quick_benchmark_verifies_what_it_measures(services, tmp_path):
    output = tmp_path / "registry.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "registry"), "--quick", "--output", str(output)]
    # not with the credentials in the command line
    environment = dict(os.environ, ARRIERO_TEST_POSTGRESQL_URL=services.postgresql.url)
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    assert all(set(result) == FIELDS for result in results)
    works = {result["work"].rpartition(", ")[0] for result in results}
    assert works >= {"register, core", "register, HTTP", "list replicas, core", "list replicas, HTTP"}
    assert all(result["ours"] > 0 for result in results)
    assert [result["peer_name"] for result in results].count("bare COPY") == 1
    assert "2,000" in done.stdout
