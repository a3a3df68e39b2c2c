"""`arriero up` with two real storage elements: what a newcomer has, for tests that need no more."""

from __future__ import annotations

import json
import sqlite3
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arriero.registry.client import RegistryClient
from arriero.rse.pool import ProtocolPool
from arriero.rse.types import Endpoint
from servicelib.server import WebDavServer
from support.installation import ARRIERO, Installation, installation, wait_until

SOURCE, DESTINATION = "SLAC_RAW_DISK", "IN2P3_RAW_DISK"

QUICK = {
    "ARRIERO_SWEEP_S": "0.5",
    "ARRIERO_TRANSFER_BACKOFF_S": "0.2",
    "ARRIERO_TRANSFER_MAX_ATTEMPTS": "3",
}
"""Settings under which a failure that would take minutes takes seconds."""


@dataclass
class Laptop:
    """A running `arriero up` and what a test does with it."""

    arriero: Installation
    directory: Path
    folder: str
    servers: dict[str, WebDavServer]
    client: RegistryClient

    def add_rse(self, rse: str, server: WebDavServer) -> None:
        """Add a storage element below a folder of this test's own."""
        self.servers[rse] = server
        self.arriero.run("rse", "add", rse)
        self.arriero.run("rse", "attribute", "add", rse, "--key", "lfn2pfn_algorithm", "--value", "identity")
        self.arriero.run(
            *("rse", "protocol", "add", rse, "--scheme", "http", "--host-name", "127.0.0.1"),
            *("--port", str(server.port), "--prefix", f"{server.prefix}/{self.folder}"),
        )
        for other in self.servers:
            if other != rse:
                self.client.set_distance(other, rse, 1)
                self.client.set_distance(rse, other, 1)

    def path(self, rse: str, name: str, scope: str = "raw") -> Path:
        """Where a file of this name lies at an RSE."""
        return self.servers[rse].data_dir / self.folder / scope / name

    def files(self, rse: str) -> list[str]:
        """Names of everything that lies at an RSE, temporary files too."""
        root = self.servers[rse].data_dir / self.folder
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def listed(self, rse: str, folder: str) -> list[str]:
        """Names in a folder of an RSE, as its server lists them."""
        server = self.servers[rse]
        endpoint = Endpoint(rse, "http", "127.0.0.1", server.port, f"{server.prefix}/{self.folder}")
        pool = ProtocolPool()
        try:
            return sorted(entry.name for entry in pool.get(endpoint).list_directory(folder))
        finally:
            pool.close()

    def put(self, name: str, content: bytes, *, rse: str = SOURCE) -> dict[str, Any]:
        """Have a file lie at an RSE; return what a truthful registration of it says."""
        self.servers[rse].write_file(f"{self.folder}/raw/{name}", content)
        return {
            "scope": "raw",
            "name": name,
            "bytes": len(content),
            "adler32": f"{zlib.adler32(content):08x}",
        }

    def replicate(self, name: str) -> str:
        """Ask for one copy at the destination; return the rule's id."""
        return self.client.add_replication_rule([{"scope": "raw", "name": name}], 1, DESTINATION)[0]

    def wait_for_rule(self, rule: str, state: str, *, timeout_s: float = 60) -> Mapping[str, Any]:
        """Wait until a rule is in a state; return it."""
        wait_until(
            lambda: self.client.get_replication_rule(rule)["state"] == state,
            f"rule {rule} is {state}",
            timeout_s=timeout_s,
            instead=lambda: self.client.get_replication_rule(rule),
        )
        return self.client.get_replication_rule(rule)

    def replica(self, name: str, rse: str) -> Any:
        """What the trace says of a file's replica at an RSE; None when there is none."""
        found = [replica for replica in self.client.trace("raw", name).replicas if replica.rse == rse]
        return found[0] if found else None

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the catalogue's database itself."""
        with closing(sqlite3.connect(self.directory / "arriero.db")) as connection:
            return connection.execute(statement, parameters).fetchall()

    def contents(self) -> dict[str, int]:
        """Count the rows of every table that bad input must not change."""
        tables = (
            "dids",
            "contents",
            "replicas",
            "rules",
            "locks",
            "requests",
            "rses",
            "scopes",
            "butlers",
            "arrivals",
        )
        return {table: self.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables}

    def token(self, butler: str, *options: str) -> str:
        """Make an agent's token."""
        answer = json.loads(
            self.arriero.run("-o", "json", "token", "create", "--label", "test", "--butler", butler, *options)
        )
        return str((answer[0] if isinstance(answer, list) else answer)["token"])

    def start_agent(self, butler: str) -> None:
        """Start the site's agent."""
        environment = {"ARRIERO_URL": self.arriero.client["ARRIERO_URL"], "ARRIERO_TOKEN": self.token(butler)}
        process = self.arriero.start(
            "agent", ARRIERO, "agent", "run", "--butler", butler, environment=environment
        )
        process.wait_for_line("agent started")


@contextmanager
def laptop(directory: Path, servers: Mapping[str, WebDavServer]) -> Iterator[Laptop]:
    """Give a running `arriero up` that knows two sites and the scope `raw`."""
    with installation(directory, QUICK) as arriero:
        data = directory / "data"
        up = arriero.start("up", ARRIERO, "up", "--dir", str(data), "--port", "0")
        url = up.wait_for_line(r"^Arriero is up: (http://\S+)").group(1)
        password_file = data / "root.password"
        arriero.client = {
            "ARRIERO_URL": url,
            "ARRIERO_ACCOUNT": "root",
            "ARRIERO_USERNAME": "root",
            "ARRIERO_PASSWORD_FILE": str(password_file),
        }
        password = password_file.read_text().strip()
        with RegistryClient(url, account="root", username="root", password=password) as client:
            made = Laptop(arriero, data, f"laptop-{uuid.uuid4().hex[:8]}", {}, client)
            client.add_scope("root", "raw")
            for rse, server in servers.items():
                made.add_rse(rse, server)
            yield made
