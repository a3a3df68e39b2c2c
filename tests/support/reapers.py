"""Deletion in processes of their own, which can be killed at any instant or at a named step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from arriero.registry.database import Database
from arriero.registry.ports import SilentDoorbell
from arriero.registry.services.context import Context
from arriero.registry.settings import Settings
from arriero.scheduler import (
    deletion_claim,
    deletion_effects,
    deletion_leases,
    deletion_mark,
    deletion_run,
    deletion_site,
)
from arriero.scheduler.deletion_run import DeletionRunner
from arriero.scheduler.deletion_sweep import sweep_deletions

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


def _die(*_: object, **__: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _before(module: Any, name: str) -> Callable[[], None]:
    return lambda: setattr(module, name, _die)


def _after(module: Any, name: str) -> Callable[[], None]:
    def arm() -> None:
        done = getattr(module, name)

        def work(*args: Any, **options: Any) -> Any:
            done(*args, **options)
            _die()

        setattr(module, name, work)

    return arm


def _around_a_request(*, sent: bool) -> Callable[[], None]:
    """Die before or after the third request to the storage."""

    def arm() -> None:
        made, asked = deletion_site.remover, iter(range(10**6))

        def remover(protocol: Any, algorithm: str) -> Any:
            remove = made(protocol, algorithm)

            def counted(one: Any) -> Any:
                third = next(asked) == 2
                if third and not sent:
                    _die()
                report = remove(one)
                if third:
                    _die()
                return report

            return counted

        deletion_site.remover = remover

    return arm


STEPS: dict[str, Callable[[], None]] = {
    "mark: in the database and not on the storage": _before(deletion_mark, "_write"),
    "mark: on the storage and not noted": _before(deletion_mark, "_note"),
    "claim: not committed": _before(deletion_claim._Claiming, "_taken"),
    "claim: committed": _before(deletion_leases.DeletionLeases, "add"),
    "storage: not asked": _around_a_request(sent=False),
    "storage: has answered": _around_a_request(sent=True),
    "settle: not begun": _before(deletion_site, "settle_deletions"),
    "settle: not committed": _after(deletion_effects, "finish"),
    "settle: committed": _after(deletion_site, "settle_deletions"),
    "run: ended": _after(deletion_run, "_figures"),
}
"""Where a worker can be made to die."""


def _fall_asleep(*, before: bool) -> Callable[[], None]:
    """Be stopped, all of the process, before or after it is asked whether the third deletion is held still."""

    def arm() -> None:
        asked, of_next = deletion_leases.DeletionLeases.is_held, iter(range(10**6))

        def is_held(self: Any, one: Any) -> bool:
            third = next(of_next) == 2
            if third and before:
                _stop()
            answer = asked(self, one)
            if third and not before:
                _stop()
            return answer

        deletion_leases.DeletionLeases.is_held = is_held  # type: ignore[method-assign]

    return arm


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    # this thread may run on for a moment
    time.sleep(0.5)


SLEEPS: dict[str, Callable[[], None]] = {
    "asleep: before it asks whether it may": _fall_asleep(before=True),
    "asleep: between that and the request": _fall_asleep(before=False),
}
"""Where a worker can be made to stop until it is woken."""


def is_asleep(process: BaseProcess) -> bool:
    """Whether a worker has come to where it stops."""
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def context(url: str, settings: Mapping[str, Any]) -> Context:
    """What a worker of its own process works with."""
    database = Database(url, pool_size=4)
    return Context(database, Settings(database_url=url, **settings), SilentDoorbell())


def _reap(url: str, settings: Mapping[str, Any], step: str | None, seconds: float) -> None:
    if step is not None:
        (STEPS | SLEEPS)[step]()
    made = context(url, settings)
    until = time.monotonic() + seconds
    while True:
        DeletionRunner(made).run()
        if time.monotonic() > until:
            return
        sweep_deletions(made)
        time.sleep(0.05)


def start_reaper(
    url: str, settings: Mapping[str, Any], *, step: str | None = None, seconds: float = 0.0
) -> BaseProcess:
    """Start a worker.

    Parameters
    ----------
    settings
        Its own.
    step
        Where it dies, or stops until it is woken; None: nowhere.
    seconds
        How long it looks for work again and again.
    """
    process = _CONTEXT.Process(target=_reap, args=(url, dict(settings), step, seconds), daemon=True)
    process.start()
    return process
