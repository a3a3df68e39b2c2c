"""A private Redis that keeps nothing: losing it must cost nothing but latency."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

from servicelib.errors import ServiceError
from servicelib.programs import find_program
from servicelib.server import Server

_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {home}
save ""
appendonly no
daemonize no
"""


class Redis(Server):
    """A private Redis with a password of its own and without persistence.

    Parameters
    ----------
    directory, name
        As for `Server`.

    Attributes
    ----------
    url
        `redis://:PASSWORD@127.0.0.1:PORT/0`.
    """

    kind = "redis"
    packages = ("redis-server",)
    accounts = ("redis",)

    def __init__(self, directory: Path | str, name: str = "redis") -> None:
        super().__init__(directory, name)
        self.url = self.database_url(0)

    @classmethod
    def lacks(cls) -> str | None:
        return None if find_program("redis-server") else "no redis-server"

    def new_settings(self) -> dict[str, str | int]:
        return {**super().new_settings(), "password": secrets.token_urlsafe(24)}

    def configure(self) -> None:
        self.write_private(
            self.home / "redis.conf",
            _CONFIGURATION.format(port=self.port, password=self.settings["password"], home=self.home),
        )

    def command(self) -> list[str]:
        return [str(find_program("redis-server")), str(self.home / "redis.conf")]

    def answers(self) -> bool:
        return self._ask("PING") == "+PONG"

    def variables(self) -> dict[str, str]:
        return {**super().variables(), "URL": self.url}

    def database_url(self, number: int) -> str:
        """Return the URL of one of the 16 databases."""
        return f"redis://:{self.settings['password']}@127.0.0.1:{self.port}/{number}"

    def flush(self) -> None:
        """Forget everything, as a restarted broker would.

        Raises
        ------
        ServiceError
            With what Redis said.
        """
        answer = self._ask("FLUSHALL")
        if answer != "+OK":
            raise ServiceError(f"{self.name} refused FLUSHALL: {answer}")

    def _ask(self, command: str) -> str:
        """Send one inline command with authentication and return the first line of its answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(f"AUTH {self.settings['password']}\r\n{command}\r\n".encode())
            with connection.makefile("rb") as answers:
                answers.readline()
                return answers.readline().decode().strip()
