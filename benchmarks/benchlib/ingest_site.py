"""The site of the benchmark of ingest: a registry that serves, an RSE of files, a Butler, a token for its agent."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from arriero.registry.client import RegistryClient
from arriero.registry.models import NewButler, NewToken
from benchlib.ingest_files import Raw
from benchlib.rules_sides import calm
from benchlib.sides import (
    BIN,
    HERE,
    arriero_worker,
    bare_environment,
    database_url,
    recreate,
)
from benchlib.worker import Server, Worker
from servicelib.ports import free_port

SQLITE, POSTGRESQL = KINDS = ("SQLite", "PostgreSQL")
CATALOGUE, REPOSITORIES = "bench_ingest", "bench_ingest_butlers"
SCOPE, RSE, BUTLER = "raw", "IN2P3_BENCH", "bench"
EVERYWHERE = {"lan": {"read": 1, "write": 1, "delete": 1}, "wan": {"read": 1, "write": 1, "delete": 1}}


@dataclass
class Site:
    """What a measurement works with."""

    root: Path
    """Prefix of the RSE."""
    work: Path
    admin_url: str
    url: str
    """Of the registry's database."""
    server: Server
    client: RegistryClient
    environment: dict[str, str]
    """Of whoever opens a Butler."""
    made: int = 0

    def worker(self) -> Worker:
        """Start who writes into Butlers."""
        return ingest_worker(self.root, self.environment)

    def repository(self, worker: Worker, kind: str) -> str:
        """Make a repository; gives the URI of its configuration."""
        self.made += 1
        name = f"butler{self.made}"
        database = None if kind == SQLITE else database_url(self.admin_url, REPOSITORIES)
        namespace = None if kind == SQLITE else name
        repository = str(self.work / name)
        return str(worker.do("create", repository=repository, registry_db=database, namespace=namespace))

    def register(self, raws: Sequence[Raw]) -> None:
        """Register files at the RSE."""
        self.client.add_replicas(RSE, [raw.described(SCOPE) for raw in raws])

    def take(self, butler: str, repository: str, *, only: str = "*") -> str:
        """Have a Butler take what is at the RSE, and what comes; gives its agent's token."""
        self.client.add_butler(
            NewButler.model_validate(
                {
                    "name": butler,
                    "uri": repository,
                    "instruments": ["LSSTComCam"],
                    "rses": [{"rse": RSE, "uri_prefix": self.root.as_uri()}],
                    "selections": [{"scope": SCOPE, "pattern": only}],
                }
            )
        )
        token = self.client.create_token(NewToken(label=butler, lifetime_s=86_400, butlers=[butler]))
        return token.token

    def states(self, butler: str) -> dict[str, int]:
        """Count a Butler's arrivals by state."""
        query = (
            "SELECT a.state, count(*) FROM arrivals a JOIN butlers b ON b.id = a.butler_id "
            "WHERE b.name = %s GROUP BY a.state"
        )
        with psycopg.connect(self.url) as connection:
            return {str(state): int(count) for state, count in connection.execute(query, [butler])}

    def calm(self) -> None:
        """Have nothing left to do from what came before."""
        calm(self.admin_url, self.url)


def ingest_worker(root: Path, environment: dict[str, str]) -> Worker:
    """Start a process of `arriero_ingest_worker.py`."""
    return Worker([str(BIN / "python"), str(HERE / "arriero_ingest_worker.py"), str(root)], environment)


@contextmanager
def site(admin_url: str, root: Path, work: Path) -> Iterator[Site]:
    """Run a site on new databases."""
    url = recreate(admin_url, CATALOGUE)
    with arriero_worker(url) as worker:
        worker.do("set_up")
    recreate(admin_url, REPOSITORIES)
    settings = {"ARRIERO_DATABASE_URL": url, "ARRIERO_LOG_LEVEL": "WARNING"}
    with ExitStack() as stack:
        port = free_port()
        command = [str(BIN / "arriero"), "serve", "--port", str(port)]
        server = Server(
            command, bare_environment() | settings, f"http://127.0.0.1:{port}", work / "serve.log"
        )
        stack.callback(server.close)
        client = RegistryClient(server.url, account="root", username="ddmlab", password="secret")  # noqa: S106 - of the benchmark alone
        stack.callback(client.close)
        client.add_scope("root", SCOPE)
        client.add_rse(RSE)
        client.add_rse_attribute(RSE, "lfn2pfn_algorithm", "lsst_butler")
        protocol = {"scheme": "file", "hostname": "", "port": 0, "prefix": str(root), "domains": EVERYWHERE}
        client.add_protocol(RSE, protocol)
        paths = str(HERE.parent)
        environment = bare_environment() | {"PYTHONPATH": paths, "ARRIERO_LOG_LEVEL": "WARNING"}
        yield Site(root, work, admin_url, url, server, client, environment)
