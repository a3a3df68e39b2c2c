"""The end of trying, and what wakes rules that wait for room."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    dids,
    events,
    locks,
    rule_history,
    rules,
    unplaced_groups,
)
from arriero.registry.services import rse_usage
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.services.stuck_rules import suspend_stuck_rules
from arriero.registry.states import LockState, RuleState
from support.database import counted_statements

RSE = "SLAC"
DAY_S = 86400


@pytest.fixture
def site(catalogue):
    catalogue.scope()
    catalogue.rse(RSE)
    catalogue.rse("IN2P3")
    catalogue.files(RSE, ["a", "b", "c", "d"])
    return catalogue


def stuck(
    site, name: str, *, days: float, code: str = "unavailable", state: RuleState = RuleState.STUCK
) -> int:
    """A rule on a file that is STUCK for so many days without success; its id."""
    [uuid] = add_rules(site.context, site.root, RuleSpec("IN2P3", 1), [("raw", name)])
    with site.database.transaction() as connection:
        rule_id = connection.scalar(select(rules.c.id).where(rules.c.uuid == uuid))
        file_id = connection.scalar(select(dids.c.id).where(dids.c.name == name))
        row = {"rule_id": rule_id, "file_id": file_id, "rse_id": 2, "bytes": 1000}
        connection.execute(insert(locks).values(**row, state=LockState.STUCK, code=code, reason="503"))
        connection.execute(
            update(rules)
            .where(rules.c.id == rule_id)
            .values(
                state=state,
                code=code,
                reason="1 locks: 503",
                locks_stuck=1,
                # it has been REPLICATING for a while since: that is no success
                stuck_at=after(-60),
                stuck_since=after(-days * DAY_S),
            )
        )
    site.evaluated()
    return rule_id


def rule(site, rule_id: int):
    [row] = site.rows(select(rules).where(rules.c.id == rule_id))
    return row


def test_two_weeks_without_success_suspend_a_rule_and_say_why(site):
    old, young = stuck(site, "a", days=14.1), stuck(site, "b", days=13.9)
    assert suspend_stuck_rules(site.context) == 1
    row = rule(site, old)
    assert (row["state"], row["code"], row["locks_stuck"]) == (RuleState.SUSPENDED, "stuck_too_long", 1)
    assert row["reason"] == (
        "nothing of it has succeeded for 14 days; resume it when the cause is gone: 1 locks: 503"
    )
    assert rule(site, young)["state"] is RuleState.STUCK
    [history] = site.rows(select(rule_history).where(rule_history.c.to_state == RuleState.SUSPENDED))
    assert (history["from_state"], history["code"], history["account"]) == ("STUCK", "stuck_too_long", None)
    [event] = site.rows(select(events).where(events.c.event_type == "rule-suspended"))
    assert (event["payload"]["rule_id"], event["payload"]["reason"]) == (row["uuid"].hex, row["reason"])
    assert suspend_stuck_rules(site.context) == 0


@pytest.mark.parametrize("state", [RuleState.REPLICATING, RuleState.OK, RuleState.WAITING_APPROVAL])
def test_only_what_is_stuck_is_suspended(site, state):
    rule_id = stuck(site, "a", days=20, state=state)
    assert suspend_stuck_rules(site.context) == 0
    assert rule(site, rule_id)["state"] is state


def test_what_waits_for_nothing_but_lost_files_is_not_suspended(site):
    rule_id = stuck(site, "a", days=20, code="lost")
    assert suspend_stuck_rules(site.context) == 0
    with site.database.transaction() as connection:
        values = {"group_id": 1, "code": "not_enough_rses", "reason": "full", "created_at": after(0)}
        connection.execute(insert(unplaced_groups).values(rule_id=rule_id, **values))
    assert suspend_stuck_rules(site.context) == 1


def test_a_rule_that_is_resumed_has_the_whole_time_again(site):
    rule_id = stuck(site, "a", days=20)
    suspend_stuck_rules(site.context)
    uuid = rule(site, rule_id)["uuid"]
    update_rule(site.context, site.root, uuid.hex, {"state": "INJECT"})
    row = rule(site, rule_id)
    assert (row["state"], row["stuck_since"]) == (RuleState.INJECT, None)
    assert site.generation(uuid) is not None
    assert suspend_stuck_rules(site.context) == 0


def test_as_many_statements_for_one_as_for_many(site):
    stuck(site, "a", days=20)
    with counted_statements(site.database) as few:
        suspend_stuck_rules(site.context)
    for name in ("b", "c", "d"):
        stuck(site, name, days=20)
    with counted_statements(site.database) as many:
        assert suspend_stuck_rules(site.context) == 3
    assert len(many) == len(few)


def measure(site, free: int, *, rse: str = "IN2P3") -> None:
    rse_usage.set_usage(
        site.context, site.root, rse, {"source": "storage", "used": 5, "free": free, "files": 1}
    )


def test_room_that_has_grown_wakes_what_waits_for_it(site):
    full = stuck(site, "a", days=1, code="no_space")
    other = stuck(site, "b", days=1)
    unplaced = stuck(site, "c", days=1)
    with site.database.transaction() as connection:
        values = {"group_id": 1, "code": "not_enough_rses", "reason": "full", "created_at": after(0)}
        connection.execute(insert(unplaced_groups).values(rule_id=unplaced, **values))
    rse_usage.set_limit(site.context, site.root, "IN2P3", "MinFreeSpace", 1000)

    def woken() -> set[int]:
        found = {one for one in (full, other, unplaced) if site.generation(rule(site, one)["uuid"])}
        site.evaluated()
        return found

    woken()
    measure(site, 500)
    measure(site, 900)
    measure(site, 800)
    assert woken() == set()
    measure(site, 10_000)
    assert woken() == {full, unplaced}
    [lock] = site.rows(select(locks).where(locks.c.rule_id == full))
    assert (lock["state"], lock["code"]) == (LockState.STUCK, "retry_now")
    measure(site, 10_020)
    measure(site, 9_000)
    assert woken() == set()
