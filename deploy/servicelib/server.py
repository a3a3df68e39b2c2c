"""What every private server has in common: a directory of its own, ports, a start that waits for a real answer,
and an end that leaves nothing.

A server object is also the handle of a server that another process started: made again on the same directory it
has the same ports and secrets, and can ask, end and start it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from servicelib.accounts import Account, unprivileged
from servicelib.errors import MissingPackagesError, ServiceError, StartError
from servicelib.ports import free_port
from servicelib.process import POLL_SECONDS, Daemon

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Server(ABC):
    """One private instance of one program.

    Parameters
    ----------
    directory
        Where the server's own directory, called `name`, is or will be. Every account must be able to reach it
        (mode 0755 upwards), since the server does not run as root.
    name
        The server's name, also in messages.

    Attributes
    ----------
    home
        The server's own directory.
    log_path
        Its log.
    account
        Who it runs as.
    """

    kind: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    accounts: ClassVar[tuple[str, ...]] = ()
    ports: ClassVar[tuple[str, ...]] = ("port",)
    ending: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, directory: Path | str, name: str) -> None:
        self.name = name
        self.home = Path(directory).absolute() / name
        self.log_path = self.home / f"{self.kind}.log"
        # Beside the home and not in it, since that belongs to the server's account.
        self._state_path = self.home.parent / f"{name}.json"
        self.account: Account = unprivileged(*self.accounts)
        self.settings: dict[str, str | int] = self._saved() or self.new_settings()
        self._daemon = Daemon(self.home, self.home.parent / f"{name}.pid", self.log_path)

    @classmethod
    @abstractmethod
    def lacks(cls) -> str | None:
        """Return what is missing on this machine to run such a server, in words; None when nothing is."""

    @abstractmethod
    def configure(self) -> None:
        """Write the configuration and data directories, at the first start only."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether the server does its job; raise OSError or return False when it does not yet."""

    def variables(self) -> dict[str, str]:
        """Return what a test wants to know, by the end of the variable's name (`URL`, `DATA_DIR`)."""
        return {"LOG": str(self.log_path)}

    def new_settings(self) -> dict[str, str | int]:
        """Return the settings of a new server, which are kept in its directory: its ports and secrets."""
        return {name: free_port() for name in self.ports}

    @property
    def port(self) -> int:
        """The TCP port, on 127.0.0.1."""
        return int(self.settings["port"])

    def start(self, timeout: float = 30.0) -> None:
        """Start the server, or start it again with the same data and ports, and return when it answers.

        Parameters
        ----------
        timeout
            Seconds that it may take.

        Raises
        ------
        MissingPackagesError
            If the program is not installed.
        StartError
            If it ended at once or did not answer in time; it is ended then.
        """
        if self.is_running():
            return
        if lack := self.lacks():
            raise MissingPackagesError({self.name: lack}, self.packages)
        if not self.is_configured():
            self.home.mkdir(parents=True, exist_ok=True)
            self.account.own(self.home)
            if not self.account.can_run(["test", "-x", str(self.home)]):
                raise ServiceError(
                    f"{self.name} runs as {self.account.name}, who cannot enter {self.home.parent}. "
                    "Name a directory that everybody may enter with --dir, or set TMPDIR to one."
                )
            self.log_path.touch()
            self.account.own(self.log_path)
            self.configure()
            self._save()
        self._daemon.spawn(self.command(), self.account, self._environment())
        try:
            self._wait(timeout)
        except BaseException:
            self.kill()
            raise

    def stop(self, patience: float = 5.0) -> None:
        """End the server in good order; after `patience` seconds, by force."""
        self._daemon.end(self.ending, patience)

    def kill(self) -> None:
        """End the server at once with SIGKILL, as a crash would."""
        self._daemon.end(signal.SIGKILL, 0.0)

    def is_configured(self) -> bool:
        """Tell whether this server was ever started here."""
        return self._state_path.exists()

    def pid(self) -> int | None:
        """Return the server's first process, None before it was started."""
        identity = self._daemon.identity()
        return None if identity is None else identity.pid

    def is_running(self) -> bool:
        """Tell whether the server's process lives."""
        return self._daemon.is_running()

    def make_directory(self, path: Path, mode: int = 0o755) -> Path:
        """Create a directory that belongs to the server's account."""
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        self.account.own(path)
        return path

    def write_private(self, path: Path, content: str) -> Path:
        """Write a file that only the server's account and root can read."""
        path.touch(mode=0o600)
        path.write_text(content)
        self.account.own(path)
        return path

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        last: Exception | None = None
        while True:
            if not self._daemon.is_running():
                code = self._daemon.exit_code()
                raise StartError(self.name, f"ended at once (exit code {code})", self.log_path)
            try:
                if self.answers():
                    return
            except (OSError, http.client.HTTPException) as error:
                last = error
            if time.monotonic() > deadline:
                cause = f"did not answer rightly within {timeout:g} s" + (f" ({last})" if last else "")
                raise StartError(self.name, cause, self.log_path)
            time.sleep(POLL_SECONDS)

    def _environment(self) -> dict[str, str]:
        """Return a clean environment: proxies and settings of the person who started it do not leak in."""
        return {"PATH": SYSTEM_PATH, "HOME": str(self.home), "LANG": "C.UTF-8", "TZ": "UTC"}

    def _saved(self) -> dict[str, str | int] | None:
        try:
            return dict(json.loads(self._state_path.read_text())["settings"])
        except (OSError, ValueError, KeyError):
            return None

    def _save(self) -> None:
        path = self._state_path
        partial = path.with_suffix(".part")
        content = {"kind": self.kind, "name": self.name, "settings": self.settings}
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(content))
        partial.replace(path)


