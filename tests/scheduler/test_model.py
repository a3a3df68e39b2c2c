"""Model and system side by side: random operations, the same on both, on SQLite, on PostgreSQL and over REST.

`make model` runs it at length, with ARRIERO_TEST_MODEL_EXAMPLES examples and new ones each time.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from arriero.registry.ports import SilentDoorbell
from arriero.registry.services.context import Context
from arriero.registry.settings import Settings
from scheduler.model.driven import driven
from scheduler.model.drivers import SCOPE, Services
from scheduler.model.rest import Rest
from support.database import migrated_database
from support.in_process import InProcess
from support.server import running_registry
from support.services import drop_database

pytestmark = pytest.mark.timeout(0 if "ARRIERO_TEST_MODEL_EXAMPLES" in os.environ else 300)

AT_LENGTH = int(os.environ.get("ARRIERO_TEST_MODEL_EXAMPLES", "0"))


def drive(system: Services, *, examples: int, steps: int) -> None:
    chosen = settings(
        max_examples=AT_LENGTH or examples,
        stateful_step_count=steps,
        # the same examples in every run, unless it is to look for new ones
        derandomize=not AT_LENGTH,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    with driven(system) as machine:
        run_state_machine_as_test(machine, settings=chosen)


def test_services(services, database_kind, tmp_path):
    url = migrated_database(services, database_kind, tmp_path)
    site = InProcess(url)
    site.scope(SCOPE)
    try:
        context = Context(site.database, Settings(database_url=url), SilentDoorbell())
        drive(Services(context), examples=12 if database_kind == "sqlite" else 8, steps=30)
    finally:
        site.close()
        drop_database(services, url)


def test_rest(services, tmp_path):
    with running_registry(services, "postgresql", tmp_path) as registry:
        client = registry.client()
        client.add_scope("root", SCOPE)
        drive(Rest(registry.context, client), examples=6, steps=25)
