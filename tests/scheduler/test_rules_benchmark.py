"""The quick form of the benchmark of rules does the work that it measures, and writes what its readers expect."""

from __future__ import annotations

from support.benchmarks import quick_benchmark


def test_the_quick_benchmark_verifies_what_it_measures(services, tmp_path):
    results, printed = quick_benchmark(services, "rules", tmp_path, timeout=240)
    assert {result["work"] for result in results} >= {
        "new rule, one missing copy, 300",
        "new rule, all there, 300",
        "evaluate what is appended, 300",
        "settle copies, 100 a batch, 300",
        "remove a rule, 300",
        "new rule, one missing copy, 600",
        "evaluate 100 appended to 600",
        "new rule on 6 datasets of 100",
        "expression over 30 RSEs, attributes, RSEs read before, index kept (peer: reads them)",
    }
    assert all(result["ours"] >= 0 for result in results)
    assert [result["peer_name"] for result in results].count("bare INSERT ... SELECT") == 2
    assert "300" in printed