class WebDavServer(Server):
    """A storage element that speaks WebDAV.

    Parameters
    ----------
    directory, name
        As for `Server`.
    data_root
        Directory that the server shows as `/`; by default `data` in its home. Another one, such as a small
        tmpfs, must be writable for `account`.

    Attributes
    ----------
    url
        `http://127.0.0.1:PORT/rucio`, without a slash at its end.
    https_url
        The same over TLS, None where the server offers none.
    data_dir
        The directory that `url` shows.
    ca_bundle
        The certificate that signed the server's, None without TLS.
    token
        The bearer token that the server asks for, None when it asks for none.
    """

    prefix: ClassVar[str] = "/rucio"
    third_party_copy: ClassVar[bool] = False

    def __init__(self, directory: Path | str, name: str, *, data_root: Path | str | None = None) -> None:
        self._given_data_root = data_root
        super().__init__(directory, name)
        self.data_root = Path(str(self.settings["data_root"]))
        self.data_dir = self.data_root / self.prefix.strip("/")
        self.url = f"http://127.0.0.1:{self.port}{self.prefix}"
        self.https_url: str | None = None
        self.ca_bundle: Path | None = None
        self.token: str | None = None

    def new_settings(self) -> dict[str, str | int]:
        root = Path(self._given_data_root).absolute() if self._given_data_root else self.home / "data"
        return {**super().new_settings(), "data_root": str(root)}

    def configure(self) -> None:
        if not self._given_data_root:
            self.make_directory(self.data_root)
        self.make_directory(self.data_dir)

    def write_file(self, relative: str, content: bytes) -> Path:
        """Put a file into the storage behind the server's back, owned as if it had written it.

        Parameters
        ----------
        relative
            Path below `data_dir`; missing directories are created.
        content
            The bytes.

        Returns
        -------
        path
            Where it lies.
        """
        path = self.data_dir / relative
        missing = [parent for parent in path.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir()
            self.account.own(parent)
        path.write_bytes(content)
        self.account.own(path)
        return path

    def variables(self) -> dict[str, str]:
        found = {**super().variables(), "URL": self.url, "DATA_DIR": str(self.data_dir)}
        if self.https_url:
            found["HTTPS_URL"] = self.https_url
        return found

    def request(self, method: str, url: str, headers: dict[str, str] | None = None) -> int:
        """Send one request without body over plain HTTP and return the status of the answer."""
        parts = urllib.parse.urlsplit(url)
        with _connection(parts.hostname or "", parts.port or 80) as connection:
            connection.request(method, parts.path, headers={"Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            answer.read()
            return answer.status


@contextlib.contextmanager
def _connection(host: str, port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        yield connection
    finally:
        connection.close()
