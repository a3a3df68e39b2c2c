"""A catalogue to schedule on: rows written straight into the tables, and questions that invariants ask of them."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, insert, select, update

from arriero.registry.database import Database
from arriero.registry.dialect import bulk_insert
from arriero.registry.ports import Bell
from arriero.registry.schema.base import after
from arriero.registry.schema.tables import (
    accounts,
    arrivals,
    butler_rses,
    butler_selections,
    butlers,
    contents,
    dataset_locks,
    did_meta,
    dids,
    evaluations,
    events,
    locks,
    replicas,
    request_history,
    requests,
    rse_attributes,
    rse_distances,
    rse_protocols,
    rse_usage,
    rses,
    rule_history,
    rules,
    scopes,
)
from arriero.registry.services.context import Context
from arriero.registry.settings import Settings
from arriero.registry.states import DidType, ReplicaState, RuleGrouping, RuleState
from arriero.registry.store.evaluations import look_at_contents, look_at_rules
from support.invariants import assert_invariants

ON = {"wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1}}


@dataclass
class NotedBells:
    """A doorbell that remembers what was rung."""

    rung: list[Bell] = field(default_factory=list)

    def ring(self, bell: Bell) -> None:
        self.rung.append(bell)


class Catalogue:
    """Writes and reads a registry's tables for tests of the scheduler."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.url = url
        self.database = Database(url)
        self.bells = NotedBells()
        self.context = Context(self.database, Settings(database_url=url, **settings), self.bells)
        with self.database.transaction() as tx:
            self.account_id = self._insert(tx, accounts, name="root", type="SERVICE", role="admin")
            self.scope_id = self._insert(tx, scopes, name="raw", account_id=self.account_id)

    @staticmethod
    def _insert(tx, table, **values) -> int:
        return tx.execute(insert(table).values(**values).returning(table.c.id)).scalar_one()

    def close(self) -> None:
        self.database.dispose()

    def rse(
        self,
        name: str,
        *,
        free: int | None = None,
        protocol: dict[str, Any] | None = None,
        attributes: dict[str, str] | None = None,
        **columns: Any,
    ) -> int:
        with self.database.transaction() as tx:
            rse_id = self._insert(tx, rses, name=name, **columns)
            described = {
                "scheme": "davs",
                "hostname": f"{name.lower()}.example.org",
                "port": 1094,
                "prefix": "/",
                "domains": ON,
            }
            tx.execute(insert(rse_protocols).values(rse_id=rse_id, **(described | (protocol or {}))))
            for key, value in (attributes or {}).items():
                tx.execute(insert(rse_attributes).values(rse_id=rse_id, key=key, value=value))
            if free is not None:
                tx.execute(
                    insert(rse_usage).values(rse_id=rse_id, source="storage", free=free, updated_at=after(0))
                )
        return rse_id

    def distance(self, source: int, destination: int, distance: int) -> None:
        with self.database.transaction() as tx:
            row = {"source_id": source, "destination_id": destination, "distance": distance}
            tx.execute(insert(rse_distances).values(**row))

    def collection(self, name: str, kind: DidType = DidType.DATASET, *, children: Sequence[int] = ()) -> int:
        with self.database.transaction() as tx:
            values = {"scope_id": self.scope_id, "name": name, "type": kind, "account_id": self.account_id}
            did_id = self._insert(tx, dids, spread=0, **values)
        self.attach(did_id, children)
        return did_id

    def files(
        self, count: int, *, prefix: str = "file", size: int = 1000, at: Iterable[int] = ()
    ) -> list[int]:
        """Add files; replicas of them are AVAILABLE at the RSEs ``at``."""
        names = [f"{prefix}-{number:06d}" for number in range(count)]
        fixed = ("FILE", self.account_id, False, False, size, "0a0b0c0d")
        columns = ("scope_id", "name", "type", "account_id", "is_open", "monotonic", "bytes", "adler32")
        with self.database.transaction() as tx:
            rows = (
                (self.scope_id, name, *fixed, zlib.crc32(f"raw:{name}".encode()) & 0x7FFFFFFF, *self._now())
                for name in names
            )
            bulk_insert(tx, dids, (*columns, "spread", "created_at", "updated_at"), rows)
            ids = list(
                tx.scalars(select(dids.c.id).where(dids.c.name.like(f"{prefix}-%")).order_by(dids.c.name))
            )
        for rse_id in at:
            self.replicas(ids, rse_id, size=size)
        return ids

    @staticmethod
    def _now() -> tuple[Any, Any]:
        from datetime import UTC, datetime

        at = datetime.now(tz=UTC)
        return at, at

    def replicas(
        self,
        ids: Sequence[int],
        rse_id: int,
        state: ReplicaState = ReplicaState.AVAILABLE,
        *,
        size: int = 1000,
    ) -> None:
        with self.database.transaction() as tx:
            rows = ((file_id, rse_id, size, state.value, *self._now()) for file_id in ids)
            columns = ("file_id", "rse_id", "bytes", "state", "created_at", "updated_at")
            bulk_insert(tx, replicas, columns, rows)

    def set_replica(self, file_id: int, rse_id: int, state: ReplicaState) -> None:
        with self.database.transaction() as tx:
            tx.execute(
                update(replicas)
                .where(replicas.c.file_id == file_id, replicas.c.rse_id == rse_id)
                .values(state=state)
            )

    def attach(self, parent_id: int, children: Sequence[int]) -> None:
        with self.database.transaction() as tx:
            rows = ((parent_id, child, self._now()[0]) for child in children)
            bulk_insert(tx, contents, ("parent_id", "child_id", "created_at"), rows)
            look_at_contents(tx, [parent_id], self._pairs(parent_id, children))

    def detach(self, parent_id: int, children: Sequence[int]) -> None:
        with self.database.transaction() as tx:
            look_at_contents(tx, [parent_id], self._pairs(parent_id, children))
            tx.execute(
                contents.delete().where(contents.c.parent_id == parent_id, contents.c.child_id.in_(children))
            )

    @staticmethod
    def _pairs(parent_id: int, children: Sequence[int]) -> Any:
        return select(contents.c.parent_id, contents.c.child_id).where(
            contents.c.parent_id == parent_id, contents.c.child_id.in_(children)
        )

    def metadata(self, did_id: int, meta: dict[str, Any]) -> None:
        with self.database.transaction() as tx:
            tx.execute(insert(did_meta).values(did_id=did_id, meta=meta))

    def butler(self, name: str, rse_id: int, pattern: str = "%") -> int:
        with self.database.transaction() as tx:
            butler_id = self._insert(tx, butlers, name=name, uri="/butler", instruments=[])
            tx.execute(insert(butler_rses).values(butler_id=butler_id, rse_id=rse_id))
            selection = {"butler_id": butler_id, "scope_id": self.scope_id, "name_like": pattern}
            tx.execute(insert(butler_selections).values(**selection))
        return butler_id

    def rule(
        self,
        did_id: int,
        expression: str,
        *,
        copies: int = 1,
        grouping: RuleGrouping = RuleGrouping.DATASET,
        state: RuleState = RuleState.INJECT,
        **columns: Any,
    ) -> int:
        defaults = {"uuid": uuid.uuid4(), "activity": "User Subscriptions", "priority": 3}
        with self.database.transaction() as tx:
            rule_id = self._insert(
                tx,
                rules,
                did_id=did_id,
                account_id=self.account_id,
                rse_expression=expression,
                copies=copies,
                grouping=grouping,
                state=state,
                **(defaults | columns),
            )
            look_at_rules(tx, [rule_id])
        return rule_id

    def wake(self, rule_id: int) -> None:
        with self.database.transaction() as tx:
            look_at_rules(tx, [rule_id])

    def age(self, table, seconds: float, *columns: str) -> None:
        """Move instants of every row into the past."""
        with self.database.transaction() as tx:
            tx.execute(update(table).values({column: after(-seconds) for column in columns}))

    def rows(self, query) -> list[Any]:
        with self.database.snapshot() as connection:
            return list(connection.execute(query))

    def one(self, query) -> Any:
        (row,) = self.rows(query)
        return row

    def rule_row(self, rule_id: int) -> Any:
        return self.one(select(rules).where(rules.c.id == rule_id))

    def locks_of(self, rule_id: int) -> dict[int, set[int]]:
        """RSEs of the locks of each file."""
        found: dict[int, set[int]] = {}
        for row in self.rows(select(locks).where(locks.c.rule_id == rule_id)):
            found.setdefault(row.file_id, set()).add(row.rse_id)
        return found

    def count(self, table, **equal: Any) -> int:
        query = select(func.count()).select_from(table)
        for column, value in equal.items():
            query = query.where(table.c[column] == value)
        return self.one(query)[0]

    def event_types(self) -> list[str]:
        return [row.event_type for row in self.rows(select(events.c.event_type).order_by(events.c.id))]

    def history(self, rule_id: int) -> list[tuple[str | None, str | None]]:
        query = (
            select(rule_history)
            .join(rules, rules.c.uuid == rule_history.c.rule_uuid)
            .where(rules.c.id == rule_id)
            .order_by(rule_history.c.id)
        )
        return [(row.from_state, row.to_state) for row in self.rows(query)]

    def check_invariants(self) -> None:
        """Fail with the invariants that do not hold (`support.invariants`)."""
        assert_invariants(self.database)


__all__ = [
    "ON",
    "Catalogue",
    "NotedBells",
    "arrivals",
    "contents",
    "dataset_locks",
    "dids",
    "evaluations",
    "events",
    "locks",
    "replicas",
    "request_history",
    "requests",
    "rses",
    "rules",
]
