"""Fixtures of the conformance tests, and the record of what they prove."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from support.official import client, official
from support.official_surface import MARKERS

__all__ = ["client", "official"]

THE_LAST = "test_the_page_says_what_passed"
_PROVEN = pytest.StashKey[dict[str, bool]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.name == THE_LAST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    del call
    report = yield
    if report.when == "call" or report.failed:
        proven = item.config.stash.setdefault(_PROVEN, {})
        for mark in (mark for marker in MARKERS for mark in item.iter_markers(marker)):
            for name in mark.args:
                proven[name] = proven.get(name, True) and report.passed
    return report


@pytest.fixture
def proven(request: pytest.FixtureRequest) -> dict[str, bool]:
    """Methods and verbs whose tests have run in this session, and whether all of those passed."""
    return request.config.stash.setdefault(_PROVEN, {})
