"""A rule in the middle of its life: some of it there, some under way, some that cannot come, some without a place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ClauseElement, delete, insert, literal, select, update

from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import (
    account_limits,
    dataset_locks,
    dids,
    evaluation_items,
    evaluations,
    locks,
    request_history,
    requests,
    rse_attributes,
    rse_usage,
    rses,
    rules,
    unplaced_groups,
)
from arriero.registry.states import EvaluationItem, LockState, RequestState, RuleGrouping, RuleState

SIZE = 1000
EXPRESSION = "tier=2"
CLOSED, FULL, LIGHT, GOOD, IN2P3, LANCS, SLAC = "CLOSED", "FULL", "LIGHT", "GOOD", "IN2P3", "LANCS", "SLAC"

FILES = {
    "ok": 4,
    "copying": 3,
    "queued": 5,
    "failing": 2,
    "announced": 1,
    "lacking": 2,
    "broken": 1,
    "homeless": 3,
}
"""Files of each fate; the last have no locks."""

TOO_FEW = "1 copies are wanted and 0 RSEs can take them"
NO_SOURCE = "no RSE holds an AVAILABLE replica"

AT_IN2P3 = ("ok", "copying", "queued", "failing", "announced")
AT_LANCS = ("lacking", "broken")


class Explained:
    """A registry with such a rule, made by REST as far as a client can, and by rows as the workers would write them."""

    def __init__(self, registry: Any) -> None:
        self.registry = registry
        self.database = registry.database
        self.client = registry.client()
        self._make_rses()
        self.client.add_scope("root", "raw")
        for at in (SLAC, GOOD):
            new = [
                {"scope": "raw", "name": self.name(fate, number), "bytes": SIZE, "adler32": "0000002a"}
                for fate, count in FILES.items()
                if (fate == "lacking") == (at == GOOD)
                for number in range(count)
            ]
            self.client.add_replicas(at, new)
        for number, fates in ((1, AT_IN2P3), (2, AT_LANCS), (3, ["homeless"])):
            self._dataset(f"d{number}", fates)
        self.client.add_did("raw", "c", "CONTAINER")
        self.client.attach_dids("raw", "c", [{"scope": "raw", "name": f"d{number}"} for number in (1, 2, 3)])
        asked = {"weight": "w", "grouping": "DATASET"}
        [self.rule_id] = self.client.add_replication_rule(
            [{"scope": "raw", "name": "c"}], 1, EXPRESSION, **asked
        )
        self.lay()

    def lay(self) -> None:
        """Have it as it was in the beginning, whatever a test has made of it."""
        with self.database.transaction() as tx:
            for table in (locks, requests, request_history, dataset_locks, unplaced_groups, account_limits):
                tx.execute(table.delete())
            tx.execute(update(rses).where(rses.c.name == IN2P3).values(availability_write=True))
            tx.execute(delete(rse_attributes).where(rse_attributes.c.key == "tier"))
            tiered = select(rses.c.id, literal("tier"), literal("2")).where(rses.c.name != SLAC)
            tx.execute(insert(rse_attributes).from_select(["rse_id", "key", "value"], tiered))
            self._lay(tx)

    def name(self, fate: str, number: int) -> str:
        """Name of a file."""
        return f"{fate}/{number:03d}"

    def _make_rses(self) -> None:
        for rse in (SLAC, IN2P3, LANCS, GOOD, CLOSED, FULL, LIGHT):
            self.client.add_rse(rse)
            if rse != SLAC:
                self.client.add_rse_attribute(rse, "tier", "2")
            if rse not in {SLAC, LIGHT}:
                self.client.add_rse_attribute(rse, "w", "3")
        self.client.update_rse(CLOSED, {"availability_write": False})
        with self.database.transaction() as tx:
            full = select(rses.c.id).where(rses.c.name == FULL).scalar_subquery()
            tx.execute(insert(rse_usage).values(rse_id=full, source="storage", free=0, updated_at=now()))

    def _dataset(self, name: str, fates: Iterable[str]) -> None:
        self.client.add_did("raw", name, "DATASET")
        held = [
            {"scope": "raw", "name": self.name(fate, number)}
            for fate in fates
            for number in range(FILES[fate])
        ]
        self.client.attach_dids("raw", name, held)

    def _lay(self, tx: Any) -> None:
        """Write what evaluations and workers would have."""
        self.rses = {row.name: row.id for row in tx.execute(select(rses.c.id, rses.c.name))}
        self.dids = {row.name: row.id for row in tx.execute(select(dids.c.id, dids.c.name))}
        self.key = tx.execute(select(rules.c.id)).scalar_one()
        self._lay_files(tx)
        self._lay_groups(tx)
        self.copied(tx, SLAC, IN2P3, copies=10, size=1000, seconds=2.0)
        tx.execute(
            update(rules).values(
                state=RuleState.STUCK,
                code="not_enough_rses",
                reason=TOO_FEW,
                stuck_at=after(-600),
                rse_expression=EXPRESSION,
                grouping=RuleGrouping.DATASET,
                ignore_account_limit=False,
                locks_ok=FILES["ok"],
                locks_replicating=sum(FILES[fate] for fate in AT_IN2P3) - FILES["ok"],
                locks_stuck=sum(FILES[fate] for fate in AT_LANCS),
            )
        )
        tx.execute(evaluation_items.delete())
        tx.execute(evaluations.delete())
        later = after(3600)
        tx.execute(insert(evaluations).values(rule_id=self.key, not_before=later, retry_at=later))
        tx.execute(insert(evaluation_items).values(rule_id=self.key, kind=EvaluationItem.STUCK))

    def _lay_groups(self, tx: Any) -> None:
        for number, rse, reason in ((1, IN2P3, "IN2P3 (w=3)"), (2, LANCS, "LANCS (w=3)")):
            place = {"rule_id": self.key, "group_id": self.dids[f"d{number}"], "rse_id": self.rses[rse]}
            tx.execute(insert(dataset_locks).values(**place, reason=reason))
        without = {"rule_id": self.key, "group_id": self.dids["d3"], "code": "not_enough_rses"}
        tx.execute(insert(unplaced_groups).values(**without, reason=TOO_FEW, created_at=after(-600)))

    def _lay_files(self, tx: Any) -> None:
        self._lock(tx, "ok", IN2P3, LockState.OK)
        for fate in ("copying", "queued", "failing", "announced"):
            self._lock(tx, fate, IN2P3, LockState.REPLICATING)
        self._lock(tx, "lacking", LANCS, LockState.STUCK, code="no_source", reason=NO_SOURCE)
        mismatch = {"code": "checksum_mismatch", "reason": "adler32 is 00000001, 0000002a was expected"}
        self._lock(tx, "broken", LANCS, LockState.STUCK, **mismatch)
        tried = {"source_id": self.rses[SLAC], "started_at": after(-30)}
        leased = {"attempt": 1, "lease_owner": "w1", "lease_until": after(60)}
        self._request(tx, "copying", IN2P3, RequestState.SUBMITTED, **tried, **leased)
        self._request(tx, "queued", IN2P3, RequestState.QUEUED)
        failed = {"attempt": 3, "code": "timed_out", "reason": "no answer in 60 s", "not_before": after(300)}
        self._request(tx, "failing", IN2P3, RequestState.QUEUED, **tried, **failed)
        self._request(tx, "broken", LANCS, RequestState.FAILED, attempt=8, **tried, **mismatch)

    def _lock(self, tx: Any, fate: str, rse: str, state: LockState, **columns: Any) -> None:
        common = {"rule_id": self.key, "rse_id": self.rses[rse], "bytes": SIZE, "state": state, **columns}
        rows = [{**common, "file_id": self.dids[self.name(fate, number)]} for number in range(FILES[fate])]
        tx.execute(insert(locks).values(created_at=after(-7200)), rows)

    def _request(self, tx: Any, fate: str, rse: str, state: RequestState, **columns: Any) -> None:
        common = {"bytes": SIZE, "activity": "User Subscriptions", "priority": 3, "state": state}
        given = {"rule_id": self.key, "destination_id": self.rses[rse], **common, **columns}
        fixed = {key: value for key, value in given.items() if isinstance(value, ClauseElement)}
        plain = {key: value for key, value in given.items() if key not in fixed}
        rows = [{**plain, "file_id": self.dids[self.name(fate, number)]} for number in range(FILES[fate])]
        tx.execute(insert(requests).values(**fixed) if fixed else insert(requests), rows)

    def copied(
        self,
        tx: Any,
        source: str,
        destination: str,
        *,
        copies: int,
        size: int,
        seconds: float,
        ago_s: float = 60,
    ) -> None:
        """Have copies that ended lately."""
        rows = [
            {
                "request_id": number,
                "file_id": 1,
                "source_id": self.rses[source],
                "destination_id": self.rses[destination],
                "state": RequestState.DONE,
                "attempt": 1,
                "bytes": size,
                "seconds": seconds,
            }
            for number in range(copies)
        ]
        tx.execute(insert(request_history).values(at=after(-ago_s), created_at=after(-ago_s)), rows)

    def explain(self) -> Any:
        """What the registry says."""
        return self.client.explain_replication_rule(self.rule_id)
