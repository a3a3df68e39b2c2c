"""Deletion in processes of their own, which can be killed at any instant or at a named step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
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


STEPS: Mapping[str, Callable[[], None]] = {
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


def context(url: str, settings: Mapping[str, Any]) -> Context:
    """What a worker of its own process works with."""
    database = Database(url, pool_size=4)
    return Context(database, Settings(database_url=url, **settings), SilentDoorbell())


def _reap(url: str, settings: Mapping[str, Any], step: str | None, seconds: float) -> None:
    if step is not None:
        STEPS[step]()
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
        Where it dies; None: it does not.
    seconds
        How long it looks for work again and again.
    """
    process = _CONTEXT.Process(target=_reap, args=(url, dict(settings), step, seconds), daemon=True)
    process.start()
    return process
