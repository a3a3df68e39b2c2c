"""Start a server in a session of its own and end all of it again, from this process or from another one.

A pid file holds the process id with its start time and the machine's boot id, so that a recycled process id is
never signalled. Nothing here knows what the server is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from servicelib.accounts import Account

POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Identity:
    """One process, not merely a process id.

    Parameters
    ----------
    pid
        Process id; also its session and process group.
    started
        Start time in clock ticks since boot (field 22 of proc(5) stat).
    boot
        The kernel's boot id.
    """

    pid: int
    started: int
    boot: str

    def is_running(self) -> bool:
        """Tell whether this very process lives; a zombie does not."""
        return identify(self.pid) == self


def identify(pid: int) -> Identity | None:
    """Return the identity of a live process, None when it is gone or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] == "Z":
        return None
    return Identity(pid, int(fields[19]), _boot_id())


class _Child(subprocess.Popen[bytes]):
    """A server's first process, which may outlive this handle, or be ended by another one: no reason for a warning."""

    def __del__(self) -> None:
        if self.returncode is None and self.poll() is None:
            self.returncode = 0
        super().__del__()


class Daemon:
    """One server's processes.

    Parameters
    ----------
    home
        Working directory; only processes that work below it are ever taken for orphans of this server.
    pid_path
        Where the identity is kept.
    log_path
        Where standard output and error are appended.
    """

    def __init__(self, home: Path, pid_path: Path, log_path: Path) -> None:
        self.home = home
        self.pid_path = pid_path
        self.log_path = log_path
        self._child: _Child | None = None

    def spawn(self, command: Sequence[str], account: Account, environment: dict[str, str]) -> None:
        """Start the server as `account` and remember it in the pid file."""
        with self.log_path.open("ab") as log:
            self._child = _Child(
                command,
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **account.popen_options(),
            )
        identity = identify(self._child.pid)
        if identity is not None:
            partial = self.pid_path.with_suffix(".part")
            partial.write_text(json.dumps(asdict(identity)))
            partial.replace(self.pid_path)

    def identity(self) -> Identity | None:
        """Return what the pid file says, None without one."""
        try:
            return Identity(**json.loads(self.pid_path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def is_running(self) -> bool:
        """Tell whether the server's first process lives."""
        if self._child is not None and self._child.poll() is not None:
            return False
        identity = self.identity()
        return identity is not None and identity.is_running()

    def exit_code(self) -> int | None:
        """Return the exit code of a server that this process started and that ended, else None."""
        return None if self._child is None else self._child.poll()

    def end(self, ending: signal.Signals, patience: float) -> None:
        """End the server: `ending` to its first process, then SIGKILL to whatever is left of its session.

        Parameters
        ----------
        ending
            The signal that this server takes as a request to end.
        patience
            Seconds until SIGKILL.
        """
        identity = self.identity()
        if identity is None:
            self._reap()
            return
        if identity.is_running():
            with suppress(ProcessLookupError):
                os.kill(identity.pid, ending)
        deadline = time.monotonic() + patience
        while self._remaining(identity) and time.monotonic() < deadline:
            self._poll_child()
            time.sleep(POLL_SECONDS)
        while remaining := self._remaining(identity):
            for pid in remaining:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._poll_child()
            time.sleep(POLL_SECONDS)
        self._reap()
        self.pid_path.unlink(missing_ok=True)

    def _remaining(self, identity: Identity) -> list[int]:
        """Return the live processes of the server's session."""
        if identity.boot != _boot_id():
            return []
        leader_lives = identity.is_running()
        members = []
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
            fields = _stat(pid)
            if fields is None or fields[0] == "Z" or int(fields[3]) != identity.pid:
                continue
            if leader_lives or self._works_here(pid):
                members.append(pid)
        return members

    def _works_here(self, pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(self.home.resolve())
        except OSError:
            return False

    def _poll_child(self) -> None:
        if self._child is not None:
            self._child.poll()

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the command name, of which 0 is the state."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
