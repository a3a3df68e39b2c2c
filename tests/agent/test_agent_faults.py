"""Agents that are killed at every step of their ingest: the next one finishes, nothing is lost, nothing is there twice."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from support.agents import NOTHING_WRITTEN, STEPS, start_agent, working
from support.butler import DAY
from support.exposures import write_exposure
from support.faults import assert_ingested_once, hurry, wait_for_the_end
from support.ledger_site import LedgerSite
from support.server import running_registry
from support.thorough import AT_LENGTH

EXPOSURES = 2

LIKE_OTHERS = ("transaction not begun", "visits defined", "not reported")
"""Steps that leave what those beside them leave: tried at length only."""

ON_POSTGRESQL = [step for step in STEPS if AT_LENGTH or step not in LIKE_OTHERS]
ON_SQLITE = [
    step for step in STEPS if AT_LENGTH or step in {"transaction: datasets in", "visits: not committed"}
]
"""Where databases differ; the rest is between the agent and the catalogue."""


@pytest.fixture(scope="module")
def site_on(services, module_repository, tmp_path_factory) -> Iterator[Callable[[str], LedgerSite]]:
    """One site for all steps on a kind of database; each step has exposures of its own."""
    with ExitStack() as stack:

        @cache
        def made(kind: str) -> LedgerSite:
            directory = tmp_path_factory.mktemp("faults")
            (directory / "storage").mkdir()
            repository = stack.enter_context(module_repository(kind))
            registry = stack.enter_context(running_registry(services, kind, directory))
            return LedgerSite(registry, repository, directory / "storage")

        yield made


def numbers(step: str) -> list[int]:
    first = 1 + EXPOSURES * list(STEPS).index(step)
    return list(range(first, first + EXPOSURES))


@pytest.mark.parametrize(
    ("kind", "step"),
    [*(("postgresql", step) for step in ON_POSTGRESQL), *(("sqlite", step) for step in ON_SQLITE)],
)
def test_an_agent_that_dies_at_a_step_leaves_what_the_next_one_ends(site_on, kind, step):
    site = site_on(kind)
    paths = [
        path for number in numbers(step) for path in write_exposure(site.root, DAY, number, shape=(2, 2))
    ]
    known, names = site.in_butler(), set(site.land(paths))
    killed = start_agent(site, step)
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL, "it did not come to that step"

    there = len(site.in_butler() - known)
    assert there == (0 if step in NOTHING_WRITTEN else len(names)), "all of a transaction, or nothing"
    states = {arrival.state for name, arrival in site.ledger().items() if name in names}
    assert states == {"ingested" if step == "reported" else "leased"}
    hurry(site, "leased")
    with working(site.repository, site.agent):
        wait_for_the_end(site, names, numbers(step))
    assert_ingested_once(site, names, numbers(step), known, attempts=1 if step == "reported" else 2)
