"""A real Butler repository for LSSTComCam, on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path

import pytest

from arriero.agent.ingest.butler_repository import create_repository, repository_config
from arriero.agent.ingest.butler_writer import ButlerWriter
from support.butler import DAY, registry_url
from support.exposures import write_night
from support.products import Source
from support.services import Services


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """Four exposures of nine detectors with their indexes; not to be changed."""
    root = tmp_path_factory.mktemp("night")
    return root, write_night(root, DAY)


class Template:
    """One repository for each kind of database, to be copied: making one takes seconds."""

    def __init__(self, services: Services, directory: Path) -> None:
        self._services = services
        self._directory = directory

    @cached_property
    def sqlite(self) -> Path:
        create_repository(str(self._directory / "sqlite"), "LSSTComCam")
        return self._directory / "sqlite"

    @cached_property
    def postgresql(self) -> tuple[Path, str]:
        """Its directory, and the name of its database, to which nobody is connected."""
        server = self._services.postgresql
        with pytest.MonkeyPatch.context() as patch:
            url = registry_url(self._services.databases.create(), self._directory, patch)
            create_repository(str(self._directory / "postgresql"), "LSSTComCam", registry_db=url)
        database = url.rpartition("/")[2]
        server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        return self._directory / "postgresql", database


@pytest.fixture(scope="session")
def template(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    template = Template(services, tmp_path_factory.mktemp("repositories"))
    yield template
    if "postgresql" in vars(template):
        services.databases.drop(template.postgresql[1])


@pytest.fixture
def registry_db(
    services: Services, database_kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str | None]:
    """URL of an empty database for a Butler registry; None for SQLite."""
    if database_kind == "sqlite":
        yield None
        return
    url = services.databases.create()
    yield registry_url(url, tmp_path, monkeypatch)
    services.databases.drop(url)


@pytest.fixture
def repository(
    services: Services,
    database_kind: str,
    template: Template,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """URI of a repository that has LSSTComCam registered, as `create_repository` makes it."""
    with repository_of(services, database_kind, template, tmp_path, monkeypatch) as uri:
        yield uri


@contextmanager
def repository_of(
    services: Services, kind: str, template: Template, directory: Path, patch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Give a repository on a kind of database."""
    if kind == "sqlite":
        yield copied(template.sqlite, directory)
        return
    original, database = template.postgresql
    url = services.databases.create(template=database)
    uri = copied(original, directory)
    config = directory / "repo" / "butler.yaml"
    config.write_text(config.read_text().replace(database, url.rpartition("/")[2]))
    registry_url(url, directory, patch)
    yield uri
    services.databases.drop(url)


@pytest.fixture(scope="module")
def module_repository(
    services: Services, template: Template, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], AbstractContextManager[str]]:
    """Give a repository on a kind of database for all tests of a module."""

    @contextmanager
    def give(kind: str) -> Iterator[str]:
        with pytest.MonkeyPatch.context() as patch:
            directory = tmp_path_factory.mktemp("repository")
            with repository_of(services, kind, template, directory, patch) as uri:
                yield uri

    return give


@pytest.fixture(scope="session")
def source(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """A repository elsewhere that has an exposure and makes products of it."""
    directory = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(template.sqlite, directory / "source")
    source = Source(directory, str(directory / "source"))
    yield source
    source.butler.close()


@pytest.fixture
def sqlite_repository(template: Template, tmp_path: Path) -> str:
    return copied(template.sqlite, tmp_path)


def copied(original: Path, tmp_path: Path) -> str:
    shutil.copytree(original, tmp_path / "repo")
    return repository_config(str(tmp_path / "repo"))


@pytest.fixture
def new_writer() -> Iterator[Callable[..., ButlerWriter]]:
    """Make writers that are closed after the test."""
    writers: list[ButlerWriter] = []

    def make(repository: str, *instruments: str, **options: str) -> ButlerWriter:
        writers.append(ButlerWriter(repository, instruments or ("LSSTComCam",), **options))
        return writers[-1]

    yield make
    for writer in writers:
        writer.close()
