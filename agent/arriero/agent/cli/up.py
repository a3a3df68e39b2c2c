"""``arriero up``: everything in one process tree on one machine."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import yaml
from pydantic import SecretStr

from arriero.agent.cli.session import Session, pass_session
from arriero.agent.errors import DirectoryInUse
from arriero.agent.processes import listen, serve, url_of
from arriero.registry.database import Database
from arriero.registry.migrate import upgrade
from arriero.registry.services.bootstrap import bootstrap
from arriero.registry.services.context import Context
from arriero.scheduler.app import create_celery
from arriero.scheduler.doorbell import CeleryDoorbell
from arriero.scheduler.embedded import EmbeddedWorker
from arriero.scheduler.rule_engine import Engine
from arriero.scheduler.transfer_desk import Desk

ROOT = "root"


@click.command("up")
@click.option(
    "--dir",
    "directory",
    default="arriero-data",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything is kept.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@pass_session
def command(session: Session, directory: Path, host: str, port: int) -> None:
    """Run the registry, the workers and the sweeps on this machine, with SQLite in DIR.

    The first start creates the schema and the account `root`, whose password it writes to DIR/root.password. Ctrl-C
    ends it; the next start on the same DIR carries on. DIR/client.yaml tells clients where it is and who they are:
    `export ARRIERO_CONFIG=DIR/client.yaml`.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = directory.resolve()
    with _held(directory):
        settings = session.central_settings.model_copy(
            update={
                "database_url": SecretStr(f"sqlite:///{directory / 'arriero.db'}"),
                "broker_url": SecretStr("memory://"),
            }
        )
        url = settings.database_url.get_secret_value()
        upgrade(url)
        database = Database(url, pool_size=settings.database_pool_size)
        try:
            password_file = _ensure_root(database, directory)
            bound = listen(host, port)
            _write_client_settings(directory, url_of(bound), password_file)
            doorbell = CeleryDoorbell(create_celery(settings))
            desk = Desk(database, settings, doorbell)
            context = Context(database, settings, doorbell, Engine(settings), desk)
            worker = EmbeddedWorker(context)
            worker.start()
            try:
                serve(context, bound, lambda: _announce(url_of(bound), directory))
            finally:
                worker.stop()
        finally:
            database.dispose()


def _announce(url: str, directory: Path) -> None:
    click.echo(f"Arriero is up: {url}")
    click.echo(
        f"  dashboard  {url}/ui\n  commands   export ARRIERO_CONFIG={directory / 'client.yaml'}\n  end        Ctrl-C"
    )


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Hold the directory against a second `arriero up`; the kernel lets go when this process ends, however it ends."""
    with (directory / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DirectoryInUse(
                f"{directory} is in use by another `arriero up`; end that one or choose another --dir"
            ) from error
        yield


def _ensure_root(database: Database, directory: Path) -> Path:
    """Have the account `root` and the file with its password, made in this order so that a crash between can be repeated."""
    password_file = directory / "root.password"
    if not password_file.exists():
        _write_private(password_file, secrets.token_urlsafe(24) + "\n")
    bootstrap(database, ROOT, password_file.read_text().strip())
    return password_file


def _write_client_settings(directory: Path, url: str, password_file: Path) -> None:
    settings = {"url": url, "account": ROOT, "username": ROOT, "password_file": str(password_file)}
    _write_private(directory / "client.yaml", yaml.safe_dump(settings, sort_keys=False))


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
