"""Suspicious replicas become bad by policy: often enough, lately, and with another copy that is known to be good."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from arriero.registry.schema.base import now
from arriero.registry.schema.tables import audit_log, bad_replicas, replicas
from arriero.registry.services.bad_replicas import Declaration, Named, declare
from arriero.registry.services.suspicions import promote_suspicious
from arriero.registry.states import BadReplicaState, ReplicaState
from support.audited import DAY_S, age

SUSPICIOUS = Declaration(BadReplicaState.SUSPICIOUS, "reading it took too long")


@pytest.fixture
def site(catalogue):
    """Two files at SLAC and, verified, at IN2P3."""
    catalogue.scope()
    for rse in ("SLAC", "IN2P3"):
        catalogue.rse(rse)
        catalogue.files(rse, ["a", "b"])
    with catalogue.database.transaction() as connection:
        connection.execute(update(replicas).where(replicas.c.rse_id == 2).values(verified_at=now()))
    return catalogue


def suspect(site, times: int, *names: str, rse: str = "SLAC") -> None:
    for _ in range(times):
        named = [Named("raw", name, rse) for name in names]
        assert declare(site.context, site.root, named, SUSPICIOUS) == {}


def bad(site) -> list[tuple[int, int]]:
    query = select(replicas.c.file_id, replicas.c.rse_id).where(replicas.c.state == ReplicaState.BAD)
    return [tuple(row.values()) for row in site.rows(query)]


def test_five_times_in_five_days_is_enough(site):
    suspect(site, 4, "a", "b")
    assert promote_suspicious(site.context) == 0
    suspect(site, 1, "a")
    assert promote_suspicious(site.context) == 1
    assert bad(site) == [(1, 1)]
    said = [row["reason"] for row in site.rows(select(bad_replicas).where(bad_replicas.c.state == "BAD"))]
    assert said == ["it was declared suspicious 5 times in 5 days"]
    [row] = site.rows(select(audit_log).where(audit_log.c.account.is_(None)))
    assert (row["action"], row["object"]) == ("replica_declare", "SLAC")
    assert promote_suspicious(site.context) == 0


def test_what_was_long_ago_is_forgotten(site):
    suspect(site, 4, "a")
    age(site.database, bad_replicas, 6 * DAY_S, "created_at")
    suspect(site, 4, "a")
    assert promote_suspicious(site.context) == 0


def test_without_another_copy_that_is_known_to_be_good_nothing_becomes_bad(site):
    suspect(site, 5, "a")
    suspect(site, 5, "a", rse="IN2P3")
    assert promote_suspicious(site.context) == 0
    with site.database.transaction() as connection:
        connection.execute(update(replicas).values(verified_at=None))
    suspect(site, 5, "b")
    assert promote_suspicious(site.context) == 0
    assert bad(site) == []


def test_an_rse_with_many_of_them_is_at_fault_itself(site):
    site.context.settings.__dict__["suspicious_brake_files"] = 1
    suspect(site, 5, "a", "b")
    assert promote_suspicious(site.context) == 0
    site.context.settings.__dict__["suspicious_brake_files"] = 2
    assert promote_suspicious(site.context) == 2
