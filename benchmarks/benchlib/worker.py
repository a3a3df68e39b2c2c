"""The near end of a worker process, and servers that answer HTTP."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError


class WorkerFailed(RuntimeError):
    """A command failed in the worker; the message is its traceback."""


class Worker:
    """A process that works for one side in core."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, command: str, **arguments: Any) -> Any:
        """Have a command done and wait for its answer.

        Raises
        ------
        WorkerFailed
            With what went wrong there.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise WorkerFailed(f"the worker ended during {command}")
        read = json.loads(answer)
        if "error" in read:
            raise WorkerFailed(f"{command}: {read['error']}")
        return read["ok"]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


class Server:
    """A server process that is asked over HTTP.

    Parameters
    ----------
    log
        Where its output goes.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], url: str, log: Path) -> None:
        self.url = url
        with log.open("ab") as out:
            self._process = subprocess.Popen(command, env=dict(environment), stdout=out, stderr=out)
        self.pid = self._process.pid
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not answer; see {log}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ping", timeout=5) as answer:  # noqa: S310 - ours
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)
