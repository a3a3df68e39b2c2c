"""Rules are taken away at once, in an hour, or when their life is over; nothing is deleted with them."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from arriero.registry.errors import Conflict, NotFound
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    dataset_locks,
    dids,
    evaluations,
    locks,
    replicas,
    request_history,
    requests,
    rule_history,
    rules,
)
from arriero.registry.services import rule_removal
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_removal import remove_expired_rules, remove_rule
from arriero.registry.services.rules import (
    get_rule,
    list_rules,
)
from arriero.registry.states import LockState, ReplicaState, RequestState
from support.database import counted_statements
from support.rule_site import IN2P3, LANCS, SLAC, add, place, site

__all__ = ["site"]


def test_removing_a_rule_gives_an_hour_as_rucio_does(site):
    uuid = add(site)
    place(site, uuid)
    remove_rule(site.context, site.root, uuid.hex, purge_replicas=True)
    described = get_rule(site.context, uuid.hex)
    assert described["purge_replicas"] is True
    assert 3500 < (described["expires_at"] - described["updated_at"]).total_seconds() <= 3601
    assert remove_expired_rules(site.context) == 0
    update_rule(site.context, site.root, uuid.hex, {"lifetime": None})
    assert get_rule(site.context, uuid.hex)["expires_at"] is None


def test_a_locked_rule_is_not_removed(site):
    uuid = add(site, locked=True)
    for now in (False, True):
        with pytest.raises(Conflict, match="locked"):
            remove_rule(site.context, site.root, uuid.hex, now=now)
    with site.database.transaction() as connection:
        connection.execute(update(rules).values(expires_at=after(-5)))
    assert remove_expired_rules(site.context) == 0


def test_the_end_of_a_rule_marks_what_nobody_else_holds_and_deletes_nothing(site):
    alice = site.account("alice")
    ending, other = add(site), add(site, actor=alice)
    place(site, ending)
    place(site, other, names=("a",))
    before = site.count(replicas)
    remove_rule(site.context, site.root, ending.hex, now=True)
    marked = site.rows(
        select(dids.c.name, replicas.c.tombstone, replicas.c.purge, replicas.c.state)
        .join(dids, dids.c.id == replicas.c.file_id)
        .where(replicas.c.rse_id == 2)
        .order_by(dids.c.name)
    )
    assert [(row["name"], row["tombstone"] is not None, row["purge"]) for row in marked] == [
        ("a", False, None),
        ("b", True, None),
    ]
    assert {row["state"] for row in marked} == {ReplicaState.AVAILABLE}
    assert site.count(replicas) == before
    assert (site.count(locks), site.count(dataset_locks), site.count(evaluations)) == (1, 1, 1)
    with pytest.raises(NotFound):
        get_rule(site.context, ending.hex)
    last = site.rows(select(rule_history).where(rule_history.c.rule_uuid == ending))[-1]
    assert (last["account"], last["to_state"], last["reason"]) == ("root", None, "removed")
    assert site.audited(action="rule_remove")[0]["object"] == ending.hex


def test_copies_that_nobody_else_wants_are_cancelled(site):
    alice = site.account("alice")
    ending, other = add(site), add(site, actor=alice)
    place(site, ending, state=LockState.REPLICATING, request=True)
    place(site, other, state=LockState.REPLICATING, names=("a",))
    remove_rule(site.context, site.root, ending.hex, now=True, purge_replicas=True)
    [left] = site.rows(select(requests))
    other_id = site.rows(select(rules.c.id).where(rules.c.uuid == other))[0]["id"]
    assert left["rule_id"] == other_id
    [ended] = site.rows(select(request_history))
    assert (ended["state"], ended["code"]) == (RequestState.FAILED, "cancelled")
    states = site.rows(
        select(replicas.c.state, replicas.c.purge, replicas.c.tombstone)
        .where(replicas.c.rse_id == 2)
        .order_by(replicas.c.file_id)
    )
    assert [(row["state"], row["purge"], row["tombstone"] is None) for row in states] == [
        (ReplicaState.COPYING, None, True),
        (ReplicaState.UNAVAILABLE, True, False),
    ]


def test_a_copy_that_a_client_announced_goes_on_without_the_rule(site):
    site.files(IN2P3, ["a"], state=ReplicaState.COPYING)
    uuid = add(site)
    place(site, uuid, state=LockState.REPLICATING, names=("a",))
    remove_rule(site.context, site.root, uuid.hex, now=True)
    [row] = site.rows(select(replicas).where(replicas.c.rse_id == 2))
    assert row["state"] is ReplicaState.COPYING
    assert row["tombstone"] is not None


def test_rules_whose_lifetime_is_over_end_by_themselves(site):
    ending = [add(site), add(site, SLAC)]
    staying = add(site, LANCS)
    for uuid in ending:
        place(site, uuid, rse=get_rule(site.context, uuid.hex)["rse_expression"])
    with site.database.transaction() as connection:
        connection.execute(update(rules).where(rules.c.uuid.in_(ending)).values(expires_at=after(-1)))
    assert remove_expired_rules(site.context, limit=1) == 1
    assert remove_expired_rules(site.context) == 1
    assert [row["id"] for row in list_rules(site.context, {})] == [staying.hex]
    assert {row["account"] for row in site.audited(action="rule_remove")} == {None}


def test_a_rule_that_cannot_be_ended_holds_up_no_other(site, monkeypatch):
    uuids = [add(site), add(site, SLAC), add(site, LANCS)]
    with site.database.transaction() as connection:
        connection.execute(update(rules).values(expires_at=after(-1)))
    real = rule_removal.end_rule

    def end(connection, row, **options):
        if row["uuid"] == uuids[0]:
            raise ZeroDivisionError("a bug")
        real(connection, row, **options)

    monkeypatch.setattr(rule_removal, "end_rule", end)
    assert remove_expired_rules(site.context) == 2
    assert [row["id"] for row in list_rules(site.context, {})] == [uuids[0].hex]
    assert len(site.audited(action="rule_remove")) == 2


def test_as_many_statements_to_end_a_rule_on_ten_files_as_on_a_thousand(site):
    counts = []
    for number in (10, 1000):
        names = [f"{number}/{i}" for i in range(number)]
        site.files(SLAC, names)
        site.dataset(f"d{number}", names)
        uuid = add(site, on=f"d{number}")
        place(site, uuid, state=LockState.REPLICATING, names=names, request=True)
        with counted_statements(site.database) as statements:
            remove_rule(site.context, site.root, uuid.hex, now=True)
        counts.append(len(statements))
    assert counts[0] == counts[1] < 25
    assert site.count(requests) == 0
    assert site.count(request_history) == 1010
