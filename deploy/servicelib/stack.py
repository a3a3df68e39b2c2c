"""The set of servers that the tests use: which there are, and how to start and end several at once."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from os import geteuid, getpid
from pathlib import Path

from servicelib.apache import Apache
from servicelib.authority import Authority
from servicelib.errors import MissingPackagesError, ServiceError
from servicelib.postgresql import PostgreSQL
from servicelib.process import Identity, identify
from servicelib.redis import Redis
from servicelib.server import Server
from servicelib.wsgidav import WsgiDav
from servicelib.xrootd import XRootD
from servicelib.xrootd_tokens import XRootDWithTokens

MAKERS: dict[str, Callable[[Path], Server]] = {
    "postgresql": PostgreSQL,
    "redis": Redis,
    "slac": lambda directory: XRootD(directory, "slac"),
    "in2p3": lambda directory: XRootD(directory, "in2p3"),
    "tokens": lambda directory: XRootDWithTokens(directory, "tokens"),
    "apache": Apache,
    "wsgidav": WsgiDav,
}
VARIABLES = {"slac": "XROOTD_SLAC", "in2p3": "XROOTD_IN2P3", "tokens": "XROOTD_TOKENS"}


def new_directory(prefix: str, parent: Path | None = None) -> Path:
    """Create a temporary directory that the servers' accounts can reach.

    Parameters
    ----------
    prefix
        How its name begins.
    parent
        Where; by default where temporary files go.
    """
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    directory.chmod(0o755)
    return directory


class Stack:
    """The servers below one directory.

    Parameters
    ----------
    directory
        An existing directory; what runs there already is found again.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory).absolute()
        self._servers: dict[str, Server] = {}

    @cached_property
    def authority(self) -> Authority:
        """Return the authority that signs for all of them."""
        return Authority(self.directory / "pki")

    def server(self, name: str) -> Server:
        """Return a server by its name, started or not.

        Raises
        ------
        ServiceError
            If there is none of that name.
        """
        if name not in MAKERS:
            raise ServiceError(f"No server is called {name!r}. There are: {', '.join(MAKERS)}.")
        if name not in self._servers:
            self._servers[name] = MAKERS[name](self.directory)
        return self._servers[name]

    def known(self) -> list[Server]:
        """Return the servers that were ever started below the directory."""
        return [self.server(name) for name in MAKERS if self.server(name).is_configured()]

    def missing(self, names: Iterable[str]) -> MissingPackagesError | None:
        """Return what has to be installed for these servers from Debian, None when nothing has.

        Raises
        ------
        ServiceError
            If something is missing that no Debian package brings.
        """
        lacks = {name: lack for name in names if (lack := self.server(name).lacks())}
        if not lacks:
            return None
        for name, lack in lacks.items():
            if not self.server(name).packages:
                raise ServiceError(f"{name}: {lack}")
        packages = dict.fromkeys(package for name in lacks for package in self.server(name).packages)
        return MissingPackagesError(lacks, tuple(packages))

    def start(self, names: Iterable[str]) -> None:
        """Start these servers at the same time, and all of them or none; what ran before goes on.

        Raises
        ------
        ServiceError
            With the message of every server that could not be started.
        """
        servers = [server for server in map(self.server, names) if not server.is_running()]
        with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
            results = [(server, pool.submit(server.start)) for server in servers]
            try:
                failures = [failure for _, result in results if (failure := result.exception())]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                _stop(servers)
                raise
        if failures:
            _stop(servers)
            raise ServiceError("\n".join(str(failure) for failure in failures)) from failures[0]

    def stop(self) -> None:
        """End every server below the directory, at the same time."""
        _stop(self.known())

    def remove(self) -> None:
        """End every server and remove the directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def variables(self) -> dict[str, str]:
        """Return the environment variables that tell a test where everything is."""
        found = {"ARRIERO_TEST_SERVICES_DIR": str(self.directory)}
        if self.authority.ca_bundle.exists():
            found["ARRIERO_TEST_CA_BUNDLE"] = str(self.authority.ca_bundle)
        for server in self.known():
            name = VARIABLES.get(server.name, server.name.upper())
            found.update({f"ARRIERO_TEST_{name}_{end}": text for end, text in server.variables().items()})
        return found


def _stop(servers: Sequence[Server]) -> None:
    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
        for result in [pool.submit(server.stop) for server in servers]:
            result.result()


def claim(directory: Path) -> None:
    """Note that this process answers for the servers below a directory."""
    identity = identify(getpid())
    if identity is not None:
        (directory / "owner.json").write_text(json.dumps(asdict(identity)))


def remove_abandoned(prefix: str, parent: Path | None = None) -> None:
    """End and remove what processes that died without a farewell have claimed and left running.

    Parameters
    ----------
    prefix, parent
        As for `new_directory`.
    """
    for owner in (parent or Path(tempfile.gettempdir())).glob(f"{prefix}*/owner.json"):
        try:
            if owner.parent.stat().st_uid != geteuid():
                continue
            identity = Identity(**json.loads(owner.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if not identity.is_running():
            Stack(owner.parent).remove()
