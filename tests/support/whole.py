"""A catalogue in which every invariant holds, to be broken on purpose."""

from __future__ import annotations

import uuid

from sqlalchemy import delete, insert, select, update

from arriero.registry.models import ButlerRse, ButlerSelection, NewButler
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    arrivals,
    audit_log,
    contents,
    dataset_locks,
    deletions,
    dids,
    evaluation_items,
    evaluations,
    locks,
    replicas,
    requests,
    rses,
    rules,
    unplaced_groups,
)
from arriero.registry.services.butlers import add_butler
from arriero.registry.services.doctor import chosen_checks, examine
from arriero.registry.states import (
    ArrivalState,
    LockState,
    ReplicaState,
    RequestState,
    RuleGrouping,
    RuleState,
)
from arriero.registry.store.invariants import Finding
from support.database import migrated_database
from support.in_process import InProcess
from support.services import drop_database

HOUR = 3600.0


class Whole:
    """A catalogue in which every invariant holds: a rule with a lock of each state, one without a place, one on a file.

    ``all`` holds ``night`` (files a, b, c) and ``empty``; the rule on it wants them at IN2P3.
    """

    def __init__(self, catalogue) -> None:
        self.catalogue = catalogue
        catalogue.scope("raw")
        for rse in ("SLAC", "IN2P3"):
            catalogue.rse(rse)
        catalogue.files("SLAC", ["a", "b", "c"])
        catalogue.dataset("night", ["a", "b", "c"])
        catalogue.dataset("empty")
        catalogue.dataset("apart", ["a"])
        catalogue.container("all", ["night", "empty"])
        with catalogue.database.snapshot() as connection:
            self.did = dict(connection.execute(select(dids.c.name, dids.c.id)).all())
            self.rse = dict(connection.execute(select(rses.c.name, rses.c.id)).all())
        taken = [ButlerSelection(scope="raw", pattern="*")]
        butler = NewButler(name="embargo", uri="/repo", rses=[ButlerRse(rse="IN2P3")], selections=taken)
        add_butler(catalogue.context, catalogue.root, butler)
        self.rule = self.add_rule("all", RuleState.STUCK, copies=1, counts=(1, 1, 1))
        self.of_file = self.add_rule("a", RuleState.OK, copies=1, counts=(1, 0, 0))
        self.unplaced = self.add_rule("apart", RuleState.STUCK, copies=3, counts=(0, 0, 0))
        self.add_locks()

    def add_rule(self, name: str, state: RuleState, *, copies: int, counts: tuple[int, int, int]) -> int:
        ok, replicating, stuck = counts
        reason = {"code": "no_source", "reason": "none holds it"} if state is RuleState.STUCK else {}
        values = {
            "uuid": uuid.uuid4(),
            "did_id": self.did[name],
            "account_id": self.catalogue.root.account_id,
            "rse_expression": "*",
            "copies": copies,
            "grouping": RuleGrouping.DATASET,
            "state": state,
            "activity": "User Subscriptions",
            "priority": 3,
            "locks_ok": ok,
            "locks_replicating": replicating,
            "locks_stuck": stuck,
        }
        with self.catalogue.database.transaction() as tx:
            rule_id = tx.scalar(insert(rules).values(**values, **reason).returning(rules.c.id))
            if state is RuleState.STUCK:
                tx.execute(insert(evaluations).values(rule_id=rule_id, not_before=after(HOUR)))
        return rule_id

    def add_locks(self) -> None:
        file, in2p3 = self.did, self.rse["IN2P3"]
        why = {"code": "no_source", "reason": "none holds it"}
        self.run(
            insert(locks).values(
                rule_id=self.rule, file_id=file["a"], rse_id=in2p3, bytes=1000, state=LockState.OK
            ),
            insert(locks).values(
                rule_id=self.rule, file_id=file["b"], rse_id=in2p3, bytes=1000, state=LockState.REPLICATING
            ),
            insert(locks).values(
                rule_id=self.rule, file_id=file["c"], rse_id=in2p3, bytes=1000, state=LockState.STUCK, **why
            ),
            insert(locks).values(
                rule_id=self.of_file,
                file_id=file["a"],
                rse_id=self.rse["SLAC"],
                bytes=1000,
                state=LockState.OK,
            ),
            insert(dataset_locks).values(rule_id=self.rule, group_id=file["night"], rse_id=in2p3),
            insert(dataset_locks).values(rule_id=self.rule, group_id=file["empty"], rse_id=in2p3),
            insert(unplaced_groups).values(
                rule_id=self.unplaced, group_id=file["apart"], code="not_enough_rses", reason="2 of 3"
            ),
            insert(replicas).values(
                file_id=file["a"], rse_id=in2p3, bytes=1000, state=ReplicaState.AVAILABLE
            ),
            insert(replicas).values(file_id=file["b"], rse_id=in2p3, bytes=1000, state=ReplicaState.COPYING),
            insert(requests).values(
                file_id=file["b"],
                destination_id=in2p3,
                rule_id=self.rule,
                bytes=1000,
                activity="User Subscriptions",
                priority=3,
                state=RequestState.QUEUED,
            ),
            insert(arrivals).values(
                butler_id=1, file_id=file["a"], rse_id=in2p3, state=ArrivalState.INGESTED
            ),
        )

    def run(self, *statements) -> None:
        with self.catalogue.database.transaction() as tx:
            for statement in statements:
                tx.execute(statement)

    def lock(self, name: str):
        return update(locks).where(locks.c.rule_id == self.rule, locks.c.file_id == self.did[name])

    def replica(self, name: str, rse: str = "IN2P3"):
        return update(replicas).where(
            replicas.c.file_id == self.did[name], replicas.c.rse_id == self.rse[rse]
        )

    def of_rule(self, table=rules):
        return update(table).where(table.c["id" if table is rules else "rule_id"] == self.rule)

    def findings(self, *names: str) -> dict[str, Finding]:
        lines = examine(self.catalogue.database, chosen_checks(names), sweep_s=5)
        return {one.check.name: one for one in lines if isinstance(one, Finding) and one.broken}


KEPT = (
    dids,
    contents,
    replicas,
    rules,
    locks,
    dataset_locks,
    unplaced_groups,
    evaluations,
    evaluation_items,
    requests,
    arrivals,
    deletions,
    audit_log,
)
"""What the tests change, what others refer to first."""


class Kept:
    """A whole catalogue of each kind, made once, that every test finds as it was made."""

    def __init__(self, services, directory) -> None:
        self.services = services
        self.directory = directory
        self.made: dict[str, tuple[Whole, dict]] = {}

    def get(self, kind: str) -> Whole:
        if kind not in self.made:
            whole = Whole(InProcess(migrated_database(self.services, kind, self.directory)))
            rows = {table: whole.catalogue.rows(select(table)) for table in KEPT}
            self.made[kind] = whole, rows
        whole, rows = self.made[kind]
        whole.catalogue.doorbell.rung.clear()
        with whole.catalogue.database.transaction() as tx:
            for table in reversed(KEPT):
                tx.execute(delete(table))
            for table in KEPT:
                if rows[table]:
                    tx.execute(insert(table), [dict(row) for row in rows[table]])
        return whole

    def close(self) -> None:
        for whole, _ in self.made.values():
            whole.catalogue.close()
            drop_database(self.services, whole.catalogue.url)
