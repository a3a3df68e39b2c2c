"""A whole installation of Arriero as separate processes, as an operator would start them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
ARRIERO = str(BIN / "arriero")
CELERY = str(BIN / "celery")


def wait_until(
    condition: Callable[[], bool],
    what: str,
    *,
    timeout_s: float = 60,
    every_s: float = 0.2,
    instead: Callable[[], object] = str,
) -> None:
    """Wait for a condition; fail with what it was, and what there is instead, when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s:g} s still not so: {what}; instead: {instead()}")
        time.sleep(every_s)


class Process:
    """One process of the installation, in a group of its own, its output in a file.

    Parameters
    ----------
    command
        What to run.
    log
        Where its output goes.
    environment
        All of its environment but PATH and HOME: nothing leaks in from the test's own.
    """

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**base, **environment},
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_line(self, pattern: str, *, timeout_s: float = 60) -> re.Match[str]:
        """Wait for a line in the output; fail with the output when the process ends before it comes."""
        deadline = time.monotonic() + timeout_s
        while True:
            if match := re.search(pattern, self.output, re.MULTILINE):
                return match
            if not self.is_running:
                raise AssertionError(
                    f"{self.log.stem} ended ({self._popen.returncode}):\n{self.output[-4000:]}"
                )
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.log.stem} did not say {pattern!r}:\n{self.output[-4000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL the process and all of its children, as a machine that dies would."""
        os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def stop(self, *, timeout_s: float = 15) -> int:
        """Ask it to end; kill what does not. Return the exit code."""
        if self.is_running:
            os.killpg(self.pid, signal.SIGTERM)
            try:
                self._popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._popen.returncode

    def interrupt(self, *, timeout_s: float = 30) -> int:
        """Press Ctrl-C; return the exit code."""
        os.killpg(self.pid, signal.SIGINT)
        return self._popen.wait(timeout_s)


class Installation:
    """Starts processes and runs commands with one set of settings.

    Parameters
    ----------
    directory
        Logs and files of the installation.
    settings
        ``ARRIERO_*`` variables of the central processes.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.directory = directory
        self.settings = dict(settings)
        self.client: dict[str, str] = {}
        self._processes: list[Process] = []

    def start(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start a central process, or one with another environment."""
        process = Process(
            list(command),
            self.directory / f"{name}.log",
            self.settings if environment is None else environment,
        )
        self._processes.append(process)
        return process

    def start_service(self) -> str:
        """Start ``arriero serve`` on a free port; return its URL and use it for `arriero`."""
        process = self.start("serve", ARRIERO, "serve", "--port", "0")
        url = process.wait_for_line(r"^Arriero serves (http://\S+)").group(1)
        self.client["ARRIERO_URL"] = url
        return url

    def start_worker(self, name: str, *, queues: str, concurrency: int = 2) -> Process:
        """Start a Celery worker process and wait until it consumes."""
        process = self.start(
            name,
            CELERY,
            *("-A", "arriero.scheduler.app", "worker", "-Q", queues, "-c", str(concurrency)),
            *("-n", f"{name}@%h", "--without-gossip", "--without-mingle", "--loglevel", "INFO"),
        )
        process.wait_for_line(r"ready\.")
        return process

    def start_beat(self) -> Process:
        """Start Celery's beat."""
        schedule = self.directory / "beat"
        return self.start(
            "beat",
            CELERY,
            "-A",
            "arriero.scheduler.app",
            "beat",
            "--schedule",
            str(schedule),
            "--loglevel",
            "INFO",
        )

    def run(self, *command: str, expect: int = 0, central: bool = False) -> str:
        """Run ``arriero`` and return what it printed; fail unless it ends with `expect`."""
        base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        done = subprocess.run(
            [ARRIERO, *command],
            env={**base, **(self.settings if central else self.client)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == expect, (
            f"arriero {' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout if expect == 0 else done.stdout + done.stderr

    def stop(self) -> None:
        """End every process that was started, in the reverse order."""
        for process in reversed(self._processes):
            process.stop()


@contextmanager
def installation(directory: Path, settings: Mapping[str, str]) -> Iterator[Installation]:
    """Give an installation whose processes are all gone afterwards."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Installation(directory, settings)
    try:
        yield made
    finally:
        made.stop()
