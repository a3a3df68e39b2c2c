"""WsgiDAV from PyPI as a storage element: what the demo uses on a machine without any server installed.

It needs the project's virtual environment; the module itself does not.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import ClassVar

from servicelib.accounts import Account
from servicelib.server import WebDavServer


class WsgiDav(WebDavServer):
    """A private WsgiDAV server, as a process of this Python and of this account (its Python may be private).

    Parameters
    ----------
    directory, name, data_root
        As for `WebDavServer`.
    python
        The interpreter that has WsgiDAV and cheroot; by default this one.
    """

    kind = "wsgidav"
    threads: ClassVar[int] = 16

    def __init__(
        self,
        directory: Path | str,
        name: str = "wsgidav",
        *,
        data_root: Path | str | None = None,
        python: str = sys.executable,
    ) -> None:
        super().__init__(directory, name, data_root=data_root)
        self.account = Account.current()
        self.python = python

    @classmethod
    def lacks(cls) -> str | None:
        for module in ("wsgidav", "cheroot"):
            if importlib.util.find_spec(module) is None:
                return f"no Python package {module} for {sys.executable}: run `make venv` and use .venv/bin/python"
        return None

    def configure(self) -> None:
        super().configure()
        configuration = {
            "host": "127.0.0.1",
            "port": self.port,
            "provider_mapping": {"/": str(self.data_root)},
            "simple_dc": {"user_mapping": {"*": True}},
            "server_args": {"numthreads": self.threads, "request_queue_size": 128},
            "dir_browser": {"enable": False},
            "verbose": 3,
        }
        (self.home / "wsgidav.json").write_text(json.dumps(configuration))

    def command(self) -> list[str]:
        return [self.python, "-m", "wsgidav.server.server_cli", "--config", str(self.home / "wsgidav.json")]

    def answers(self) -> bool:
        return self.request("PROPFIND", f"{self.url}/", {"Depth": "0"}) == 207
