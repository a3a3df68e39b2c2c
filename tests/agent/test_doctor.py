"""``arriero doctor`` against a real registry: what it shows, how it ends, what it mends."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import evaluation_items, evaluations, rules
from arriero.registry.services.doctor import CHECKS
from support import cli as support_cli
from support import server

registry = server.registry
cli = support_cli.cli
environment = support_cli.environment


@pytest.fixture
def wrong_counts(registry, cli):
    """Id of a rule that has not been evaluated yet and says that it has locks."""
    cli("scope", "add", "raw")
    cli("rse", "add", "SLAC")
    cli("did", "add", "raw:night", "--type", "dataset")
    (rule_id,) = cli("rule", "add", "raw:night", "--copies", "1", "--rses", "SLAC").lines
    with registry.database.transaction() as connection:
        connection.execute(update(rules).values(locks_ok=3))
    return rule_id


def test_a_whole_catalogue_ends_with_0(cli):
    told = cli("-o", "table", "doctor")
    assert told.out == ""
    assert told.err == f"The catalogue is whole: {len(CHECKS)} checks found nothing that is broken.\n"
    found = cli("-o", "json", "doctor").json
    assert {one["check"] for one in found} == {check.name for check in CHECKS}
    assert {one["broken"] for one in found} == {0}


def test_what_is_broken_is_shown_and_ends_with_7(cli, wrong_counts):
    told = cli("-o", "table", "doctor", expect=7)
    (heading, row) = told.lines
    assert heading.split() == ["INVARIANT", "CHECK", "CASES", "WHAT", "EXAMPLE", "NEXT", "STEP"]
    assert row.split()[:3] == ["I3", "counts", "1"]
    assert f"rule_id {wrong_counts}, detail says OK 3, REPLICATING 0, STUCK 0; has 0, 0, 0" in row
    assert row.endswith("arriero doctor --repair counts them anew")
    assert f"1 of {len(CHECKS)} checks found 1 cases (counts)" in told.err
    told = cli("-o", "json", "doctor", "--check", "i3", expect=7)
    found = {one["check"]: one for one in told.json}
    assert found.keys() == {check.name for check in CHECKS if check.invariant == "I3"}
    assert found["counts"]["examples"][0]["rule_id"] == wrong_counts
    assert json.loads(told.err)["error"]["code"] == "invariants_broken"
    # what is not asked for is not told
    cli("doctor", "--check", "I5", "--check", "keys")


def test_a_repair_mends_and_a_dry_run_does_not(registry, cli, wrong_counts):
    cli("doctor", "--repair", "--dry-run", expect=7)
    cli("doctor", "--check", "counts", expect=7)
    done = cli("-o", "json", "doctor", "--repair").json
    assert done == {"recounted": 1, "looked_at": 1, "more": False}
    cli("doctor")
    with registry.database.snapshot() as connection:
        kinds = connection.scalars(select(evaluation_items.c.kind)).all()
    assert set(kinds) == {"DATASET"}
    told = cli("-o", "table", "doctor", "--repair")
    assert told.err == "Counted 0 rules anew; 0 rules are looked at as a whole.\n"


def test_work_that_is_late_is_told_and_breaks_nothing(registry, cli, wrong_counts):
    cli("doctor", "--repair")
    with registry.database.transaction() as connection:
        connection.execute(update(evaluations).values(not_before=after(-3600)))
    told = cli("-o", "table", "doctor")
    assert told.lines[1].split()[:3] == ["I7", "late_evaluations", "1"]
    assert wrong_counts in told.lines[1]
    assert "nothing that is broken" in told.err


def test_a_check_that_there_is_not_is_a_mistake(cli):
    told = cli("doctor", "--check", "I9", expect=2)
    assert "there is no check 'i9'" in told.err
    assert "missing_locks" in told.err
