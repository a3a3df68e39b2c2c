"""Rucio 41.5.1 from PyPI, in an environment of its own, on the same PostgreSQL as Arriero.

Its settings are its defaults; it has its memcached, as sites in production do (without it, listing is several times
slower). Nothing of it is imported here.
"""

import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from servicelib.errors import MissingPackagesError
from servicelib.packages import install
from servicelib.ports import free_port, is_free

HERE = Path(__file__).resolve().parent.parent / "peers" / "rucio"
VERSION = "41.5.1"
TEMPLATE = "rucio_template"

_CONFIGURATION = """
[common]
logdir = {home}/log
loglevel = WARNING
[database]
default = {url}
pool_recycle = 3600
echo = 0
pool_reset_on_return = rollback
[cache]
url = 127.0.0.1:{memcached}
[bootstrap]
userpass_identity = ddmlab
userpass_pwd = secret
userpass_email = root@example.org
[policy]
permission = generic
schema = generic
lfn2pfn_algorithm_default = hash
[alembic]
cfg = {home}/etc/alembic.ini
"""

_ALEMBIC = """
[alembic]
sqlalchemy.url = {url}
version_table_schema = public
script_location = {site}/db/sqla/migrate_repo/
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = WARN
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = generic
[formatter_generic]
format = %(levelname)s %(message)s
"""


class Rucio:
    """An installation of the peer.

    Parameters
    ----------
    home
        Where its environment is, or is to be made; it is kept.
    admin_url
        A PostgreSQL account that may create roles and databases.
    """

    def __init__(self, home: Path, admin_url: str) -> None:
        self.home = home.absolute()
        self.admin_url = admin_url
        self.python = self.home / "venv" / "bin" / "python"
        self.memcached_port = free_port()
        self.password = secrets.token_urlsafe(12)
        self._memcached: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Install what is missing, start its cache, and make the template of its database."""
        self._install()
        self._start_memcached()
        self._make_template()

    def stop(self) -> None:
        """End its cache; environment and databases stay."""
        if self._memcached is not None:
            self._memcached.terminate()
            self._memcached.wait(10)
            self._memcached = None

    def fresh_database(self) -> None:
        """Make its database anew, as it is after bootstrap; what its cache knows of the old one goes too."""
        self.stop()
        self._start_memcached()
        self._sql(
            "DROP DATABASE IF EXISTS rucio WITH (FORCE)",
            f"CREATE DATABASE rucio TEMPLATE {TEMPLATE} OWNER rucio",
        )
        self._configure("rucio")

    def environment(self) -> dict[str, str]:
        """Give the environment of its processes."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ARRIERO_"))}
        return {**kept, "RUCIO_HOME": str(self.home), "PYTHONWARNINGS": "ignore"}

    def worker(self, script: str = "worker.py") -> list[str]:
        """Give the command of its worker in core."""
        return [str(self.python), "-W", "ignore", str(HERE / script)]

    def server(self, port: int) -> list[str]:
        """Give the command of its REST server."""
        application = "rucio.web.rest.flaskapi.v1.main:application"
        return [
            str(self.python),
            "-m",
            "gunicorn",
            "-w",
            "2",
            "-t",
            "3600",
            "-b",
            f"127.0.0.1:{port}",
            application,
        ]

    def _install(self) -> None:
        marker = self.home / f"installed-{VERSION}"
        if marker.exists():
            return
        self.home.mkdir(parents=True, exist_ok=True)
        print(f"Installing Rucio {VERSION} from PyPI in {self.home}", file=sys.stderr)
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(self.home / "venv")], check=True)
        packages = [f"rucio[postgresql]=={VERSION}", "gunicorn"]
        command = [str(self.python), "-m", "pip", "-q", "--disable-pip-version-check", "install", *packages]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        marker.touch()

    def _start_memcached(self) -> None:
        if shutil.which("memcached") is None:
            lacking = MissingPackagesError({"memcached": "it is not installed"}, ("memcached",))
            install(lacking, lambda line: print(line, file=sys.stderr))
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [str(shutil.which("memcached")), "-l", "127.0.0.1", "-p", str(self.memcached_port), *user]
        self._memcached = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while is_free(self.memcached_port):
            if time.monotonic() > deadline:
                raise RuntimeError("memcached did not start within 10 s")
            time.sleep(0.05)

    def _make_template(self) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'rucio'").fetchone()
            verb = "ALTER" if known else "CREATE"
            role = sql.SQL(f"{verb} ROLE rucio LOGIN PASSWORD {{}}").format(sql.Literal(self.password))
            connection.execute(role)
        self._sql(
            "DROP DATABASE IF EXISTS rucio WITH (FORCE)",
            f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)",
            f"CREATE DATABASE {TEMPLATE} OWNER rucio",
        )
        (self.home / "etc").mkdir(exist_ok=True)
        (self.home / "log").mkdir(exist_ok=True)
        self._configure(TEMPLATE)
        tools = self.home / "venv" / "rucio" / "tools" / "bootstrap.py"
        subprocess.run(
            [str(self.python), str(tools)],
            check=True,
            cwd=self.home,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
        )

    def _configure(self, database: str) -> None:
        where = urlsplit(self.admin_url)
        url = f"postgresql+psycopg://rucio:{self.password}@{where.hostname}:{where.port}/{database}"
        site = next((self.home / "venv" / "lib").glob("python3*/site-packages/rucio"))
        values = {"home": self.home, "url": url, "memcached": self.memcached_port, "site": site}
        (self.home / "etc" / "rucio.cfg").write_text(_CONFIGURATION.format(**values))
        (self.home / "etc" / "alembic.ini").write_text(_ALEMBIC.format(**values))

    def _sql(self, *statements: str) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)
