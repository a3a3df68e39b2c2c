"""Workers in processes of their own that die, or are stopped until they are woken, at a named step."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from arriero.registry.database import Database
from arriero.registry.ports import SilentDoorbell
from arriero.registry.services.context import Context
from arriero.registry.settings import Settings

Arm = Callable[[], None]
"""Has this process die or stop when it comes to a step."""

_CONTEXT = multiprocessing.get_context("forkserver")
_TESTS = str(Path(__file__).resolve().parents[1])
_preloaded: list[str] = []


def preload(module: str) -> None:
    """Have a module imported by the process that workers are forked from."""
    _preloaded.append(module)
    _CONTEXT.set_forkserver_preload(_preloaded)


def start(work: Callable[..., None], *given: Any) -> BaseProcess:
    """Do some work in a process of its own, forked from one that has imported the modules.

    That one is told where the tests are: it is not given `sys.path`, and passes over what it cannot import.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", _TESTS)
        forkserver.ensure_running()
    process = _CONTEXT.Process(target=work, args=given, daemon=True)
    process.start()
    return process


def die(*_: object, **__: object) -> Any:
    """Be killed, at once."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def stop() -> None:
    """Be stopped, all of the process, until somebody wakes it."""
    os.kill(os.getpid(), signal.SIGSTOP)
    # this thread may run on for a moment
    time.sleep(0.5)


def before(module: Any, name: str) -> Arm:
    """Die instead of something."""
    return lambda: setattr(module, name, die)


def after(module: Any, name: str) -> Arm:
    """Die when something has been done."""
    return around(module, name, die, call=1, done=True)


def around(module: Any, name: str, act: Callable[[], Any], *, call: int, done: bool) -> Arm:
    """Act before or after one of several calls of something.

    Parameters
    ----------
    call
        Which; 1 is the first.
    done
        After it.
    """

    def arm() -> None:
        was, calls = getattr(module, name), itertools.count(1)

        def work(*args: Any, **options: Any) -> Any:
            is_it = next(calls) == call
            if is_it and not done:
                act()
            answer = was(*args, **options)
            if is_it and done:
                act()
            return answer

        setattr(module, name, work)

    return arm


def is_asleep(process: BaseProcess) -> bool:
    """Whether a worker has come to where it stops."""
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def wait_until(happened: Callable[[], bool], otherwise: str) -> None:
    """Wait for something that another process does."""
    until = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < until, otherwise
        time.sleep(0.02)


def context(url: str, settings: Mapping[str, Any]) -> Context:
    """What a worker of its own process works with."""
    database = Database(url, pool_size=4)
    return Context(database, Settings(database_url=url, **settings), SilentDoorbell())
