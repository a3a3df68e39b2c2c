"""The quick form of the benchmark does the work that it measures, and writes what its readers expect."""

from __future__ import annotations

from support.benchmarks import quick_benchmark


def test_the_quick_benchmark_verifies_what_it_measures(services, tmp_path):
    results, printed = quick_benchmark(services, "registry", tmp_path, timeout=120)
    works = {result["work"].rpartition(", ")[0] for result in results}
    assert works >= {"register, core", "register, HTTP", "list replicas, core", "list replicas, HTTP"}
    assert all(result["ours"] > 0 for result in results)
    assert [result["peer_name"] for result in results].count("bare COPY") == 1
    assert "2,000" in printed
