"""The quick form of the benchmark of ingest does the work that it measures, and writes what its readers expect."""

from __future__ import annotations

import pytest

from support.benchmarks import quick_benchmark


# a dozen processes, each of which imports the Butler: a slow machine takes minutes
@pytest.mark.timeout(900)
def test_the_quick_benchmark_verifies_what_it_measures(services, tmp_path):
    results, printed = quick_benchmark(services, "ingest", tmp_path, timeout=840, redis=True)
    works = {result["work"] for result in results}
    assert "63 raws with indexes, PostgreSQL" in works
    assert "63 raws with indexes, PostgreSQL, two agents" in works
    assert "one file from its registration to butler.get, PostgreSQL, p50 of 2" in works
    assert "one exposure of 11 files, landed to whole in the other site's Butler" in works
    assert any(work.startswith("campaign of ") for work in works)
    [there] = [result for result in results if result["work"].endswith(": in the Butler")]
    assert there["ours"] == there["peer"] == 53
    assert all(result["ours"] > 0 for result in results if not result["work"].endswith(": lost"))
    assert "Load average while measuring" in printed
