"""The quick form of the benchmark of transfers does the work that it measures, and writes what its readers expect."""

from __future__ import annotations

from support.benchmarks import quick_benchmark


def test_the_quick_benchmark_verifies_what_it_measures(services, tmp_path):
    results, printed = quick_benchmark(services, "transfers", tmp_path, timeout=280, redis=True)
    assert {result["work"] for result in results} == {
        "24 x 10 kB, XRootD by http, pulled",
        "24 x 10 kB, XRootD by https, pulled",
        "24 x 10 kB, Apache by http, streamed",
        "24 x 10 kB, Apache by https, streamed",
        "2 x 3 MB, XRootD by http, pulled",
        "2 x 3 MB, Apache by http, streamed",
        "control plane of 200 copies, 2 processes",
        "control plane of 200 copies, CPU",
        "control plane of 200 copies, WAL",
        "one small file, rule add to AVAILABLE, p50 of 2",
        "one small file, rule add to AVAILABLE, p95 of 2",
        "60 deletions, XRootD by http",
    }
    assert all(result["ours"] > 0 for result in results)
    names = [str(result["peer_name"]).partition(" ")[0] for result in results]
    assert names.count("curl") == 3
    assert names.count("bare") == 2
    assert "Load average while measuring" in printed
