"""A registry that answers on a real port, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.routing import BaseRoute, Route

from arriero.registry.app import create_app
from arriero.registry.client import RegistryClient
from arriero.registry.database import Database
from arriero.registry.ports import SilentDoorbell
from arriero.registry.services.bootstrap import bootstrap
from arriero.registry.services.context import Context
from arriero.registry.settings import Settings
from arriero.scheduler.rule_engine import Engine
from arriero.scheduler.transfer_desk import Desk
from support.database import migrated_database
from support.services import Services, drop_database

ROOT = "root"
PASSWORD = "correct horse battery staple"

_ROUTERS: list[BaseRoute] = []


class RunningRegistry:
    """What a test knows of the registry that it talks to."""

    def __init__(self, url: str, context: Context) -> None:
        self.url = url
        self.context = context
        self.database = context.database
        self._clients: list[RegistryClient] = []

    def client(self, **credentials: object) -> RegistryClient:
        """Return a client: of root, unless other credentials are given."""
        given = credentials or {"account": ROOT, "username": ROOT, "password": PASSWORD}
        client = RegistryClient(self.url, **given)  # type: ignore[arg-type]
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


class _Server(uvicorn.Server):
    """Ends when it is told to; uvicorn's own asks ten times a second, and waits once more for what has ended."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def end(self) -> None:
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), timeout=1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in self.servers:
            listening.close()
        for bound in sockets or []:
            bound.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended(), timeout=self.config.timeout_graceful_shutdown)
        for task in self.server_state.tasks:
            task.cancel()

    async def _ended(self) -> None:
        while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - uvicorn says it no other way
            await asyncio.sleep(0.005)


@contextmanager
def running_registry(
    services: Services, kind: str, directory: Path, **settings: object
) -> Iterator[RunningRegistry]:
    """Run a registry on a fresh database of `kind` with the account root.

    Parameters
    ----------
    settings
        Fields of `Settings` that differ from the default.
    """
    database_url = migrated_database(services, kind, directory)
    database = Database(database_url)
    bootstrap(database, ROOT, PASSWORD)
    chosen = Settings(**settings)  # type: ignore[arg-type]
    doorbell = SilentDoorbell()
    desk = Desk(database, chosen, doorbell)
    context = Context(database, chosen, doorbell, Engine(chosen), desk)
    # with its protocol named: asyncio turns Nagle's algorithm off only where it can see that it is TCP
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            _app(context),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
            proxy_headers=False,
            lifespan="off",
        )
        server = _Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="registry")
        thread.start()
        deadline = time.monotonic() + 15
        while not server.started:
            assert thread.is_alive(), "the registry ended at once"
            assert time.monotonic() < deadline, "the registry did not start within 15 s"
            time.sleep(0.01)
        host, port = bound.getsockname()
        registry = RunningRegistry(f"http://{host}:{port}", context)
        try:
            yield registry
        finally:
            registry.close()
            server.end()
            thread.join(timeout=15)
            database.dispose()
            drop_database(services, database_url)


def _app(context: Context) -> FastAPI:
    """Give the application; with the routers of the first one, which FastAPI has worked out at their first request."""
    app = create_app(context)
    routes = app.router.routes
    if not _ROUTERS:
        _ROUTERS.extend(routes)
    # its own routes stay: the document is the application's
    routes[:] = [
        own if isinstance(own, Route) else first for own, first in zip(routes, _ROUTERS, strict=True)
    ]
    return app


@pytest.fixture
def registry(services: Services, database_kind: str, tmp_path: Path) -> Iterator[RunningRegistry]:
    """A registry of this test's own, on the kind of database that the test runs on."""
    with running_registry(services, database_kind, tmp_path) as running:
        yield running
