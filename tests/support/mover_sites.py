"""A registry with storages, some of which only their site reaches, and a mover at the site."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from sqlalchemy import select

from arriero.agent.mover import SiteMover
from arriero.registry.models import NewToken
from arriero.registry.rse_credentials import RseCredentials
from arriero.registry.schema.tables import replicas, requests, rses
from arriero.registry.states import ReplicaState
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.transfer import RunSummary, TransferRunner
from support.installation import wait_until
from support.invariants import assert_invariants

DOMAINS = {
    "wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1}
}


class Place:
    """A registry with storages, some of which only their site reaches."""

    def __init__(self, registry, directory: Path) -> None:
        self.registry = registry
        self.directory = directory
        self.root = registry.client()
        self.root.add_scope("root", "raw")
        self.folders: dict[str, Path] = {}
        self.credentials: dict[str, RseCredentials] = {}

    def folder(self, name: str, *, site_mover: bool = True) -> None:
        folder = self.directory / name
        folder.mkdir()
        self._add(name, {"scheme": "file", "hostname": "", "port": 0, "prefix": str(folder)}, site_mover)
        self.folders[name] = folder

    def server(self, name: str, server) -> None:
        """An RSE on a real XRootD server."""
        server.write_file(f"{self.directory.name}/raw/made", b"x")
        self.folders[name] = folder = server.data_dir / self.directory.name
        for one in (folder, folder / "raw"):
            one.chmod(0o777)
        prefix = f"{server.prefix}/{self.directory.name}"
        self._add(
            name, {"scheme": "davs", "hostname": "127.0.0.1", "port": server.port, "prefix": prefix}, False
        )
        self.credentials[name] = RseCredentials(ca_bundle=str(server.ca_bundle))

    def _add(self, name: str, protocol: dict[str, object], site_mover: bool) -> None:
        self.root.add_rse(name)
        self.root.add_rse_attribute(name, "lfn2pfn_algorithm", "identity")
        self.root.add_protocol(name, {**protocol, "domains": DOMAINS})
        if site_mover:
            self.root.add_rse_attribute(name, "site_mover", True)

    def files(self, rse: str, *names: str, size: int = 5000) -> dict[str, bytes]:
        """Files at an RSE, in a dataset of the same name as it."""
        made = {name: name.encode() * (size // len(name)) for name in names}
        (self.folders[rse] / "raw").mkdir(exist_ok=True)
        for name, content in made.items():
            (self.folders[rse] / "raw" / name).write_bytes(content)
        described = [
            {"scope": "raw", "name": name, "bytes": len(content), "adler32": f"{zlib.adler32(content):08x}"}
            for name, content in made.items()
        ]
        self.root.add_replicas(rse, described)
        self.root.add_did("raw", f"of-{rse}", "DATASET")
        self.root.attach_dids("raw", f"of-{rse}", [{"scope": "raw", "name": name} for name in made])
        return made

    def wanted(self, dataset: str, expression: str) -> str:
        rule = self.root.add_replication_rule([{"scope": "raw", "name": dataset}], 1, expression)[0]
        Evaluator(self.registry.context).run()
        return rule

    def central(self) -> RunSummary:
        """What the central workers do."""
        return TransferRunner(self.registry.context).run()

    def client(self, *rses: str, label: str = "mover"):
        token = self.root.create_token(NewToken(label=label, lifetime_s=600, rses=rses)).token
        return self.registry.client(token=token)

    def mover(self, *rses: str, **options) -> SiteMover:
        known = {"credentials": self.credentials, "wait_s": 0.2, **options}
        return SiteMover(self.client(*rses), "w1", **known)

    def rows(self, query) -> list:
        with self.registry.database.snapshot() as connection:
            return list(connection.execute(query))

    def change(self, statement) -> None:
        with self.registry.database.transaction() as connection:
            connection.execute(statement)

    def request(self):
        [row] = self.rows(select(requests))
        return row

    def wait_for(self, rule: str) -> None:
        def state() -> dict:
            return self.root.get_replication_rule(rule)

        wait_until(
            lambda: state()["state"] == "OK",
            "the rule is OK",
            every_s=0.05,
            instead=lambda: [(row.state, row.code, row.reason) for row in self.rows(select(requests))],
        )

    def is_at(self, rse: str, files: dict[str, bytes]) -> None:
        """The bytes are there under their final names, nothing else is, and the catalogue says so."""
        folder = self.folders[rse] / "raw"
        found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "made"}
        assert found == files
        states = self.rows(
            select(replicas.c.state, replicas.c.verified_at)
            .join(rses, rses.c.id == replicas.c.rse_id)
            .where(rses.c.name == rse)
        )
        assert [row.state for row in states] == [ReplicaState.AVAILABLE] * len(files)
        assert all(row.verified_at is not None for row in states)
        assert_invariants(self.registry.database)


@pytest.fixture
def place(registry, tmp_path) -> Place:
    return Place(registry, tmp_path)
