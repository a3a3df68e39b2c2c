"""The registry's services in the test's own process: no HTTP, a fresh database, actors of every role."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from arriero.registry.database import Database
from arriero.registry.ports import Bell
from arriero.registry.schema.tables import accounts as account_table
from arriero.registry.schema.tables import audit_log, evaluation_items, evaluations, rules
from arriero.registry.services import accounts, contents, dids, replicas, rse_attributes, rse_protocols, rses
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.dids import NewCollection
from arriero.registry.services.replicas import NewReplica
from arriero.registry.settings import Settings
from arriero.registry.states import AccountType, Role
from arriero.registry.store import accounts as account_store
from support.database import migrated_database
from support.services import Services, drop_database

DOMAINS = {
    "wan": {
        "read": 1,
        "write": 1,
        "delete": 1,
        "third_party_copy_read": 1,
        "third_party_copy_write": 1,
    }
}


class RecordingDoorbell:
    """Remembers which bells were rung."""

    def __init__(self) -> None:
        self.rung: list[Bell] = []

    def ring(self, bell: Bell) -> None:
        self.rung.append(bell)


class InProcess:
    """Services, the account root, and short words for what tests do over and over."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.url = url
        self.database = Database(url)
        with self.database.transaction() as connection:
            # as `bootstrap` does, without the password: hashing one takes longer than most tests
            account_store.add_account(connection, "root", AccountType.SERVICE, Role.ADMIN, None)
        self.doorbell = RecordingDoorbell()
        self.context = Context(self.database, Settings(**settings), self.doorbell)
        self.root = self.actor("root", Role.ADMIN)

    def actor(self, account: str, role: Role, *, rses: Sequence[str] = ()) -> Actor:
        with self.database.snapshot() as connection:
            found = connection.scalar(select(account_table.c.id).where(account_table.c.name == account))
        assert found is not None
        return Actor(found, account, role, rses=frozenset(rses), request_id="test")

    def account(self, name: str, role: Role = Role.DATA_MANAGER) -> Actor:
        accounts.add_account(self.context, self.root, name, kind="USER", email=None, role=role)
        return self.actor(name, role)

    def scope(self, name: str = "raw", *, owner: str = "root") -> str:
        accounts.add_scope(self.context, self.root, owner, name)
        return name

    def rse(
        self, name: str, *, algorithm: str = "identity", deterministic: bool = True, **attributes: str
    ) -> str:
        rses.add_rse(self.context, self.root, name, {"deterministic": deterministic})
        for key, value in {"lfn2pfn_algorithm": algorithm, **attributes}.items():
            rse_attributes.set_attribute(self.context, self.root, name, key, value)
        rse_protocols.add_protocol(
            self.context,
            self.root,
            name,
            "davs",
            {"hostname": "dav.example.org", "port": 1094, "prefix": f"/{name}", "domains": DOMAINS},
        )
        return name

    def files(
        self, rse: str, names: Sequence[str], *, scope: str = "raw", actor: Actor | None = None, **values: Any
    ) -> list[NewReplica]:
        new = [NewReplica(scope, name, **{"bytes": 1000, "adler32": "0000002a", **values}) for name in names]
        replicas.add_replicas(self.context, actor or self.root, rse, new)
        return new

    def dataset(self, name: str, children: Sequence[str] = (), *, scope: str = "raw") -> str:
        return self._collection("DATASET", name, children, scope)

    def container(self, name: str, children: Sequence[str] = (), *, scope: str = "raw") -> str:
        return self._collection("CONTAINER", name, children, scope)

    def _collection(self, kind: str, name: str, children: Sequence[str], scope: str) -> str:
        held = [contents.Child(scope, child) for child in children]
        dids.add_collections(self.context, self.root, [NewCollection(scope, name, kind, children=held)])
        return name

    def attach(self, parent: str, children: Sequence[str], *, scope: str = "raw", **options: Any) -> None:
        held = [contents.Child(scope, child) for child in children]
        contents.attach(self.context, self.root, [contents.Attachment(scope, parent, held)], **options)

    def detach(self, parent: str, children: Sequence[str], *, scope: str = "raw") -> None:
        contents.detach(
            self.context, self.root, scope, parent, [contents.Child(scope, child) for child in children]
        )

    def rows(self, query: Any) -> list[Any]:
        with self.database.snapshot() as connection:
            return list(connection.execute(query).mappings())

    def count(self, table: Any, *conditions: Any) -> int:
        with self.database.snapshot() as connection:
            return int(connection.scalar(select(func.count()).select_from(table).where(*conditions)) or 0)

    def snapshot_of(self, *tables: Any) -> dict[str, list[Any]]:
        """Return every row of some tables, to show that a refused call changed nothing."""
        return {table.name: sorted(map(repr, self.rows(select(table)))) for table in tables}

    def generation(self, uuid: Any) -> int | None:
        """Return how often a rule was raised for evaluation; None when it is not due."""
        with self.database.snapshot() as connection:
            return connection.scalar(
                select(evaluations.c.generation)
                .join(rules, rules.c.id == evaluations.c.rule_id)
                .where(rules.c.uuid == uuid)
            )

    def evaluated(self) -> None:
        """Pretend that every evaluation was done."""
        with self.database.transaction() as connection:
            connection.execute(evaluations.delete())
            connection.execute(evaluation_items.delete())

    def audited(self, **equal: Any) -> list[Any]:
        return self.rows(
            select(audit_log)
            .where(*(audit_log.c[name] == value for name, value in equal.items()))
            .order_by(audit_log.c.id)
        )

    def close(self) -> None:
        self.database.dispose()


@pytest.fixture
def catalogue(services: Services, database_kind: str, tmp_path: Path) -> Iterator[InProcess]:
    """Services on a fresh database of the kind that the test runs on."""
    url = migrated_database(services, database_kind, tmp_path)
    made = InProcess(url)
    yield made
    made.close()
    drop_database(services, url)


@pytest.fixture
def postgresql_catalogue(services: Services, tmp_path: Path) -> Iterator[InProcess]:
    """Services on PostgreSQL only: for what SQLite's single writer cannot show."""
    url = migrated_database(services, "postgresql", tmp_path)
    made = InProcess(url)
    yield made
    made.close()
    drop_database(services, url)
