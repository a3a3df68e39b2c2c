"""Who does not say who he is makes the database count nothing twice, however often he asks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx2
import pytest

from arriero.registry.errors import Busy
from arriero.registry.services import counts as service
from arriero.registry.services import recent as recent_figures
from arriero.registry.services.counts import RecentCounts
from support.database import counted_statements


def test_the_page_is_counted_once_for_all_who_ask(registry):
    with counted_statements(registry.database) as first:
        assert httpx2.get(f"{registry.url}/ui").status_code == 200
    assert first
    with counted_statements(registry.database) as later:
        for query in ("", "?paused=true", "?x=1"):
            assert httpx2.get(f"{registry.url}/ui{query}").status_code == 200
        assert httpx2.get(f"{registry.url}/docs").status_code == 200
        assert httpx2.get(f"{registry.url}/openapi.json").status_code == 200
    assert later == []


def test_one_counts_and_the_others_are_given_the_last_counts(catalogue, monkeypatch):
    recent = RecentCounts(catalogue.context, kept_s=0.0)
    first = recent.get()
    begun, go_on = threading.Event(), threading.Event()
    count = service.count_everything

    def slow(context):
        begun.set()
        assert go_on.wait(20)
        return count(context)

    monkeypatch.setattr(recent_figures, "REST", 0)
    recent._made_again_at = 0.0
    monkeypatch.setattr(service, "count_everything", slow)
    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(recent.get)
        assert begun.wait(20)
        assert [recent.get() is first for _ in range(5)] == [True] * 5
        go_on.set()
        assert counting.result() is not first


def test_what_takes_long_is_counted_the_less_often(catalogue, monkeypatch):
    clock = [1000.0]
    count = service.count_everything
    counted = []

    def slow(context):
        counted.append(clock[0])
        clock[0] += 60
        return count(context)

    monkeypatch.setattr(recent_figures, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(service, "count_everything", slow)
    recent = RecentCounts(catalogue.context)
    recent.get()
    for _ in range(100):
        clock[0] += 30
        recent.get()
    assert len(counted) == 3


def test_nobody_waits_long_for_the_first_counts(catalogue, monkeypatch):
    monkeypatch.setattr(recent_figures, "_WAIT_S", 0.01)
    recent = RecentCounts(catalogue.context)
    with recent._making, pytest.raises(Busy):
        recent.get()
    assert recent.get() is recent.get()
