"""Who a private server runs as: never root.

PostgreSQL and XRootD refuse to run as root, and the others should not. An ordinary user starts everything as
himself.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servicelib.errors import ServiceError


@dataclass(frozen=True)
class Account:
    """A Unix account to start programs as and to give files to."""

    name: str
    uid: int
    gid: int

    @classmethod
    def current(cls) -> Account:
        """Return the account of this process."""
        return cls(str(os.geteuid()), os.geteuid(), os.getegid())

    def popen_options(self) -> dict[str, Any]:
        """Return the options of `subprocess.Popen` that drop privileges; none are needed for oneself."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, *paths: Path) -> None:
        """Give files or directories (not their contents) to this account."""
        if self.uid != os.geteuid():
            for path in paths:
                os.chown(path, self.uid, self.gid)

    def can_run(self, command: Iterable[str]) -> bool:
        """Tell whether this account can run a command: it may not reach a Python below /root."""
        try:
            done = subprocess.run(
                list(command), check=False, cwd="/", capture_output=True, timeout=20, **self.popen_options()
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return done.returncode == 0


def unprivileged(*names: str) -> Account:
    """Return the account for a server.

    Parameters
    ----------
    names
        For root: the accounts to try, in this order, before `nobody`. Ignored for anybody else.

    Raises
    ------
    ServiceError
        If root finds none of them.
    """
    if os.geteuid() != 0:
        return Account.current()
    for name in (*names, "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise ServiceError(f"None of the accounts {', '.join((*names, 'nobody'))} exists. Create one of them.")


def python_for(account: Account) -> str:
    """Return a Python interpreter that this account can run.

    Raises
    ------
    ServiceError
        If there is none.
    """
    for interpreter in ("/usr/bin/python3", "/usr/local/bin/python3", sys.executable):
        if Path(interpreter).exists() and account.can_run([interpreter, "-I", "-c", "import zlib, struct"]):
            return interpreter
    raise ServiceError(
        f"The account {account.name} can run no Python here. Install one with: apt-get install --yes python3"
    )
