"""Real servers for tests, each started when the first test asks for it.

`make test` starts the whole set beforehand and says where it is with ARRIERO_TEST_SERVICES_DIR; a plain pytest
starts what it needs in a directory of its own and ends it again. A server that is not installed fails the test
and says what to install: nothing is skipped.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pytest

from servicelib.apache import Apache
from servicelib.postgresql import PostgreSQL
from servicelib.redis import Redis
from servicelib.server import Server, WebDavServer
from servicelib.stack import Stack, claim, new_directory, remove_abandoned
from servicelib.wsgidav import WsgiDav
from servicelib.xrootd import XRootD
from servicelib.xrootd_tokens import XRootDWithTokens
from support.pg_databases import Databases
from support.thorough import is_run

PREFIX = "arriero-pytest-"

S = TypeVar("S", bound=Server)

_TO_DISK = ("fsync", "full_page_writes")


class Services:
    """The servers of one test session.

    Parameters
    ----------
    shared
        A directory in which `deploy/services up` runs servers; they are used and left running.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = None if shared is None else Stack(shared)

    @cached_property
    def _own(self) -> Stack:
        remove_abandoned(PREFIX)
        directory = new_directory(PREFIX)
        claim(directory)
        return Stack(directory)

    @property
    def directory(self) -> Path:
        """A directory for servers that a test starts by itself, reachable for their accounts."""
        return self._own.directory

    @cached_property
    def postgresql(self) -> PostgreSQL:
        """A server that forces nothing to the disk: no test cuts the power, and a killed server loses nothing by it."""
        server = self._started("postgresql", PostgreSQL)
        _configure(server, *(f"SET {name} = off" for name in _TO_DISK))
        return server

    @cached_property
    def databases(self) -> Databases:
        """Databases of that server for tests."""
        return Databases(self.postgresql, PREFIX)

    @cached_property
    def redis(self) -> Redis:
        return self._started("redis", Redis)

    @cached_property
    def xrootd_slac(self) -> XRootD:
        return self._started("slac", XRootD)

    @cached_property
    def xrootd_in2p3(self) -> XRootD:
        return self._started("in2p3", XRootD)

    @cached_property
    def xrootd_tokens(self) -> XRootDWithTokens:
        """One that lets nobody in without a token, a certificate or a macaroon."""
        return self._started("tokens", XRootDWithTokens)

    @cached_property
    def apache(self) -> Apache:
        return self._started("apache", Apache)

    @cached_property
    def wsgidav(self) -> WsgiDav:
        return self._started("wsgidav", WsgiDav)

    def webdav(self, name: str) -> WebDavServer:
        """Return a storage element by the name of its attribute here, for parametrised tests."""
        server = getattr(self, name)
        assert isinstance(server, WebDavServer)
        return server

    def close(self) -> None:
        """End the servers that this session started."""
        if "databases" in self.__dict__:
            self.databases.close()
        if "postgresql" in self.__dict__:
            _configure(self.postgresql, *(f"RESET {name}" for name in _TO_DISK))
        if "_own" in self.__dict__:
            self._own.remove()

    def _started(self, name: str, kind: type[S]) -> S:
        stack = self._own
        if self._shared is not None and self._shared.server(name).is_running():
            stack = self._shared
        server = stack.server(name)
        assert isinstance(server, kind)
        server.start()
        return server


def _configure(server: PostgreSQL, *settings: str) -> None:
    for one in settings:
        server.sql(f"ALTER SYSTEM {one}")
    server.sql("SELECT pg_reload_conf()")


def fresh_database(services: Services, kind: str, tmp_path: Path, *, template: str | None = None) -> str:
    """Create an empty database.

    Parameters
    ----------
    kind
        `sqlite` or `postgresql`.
    tmp_path
        Where an SQLite file goes.
    template
        Name of the PostgreSQL database to copy instead.

    Returns
    -------
    url
        For SQLAlchemy.
    """
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    return services.databases.create(template=template)


def drop_database(services: Services, url: str) -> None:
    """Remove a database that `fresh_database` created."""
    if url.startswith("postgresql"):
        services.databases.drop(url)


def _is_first_process() -> bool:
    return os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """Real servers, started when first asked for."""
    # of several test processes one uses the servers that are up, and each other has its own: tests stop and flush them
    shared = os.environ.get("ARRIERO_TEST_SERVICES_DIR") if _is_first_process() else None
    running = Services(Path(shared) if shared else None)
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """The kind of database: what uses it runs on both."""
    return str(request.param)


@pytest.fixture
def empty_database(request: pytest.FixtureRequest, database_kind: str, tmp_path: Path) -> Iterator[str]:
    """URL of a database without any table, dropped after the test."""
    # Asked for by name and not as an argument, so that a test on SQLite is not marked as needing servers.
    services = request.getfixturevalue("services")
    url = fresh_database(services, database_kind, tmp_path)
    try:
        yield url
    finally:
        drop_database(services, url)


@pytest.fixture
def database_url(empty_database: str) -> str:
    """URL of the test's database; a conftest of a package overrides it with one that has the schema."""
    return empty_database


_LONGEST = frozenset(
    {
        "test_app.py",
        "test_bad_input.py",
        "test_butler_writer.py",
        "test_evaluation_work.py",
        "test_hostile_input.py",
        "test_hostile_names.py",
        "test_ingest_benchmark.py",
        "test_interleavings.py",
        "test_interleavings_three.py",
        "test_main_job.py",
        "test_model.py",
        "test_resting_items.py",
        "test_rubin_register.py",
        "test_rucio_register.py",
        "test_soak.py",
        "test_streams.py",
        "test_together.py",
        "test_transfers_benchmark.py",
        "test_up.py",
        "test_upload_download.py",
    }
)
"""Files of few tests that take long: begun last, one process would wait for the other."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a real server, so that `make test-quick` can leave it out; have what takes longest begin first."""
    run = {item: is_run(item.nodeid, *_asked_for(item)) for item in items}
    config.hook.pytest_deselected(items=[item for item in items if not run[item]])
    items[:] = [item for item in items if run[item]]
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in _LONGEST, -tests[item.path]))
    for item in items:
        fixtures, parameters = _asked_for(item)
        if "services" in fixtures or parameters.get("database_kind") == "postgresql":
            item.add_marker("services")


def _asked_for(item: pytest.Item) -> tuple[Sequence[str], Mapping[str, Any]]:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return getattr(item, "fixturenames", ()), parameters
