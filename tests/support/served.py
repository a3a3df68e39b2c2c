"""`arriero serve` as a process of its own, which can be killed and started again at the same place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arriero.registry.client import RegistryClient
from arriero.registry.database import Database
from arriero.registry.services.bootstrap import bootstrap
from support.database import migrated_database
from support.installation import ARRIERO, Installation, installation
from support.server import PASSWORD, ROOT
from support.services import Services, drop_database


class ServedRegistry:
    """A registry in a process of its own, as `support.server.RunningRegistry` is one in a thread."""

    def __init__(self, arriero: Installation, database: Database) -> None:
        self.database = database
        self._arriero = arriero
        self._clients: list[RegistryClient] = []
        self._starts = 0
        self._process = arriero.start("serve", ARRIERO, "serve", "--port", "0")
        self.url = self._process.wait_for_line(r"^Arriero serves (http://\S+)").group(1)

    def client(self, **credentials: object) -> RegistryClient:
        """Return a client: of root, unless other credentials are given."""
        given = credentials or {"account": ROOT, "username": ROOT, "password": PASSWORD}
        self._clients.append(RegistryClient(self.url, **given))  # type: ignore[arg-type]
        return self._clients[-1]

    def kill(self) -> None:
        """SIGKILL it."""
        self._process.kill()

    def start(self) -> None:
        """Start it again, on the same port."""
        port = self.url.rpartition(":")[2]
        self._starts += 1
        name = f"serve-{self._starts}"
        self._process = self._arriero.start(name, ARRIERO, "serve", "--port", port)
        self._process.wait_for_line("^Arriero serves")

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextmanager
def served_registry(services: Services, kind: str, directory: Path) -> Iterator[ServedRegistry]:
    """Serve a fresh database of `kind` with the account root."""
    url = migrated_database(services, kind, directory)
    database = Database(url)
    bootstrap(database, ROOT, PASSWORD)
    with installation(directory / "installation", {"ARRIERO_DATABASE_URL": url}) as arriero:
        registry = ServedRegistry(arriero, database)
        try:
            yield registry
        finally:
            registry.close()
    database.dispose()
    drop_database(services, url)
