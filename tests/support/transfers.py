"""A registry with two sites, and the scheduler's work done in the test's own process, with movers that move nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from arriero.registry.schema.base import after
from arriero.registry.schema.tables import dids, evaluations, locks, replicas, requests
from arriero.rse.errors import RSEError
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.testing import ScriptedMover
from arriero.scheduler.transfer import RunSummary, TransferRunner
from support.invariants import assert_invariants
from support.server import RunningRegistry, running_registry

ON = {"wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1}}
SIZE = 1000


class Site:
    """What tests of transfers do over and over."""

    def __init__(self, registry: RunningRegistry) -> None:
        self.registry = registry
        self.database = registry.database
        self.context = registry.context
        self.client = registry.client()
        self.client.add_scope("root", "raw")
        for rse in ("SLAC", "IN2P3", "LANCS"):
            self.rse(rse)

    def rse(self, name: str) -> None:
        self.client.add_rse(name)
        protocol = {"scheme": "davs", "hostname": f"{name.lower()}.example.org", "port": 1094, "prefix": "/p"}
        self.client.add_protocol(name, {**protocol, "domains": ON})

    def dataset(self, name: str, count: int, *, at: str = "SLAC") -> list[str]:
        """Files at an RSE, in a dataset; give their names."""
        names = [f"{name}-{number:03d}" for number in range(count)]
        new = [{"scope": "raw", "name": one, "bytes": SIZE, "adler32": "0000002a"} for one in names]
        self.client.add_replicas(at, new)
        self.client.add_did("raw", name, "DATASET")
        self.client.attach_dids("raw", name, [{"scope": "raw", "name": one} for one in names])
        return names

    def rule(self, name: str, rses: str = "IN2P3", *, client: Any = None, **options: Any) -> str:
        """A rule on a dataset, evaluated."""
        added = (client or self.client).add_replication_rule(
            [{"scope": "raw", "name": name}], 1, rses, **options
        )
        self.evaluate()
        return str(added[0])

    def evaluate(self) -> None:
        Evaluator(self.context).run()

    def runner(self, mover: ScriptedMover, **settings: Any) -> TransferRunner:
        changed = self.context.settings.model_copy(update=settings)
        return TransferRunner(replace(self.context, settings=changed), make_mover=lambda: mover)

    def copy(
        self, fails: Callable[[str], RSEError | None] = lambda _name: None, **settings: Any
    ) -> RunSummary:
        """Copy what is due; ``fails`` gives the error of a file by its name."""
        with self.database.snapshot() as connection:
            names = {row.id: row.name for row in connection.execute(select(dids.c.id, dids.c.name))}
        mover = ScriptedMover(lambda copy: fails(names[copy.request.file_id]))
        return self.runner(mover, **settings).run()

    def all_due(self) -> None:
        """Let the time pass until everything that waits is due."""
        with self.database.transaction() as tx:
            tx.execute(update(requests).values(not_before=after(-1.0)))
            tx.execute(update(replicas).values(updated_at=after(-100_000.0)))
            tx.execute(update(evaluations).values(not_before=after(-1.0), retry_at=after(-1.0)))

    def state_of(self, rule_id: str) -> dict[str, Any]:
        return self.client.get_replication_rule(rule_id)

    def rows(self, query: Any) -> list[Any]:
        with self.database.snapshot() as connection:
            return list(connection.execute(query))

    def locks(self) -> dict[str, tuple[str, str | None]]:
        """State and code of the lock of each file."""
        query = select(dids.c.name, locks.c.state, locks.c.code).join(dids, dids.c.id == locks.c.file_id)
        return {row.name: (row.state.value, row.code) for row in self.rows(query)}

    def check_invariants(self) -> None:
        assert_invariants(self.database)


@pytest.fixture
def site(services: Any, database_kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A registry with short leases, and the commands root's at it."""
    from support.cli import root_environment

    with running_registry(services, database_kind, tmp_path, transfer_lease_s=0.6) as running:
        for name, value in root_environment(running.url, tmp_path).items():
            monkeypatch.setenv(name, value)
        yield Site(running)
