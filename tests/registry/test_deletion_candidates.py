"""What deletion may take, and what ends when the lifetime of a file is over. Nothing is deleted here."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select, update

from arriero.registry.errors import NotFound
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    arrivals,
    butlers,
    dids,
    locks,
    lost_files,
    replicas,
    requests,
    rules,
)
from arriero.registry.services import bad_replicas
from arriero.registry.services.bad_replicas import Declaration, Named
from arriero.registry.services.losses import accept_losses
from arriero.registry.services.replica_lifetimes import list_candidates, release_expired_files
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import BadReplicaState, LockState, ReplicaState
from support.database import counted_statements

RSE, OTHER = "SLAC", "IN2P3"


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse(RSE)
    catalogue.rse(OTHER)
    return catalogue


def both(site, *names: str, verified: bool = True, **values: Any) -> None:
    """Files at both RSEs; those at the first have no lock any more."""
    site.files(RSE, names)
    site.files(OTHER, names)
    with site.database.transaction() as connection:
        if verified:
            connection.execute(update(replicas).where(replicas.c.rse_id == 2).values(verified_at=after(0)))
        chosen = select(dids.c.id).where(dids.c.name.in_(names))
        connection.execute(
            update(replicas)
            .where(replicas.c.rse_id == 1, replicas.c.file_id.in_(chosen))
            .values(**({"tombstone": after(-60)} | values))
        )


def expire(site, *names: str, seconds: float = 60) -> None:
    with site.database.transaction() as connection:
        connection.execute(update(dids).where(dids.c.name.in_(names)).values(expired_at=after(-seconds)))


def listed(site, rse: str = RSE) -> list[tuple[str, str, str]]:
    return [(row["name"], row["when"], row["why"]) for row in list_candidates(site.context, rse)]


def file_id(site, name: str) -> int:
    [row] = site.rows(select(dids.c.id).where(dids.c.name == name))
    return int(row["id"])


def lock(site, name: str, did: str | None = None, *, rse_id: int = 1) -> int:
    [uuid] = add_rules(site.context, site.root, RuleSpec(RSE, 1), [("raw", did or name)])
    with site.database.transaction() as connection:
        rule_id = connection.scalar(select(rules.c.id).where(rules.c.uuid == uuid))
        row = {"rule_id": rule_id, "file_id": file_id(site, name), "rse_id": rse_id, "bytes": 1000}
        connection.execute(insert(locks).values(**row, state=LockState.OK))
        connection.execute(update(rules).where(rules.c.id == rule_id).values(state="OK", locks_ok=1))
    return rule_id


def test_what_nobody_holds_goes_when_space_is_needed_the_least_read_first(site):
    both(site, "new", tombstone=after(-10))
    both(site, "old", tombstone=after(-1000))
    both(site, "read", tombstone=after(-5000), accessed_at=after(-1))
    both(site, "purged", purge=True)
    both(site, "later", tombstone=after(600))
    site.files(RSE, ["held"])
    assert listed(site) == [
        ("purged", "at_once", "purge"),
        ("old", "when_needed", "unlocked"),
        ("new", "when_needed", "unlocked"),
        ("read", "when_needed", "unlocked"),
    ]
    assert listed(site, OTHER) == []
    with pytest.raises(NotFound):
        listed(site, "NOWHERE")


def test_the_last_good_copy_and_what_is_only_said_to_lie_elsewhere_stay(site):
    both(site, "declared", verified=False)
    site.files(RSE, ["only"])
    with site.database.transaction() as connection:
        connection.execute(
            update(replicas).where(replicas.c.rse_id == 1).values(tombstone=after(-9), purge=True)
        )
    assert listed(site) == []


@pytest.mark.parametrize("guard", ["lock", "request", "butler", "copying", "deleting"])
def test_what_somebody_holds_or_works_on_stays(site, guard):
    both(site, "a", purge=True)
    assert len(listed(site)) == 1
    if guard == "lock":
        lock(site, "a")
        with site.database.transaction() as connection:
            connection.execute(update(replicas).values(tombstone=after(-9)))
    with site.database.transaction() as connection:
        if guard == "request":
            values = {"activity": "x", "priority": 3, "state": "SUBMITTED", "lease_owner": "w"}
            connection.execute(
                insert(requests).values(
                    file_id=file_id(site, "a"), destination_id=1, bytes=1, lease_until=after(60), **values
                )
            )
        if guard == "butler":
            butler_id = connection.execute(
                insert(butlers).values(name="b", uri="/b", instruments=[]).returning(butlers.c.id)
            ).scalar_one()
            connection.execute(
                insert(arrivals).values(
                    butler_id=butler_id, file_id=file_id(site, "a"), rse_id=1, state="ingested"
                )
            )
        state = {"copying": ReplicaState.COPYING, "deleting": ReplicaState.BEING_DELETED}.get(guard)
        if state is not None:
            connection.execute(update(replicas).where(replicas.c.rse_id == 1).values(state=state))
    assert listed(site) == []


def test_what_is_bad_goes_when_a_verified_copy_is_there_or_the_loss_is_accepted(site):
    both(site, "a", tombstone=None)
    site.files(RSE, ["b"])
    bad = Declaration(BadReplicaState.BAD)
    bad_replicas.declare(site.context, site.root, [Named("raw", "a", RSE), Named("raw", "b", RSE)], bad)
    assert listed(site) == [("a", "at_once", "bad")]
    assert site.count(lost_files) == 1
    accept_losses(site.context, site.root, [("raw", "b")])
    assert [row[0] for row in listed(site)] == ["a", "b"]


def test_an_expired_file_loses_its_own_rules_and_its_replicas_may_go(site):
    site.files(RSE, ["a", "held", "locked", "young"])
    own = lock(site, "a")
    site.dataset("d", ["held"])
    kept = [lock(site, "held", "d"), lock(site, "locked"), lock(site, "young")]
    with site.database.transaction() as connection:
        connection.execute(update(rules).where(rules.c.id == kept[1]).values(locked=True))
    expire(site, "a", "held", "locked")
    expire(site, "young", seconds=-600)
    assert release_expired_files(site.context) == 1
    assert sorted(row["id"] for row in site.rows(select(rules))) == sorted(kept)
    assert site.count(rules, rules.c.id == own) == 0
    [row] = site.rows(select(replicas).where(replicas.c.file_id == file_id(site, "a")))
    assert row["purge"] is True
    assert row["tombstone"] is not None
    assert row["state"] == "AVAILABLE"
    # the last copy, and on purpose
    assert listed(site) == [("a", "at_once", "expired")]
    audited = [row for row in site.audited(action="did_erase") if row["detail"]["reason"] == "expired"]
    assert [row["detail"]["files"] for row in audited] == [[file_id(site, "a")]]
    assert release_expired_files(site.context) == 0


def test_as_many_statements_for_one_as_for_many(site):
    names = [f"f{number}" for number in range(20)]
    site.files(RSE, names)
    expire(site, names[0])
    with counted_statements(site.database) as few:
        assert release_expired_files(site.context) == 1
    expire(site, *names)
    with counted_statements(site.database) as many:
        assert release_expired_files(site.context) == 19
    assert len(few) == len(many)
