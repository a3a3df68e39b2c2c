"""What happened to a rule: when, who and why, through REST and on both databases."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from arriero.registry.errors import NotFound
from arriero.registry.schema.tables import accounts, rules, subscriptions
from arriero.registry.services.bad_replicas import Declaration, Named, declare
from arriero.registry.services.context import Actor
from arriero.registry.services.rule_moves import release_parents
from arriero.registry.services.rule_removal import remove_expired_rules
from arriero.registry.states import BadReplicaState, Role
from arriero.scheduler.claim import claim_requests
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.reports import Transfer, failure, success
from arriero.scheduler.settle import settle

COPIED = Transfer("third_party_pull", 0.5, "SLAC", "davs://slac/x", "davs://in2p3/x", "davs")


class Site:
    """A registry with two files at SLAC, and a scheduler that works when it is told to."""

    def __init__(self, registry: Any) -> None:
        self.context = registry.context
        self.root = registry.client()
        self.root.add_scope("root", "raw")
        for rse in ("SLAC", "IN2P3", "LANCS"):
            self.root.add_rse(rse)
            self.root.add_protocol(
                rse,
                {
                    "scheme": "davs",
                    "hostname": "dav.example.org",
                    "port": 1094,
                    "prefix": f"/{rse}",
                    "domains": {"wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1}},
                },
            )
        files = [{"scope": "raw", "name": name, "bytes": 1000, "adler32": "0000002a"} for name in "ab"]
        self.root.add_replicas("SLAC", files)

    def add(self, expression: str = "IN2P3", name: str = "a", **options: Any) -> str:
        [rule_id] = self.root.add_replication_rule(
            [{"scope": "raw", "name": name}], options.pop("copies", 1), expression, **options
        )
        return str(rule_id)

    def evaluate(self) -> None:
        Evaluator(self.context).run()

    def copy(self, *, fault: str | None = None) -> None:
        """Have every copy that is due succeed, or fail for good."""
        database, settings = self.context.database, self.context.settings
        taken = database.run(lambda tx: claim_requests(tx, "w", limit=100, lease_s=300))
        reports = [
            success(one, COPIED) if fault is None else failure(one, settings, fault, "no", retryable=False)
            for one in taken
        ]
        settle(database, reports, stuck_retry_s=7200)

    def history(self, rule_id: str) -> list[tuple[Any, ...]]:
        """Give who, from, to, and code of each change; each has a time and a reason."""
        found = list(self.root.list_rule_history(rule_id))
        assert all(row["rule_id"] == rule_id and row["at"] and row["reason"] and row["code"] for row in found)
        assert [row["at"] for row in found] == sorted(row["at"] for row in found)
        return [(row["account"], row["from_state"], row["to_state"], row["code"]) for row in found]

    def reasons(self, rule_id: str) -> list[str]:
        return [row["reason"] for row in self.root.list_rule_history(rule_id)]


@pytest.fixture
def site(registry) -> Site:
    return Site(registry)


def test_suspended_resumed_and_ok(site):
    rule_id = site.add()
    site.evaluate()
    site.root.update_replication_rule(rule_id, {"state": "SUSPENDED"})
    site.root.update_replication_rule(rule_id, {"state": "INJECT"})
    site.evaluate()
    site.copy()
    assert site.history(rule_id) == [
        ("root", None, "INJECT", "added"),
        (None, "INJECT", "REPLICATING", "replicating"),
        ("root", "REPLICATING", "SUSPENDED", "by_hand"),
        ("root", "SUSPENDED", "INJECT", "by_hand"),
        (None, "INJECT", "REPLICATING", "replicating"),
        (None, "REPLICATING", "OK", "complete"),
    ]
    assert site.reasons(rule_id)[-2:] == ["0 of 1 locks are OK", "all 1 locks are OK"]


def test_failed_tried_again_and_declared_bad(site):
    rule_id = site.add("IN2P3|LANCS", copies=2)
    site.evaluate()
    site.copy(fault="source_gone")
    site.root.update_replication_rule(rule_id, {"boost_rule": True})
    site.evaluate()
    site.copy()
    root = Actor(1, "root", Role.ADMIN)
    declare(
        site.context, root, [Named("raw", "a", rse="IN2P3")], Declaration(BadReplicaState.BAD, "checksum")
    )
    changes = site.history(rule_id)
    assert changes[2:4] == [
        (None, "REPLICATING", "STUCK", "source_gone"),
        ("root", "STUCK", "STUCK", "update"),
    ]
    assert changes[-2:] == [(None, "REPLICATING", "OK", "complete"), ("root", "OK", "STUCK", "bad_replica")]
    assert "checksum" in site.reasons(rule_id)[-1]


def test_approved_and_denied(site):
    yes, no = site.add(ask_approval=True), site.add("LANCS", ask_approval=True)
    site.root.update_replication_rule(yes, {"approve": True, "comment": "there is room"})
    site.root.update_replication_rule(no, {"approve": False, "comment": "there is none"})
    assert site.history(yes) == [
        ("root", None, "WAITING_APPROVAL", "added"),
        ("root", "WAITING_APPROVAL", "INJECT", "approved"),
    ]
    assert site.reasons(yes) == ["added; it waits for approval", "approved: there is room"]
    # it is gone, and its history is not
    assert site.history(no)[1:] == [("root", "WAITING_APPROVAL", None, "removed")]
    assert site.reasons(no)[1:] == ["denied: there is none"]


def test_moved_reduced_removed_and_expired(site):
    moved = site.add()
    site.evaluate()
    child = site.root.move_replication_rule(moved, "LANCS")
    site.evaluate()
    site.copy()
    site.evaluate()
    release_parents(site.context)
    assert site.history(moved)[-3:] == [
        ("root", "REPLICATING", "REPLICATING", "moved"),
        (None, "REPLICATING", "OK", "complete"),
        (None, "OK", None, "removed"),
    ]
    assert child in site.reasons(moved)[-1]
    assert site.history(child)[0] == ("root", None, "INJECT", "added")

    both = site.add("IN2P3|LANCS", copies=2)
    site.evaluate()
    site.copy()
    before = site.history(both)
    plan = site.root.plan_reduction(both, 1)
    assert sorted((one["kept_files"], one["let_go_files"]) for one in plan["rses"]) == [(0, 1), (1, 0)]
    assert site.history(both) == before
    with pytest.raises(NotFound, match="there is no rule"):
        site.history(plan["rule_id"])
    reduced = site.root.reduce_replication_rule(both, 1)
    assert reduced == plan["rule_id"]
    assert site.history(both)[-1] == ("root", "OK", None, "removed")
    assert site.reasons(both)[-1] == f"reduced to 1 copies: rule {reduced}"
    assert site.history(reduced) == [
        ("root", None, "INJECT", "added"),
        (None, "INJECT", "OK", "complete"),
    ]

    site.root.delete_replication_rule(reduced)
    assert site.history(reduced)[-1] == ("root", "OK", "OK", "removal")
    site.root.update_replication_rule(reduced, {"lifetime": -1})
    remove_expired_rules(site.context)
    assert site.history(reduced)[-1] == (None, "OK", None, "removed")
    assert site.reasons(reduced)[-1] == "its lifetime was over"
    site.root.delete_replication_rule(child, now=True)
    assert site.history(child)[-1] == ("root", "OK", None, "removed")


def test_a_rule_of_a_subscription_says_so(site):
    uuid = uuid4()
    with site.context.database.transaction() as tx:
        account_id = tx.scalar(select(accounts.c.id).where(accounts.c.name == "root"))
        values = {"uuid": uuid, "account_id": account_id, "name": "nightly"}
        tx.execute(subscriptions.insert().values(filter={}, replication_rules=[], **values))
    rule_id = site.add(subscription_id=str(uuid))
    assert site.reasons(rule_id) == ["added by subscription nightly"]


def test_a_rule_that_never_was_has_no_history(site):
    with pytest.raises(NotFound, match="there is no rule"):
        list(site.root.list_rule_history("0" * 32))
    with pytest.raises(NotFound, match="there is no rule"):
        list(site.root.list_rule_history("history"))
    assert site.context.database.run(lambda tx: tx.scalars(select(rules.c.id)).all()) == []
