"""What the judge of the state machine has to know of evaluations that do much between two looks."""

from __future__ import annotations

import pytest

from arriero.registry.ports import SilentDoorbell
from arriero.registry.services.context import Context
from arriero.registry.settings import Settings
from scheduler.model.driven import driven
from scheduler.model.drivers import SCOPE, Services
from scheduler.model.reference import Rule
from support.database import migrated_database
from support.in_process import InProcess


@pytest.fixture
def system(services, tmp_path):
    url = migrated_database(services, "sqlite", tmp_path)
    site = InProcess(url)
    site.scope(SCOPE)
    yield Services(Context(site.database, Settings(database_url=url), SilentDoorbell()))
    site.close()


def test_a_copy_that_a_rule_has_begun_for_one_dataset_counts_for_the_next(system):
    """`db` goes to R3, and `f2` with it; then as many bytes of `dm` are at R3 as there are of `f0` and `f1` at R0."""
    with driven(system) as made:
        machine = made()
        # of the ways to break both ties, one that takes R3 each time
        machine.night(asked=[], is_settled=False, chance=10)
        for name in ("f2", "f3"):
            machine.act(*machine._both("declare", (name, "R0"), "BAD"))
        machine._add(Rule("cm", "R0|R3", 1, "DATASET"))
        machine.evaluate(1, None)
        [places] = machine.seen.places.values()
        assert places == {"db": {"R3"}, "dm": {"R3"}}
        machine.teardown()
