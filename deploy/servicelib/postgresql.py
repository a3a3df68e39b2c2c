"""A private PostgreSQL: default settings but for the port and the socket, so that fsync is on as in production."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from pathlib import Path

from servicelib.errors import ServiceError
from servicelib.server import SYSTEM_PATH, Server

_PROGRAMS = ("initdb", "postgres", "pg_isready", "psql")
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{home}'
"""


class PostgreSQL(Server):
    """A private PostgreSQL cluster with one superuser, `arriero`, and a password made for it.

    Parameters
    ----------
    directory, name
        As for `Server`.

    Attributes
    ----------
    url
        The maintenance database, as `postgresql://USER:PASSWORD@127.0.0.1:PORT/postgres`.
    """

    kind = "postgresql"
    packages = ("postgresql",)
    accounts = ("postgres",)
    # A fast shutdown: sessions are ended, not waited for.
    ending = signal.SIGINT
    user = "arriero"

    def __init__(self, directory: Path | str, name: str = "postgresql") -> None:
        super().__init__(directory, name)
        self.cluster = self.home / "cluster"
        self.url = self.database_url("postgres")

    @classmethod
    def lacks(cls) -> str | None:
        return None if cls.programs() else "no PostgreSQL server and client below /usr/lib/postgresql"

    @classmethod
    def programs(cls) -> Path | None:
        """Return the directory with the newest installed server's programs, None without any."""
        installed = Path("/usr/lib/postgresql").glob("*/bin")
        found = [path for path in installed if all((path / program).exists() for program in _PROGRAMS)]
        return max(found, key=lambda path: float(path.parent.name), default=None)

    def new_settings(self) -> dict[str, str | int]:
        return {**super().new_settings(), "password": secrets.token_urlsafe(24)}

    def configure(self) -> None:
        password = self.write_private(self.home / "password", f"{self.settings['password']}\n")
        options = ["--auth=scram-sha-256", f"--pwfile={password}", f"--username={self.user}"]
        options += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        self._run("initdb", "--pgdata", str(self.cluster), *options)
        configuration = self.cluster / "postgresql.conf"
        with configuration.open("a") as file:
            file.write(_CONFIGURATION.format(port=self.port, home=self.home))

    def command(self) -> list[str]:
        return [self._program("postgres"), "-D", str(self.cluster)]

    def answers(self) -> bool:
        command = [self._program("pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={self.port}"]
        return subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0

    def variables(self) -> dict[str, str]:
        return {**super().variables(), "URL": self.url}

    def database_url(self, database: str) -> str:
        """Return the URL of a database, for SQLAlchemy 2.1 and for libpq."""
        return f"postgresql://{self.user}:{self.settings['password']}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str | None = None, *, template: str | None = None) -> str:
        """Create a database.

        Parameters
        ----------
        name
            Its name; by default one that nobody has used.
        template
            The database to copy, which nobody may be connected to; by default an empty one.

        Returns
        -------
        url
            As `database_url` gives it.
        """
        name = name or f"test_{secrets.token_hex(8)}"
        copy = f" TEMPLATE {_quoted(template)}" if template else ""
        self.sql(f"CREATE DATABASE {_quoted(name)}{copy}")
        return self.database_url(name)

    def drop_database(self, name_or_url: str) -> None:
        """Drop a database if it exists, and end the sessions that use it."""
        self.sql(f"DROP DATABASE IF EXISTS {_quoted(name_or_url.rpartition('/')[2])} WITH (FORCE)")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement as the superuser with psql.

        Returns
        -------
        rows
            One line per row, columns separated by `|`.

        Raises
        ------
        ServiceError
            With what psql said.
        """
        options = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]
        environment = {"PATH": SYSTEM_PATH, "PGPASSWORD": str(self.settings["password"]), "LANG": "C.UTF-8"}
        where = ["--host=127.0.0.1", f"--port={self.port}", f"--username={self.user}", f"--dbname={database}"]
        done = subprocess.run(
            [self._program("psql"), *options, *where, f"--command={statement}"],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise ServiceError(f"{self.name} refused {json.dumps(statement)}: {done.stderr.strip()}")
        return done.stdout

    def _program(self, name: str) -> str:
        return str((self.programs() or Path()) / name)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._program(program), *arguments],
            check=False,
            cwd=self.home,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=120,
            **self.account.popen_options(),
        )
        if done.returncode != 0:
            said = "\n".join(f"  | {line}" for line in (done.stdout + done.stderr).splitlines()[-15:])
            raise ServiceError(f"{self.name}: {program} failed in {self.cluster}:\n{said}")


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
