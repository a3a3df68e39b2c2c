"""Deletion in processes of their own, which can be killed at any instant or at a named step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from typing import Any

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
from support.dying import after, before, context, die, is_asleep, preload, start, stop, wait_until

__all__ = ["SLEEPS", "STEPS", "is_asleep", "start_reaper", "wait_until"]

preload(__name__)


def _around_a_request(*, sent: bool) -> Callable[[], None]:
    """Die before or after the third request to the storage."""

    def arm() -> None:
        made, asked = deletion_site.remover, iter(range(10**6))

        def remover(protocol: Any, algorithm: str) -> Any:
            remove = made(protocol, algorithm)

            def counted(one: Any) -> Any:
                third = next(asked) == 2
                if third and not sent:
                    die()
                report = remove(one)
                if third:
                    die()
                return report

            return counted

        deletion_site.remover = remover

    return arm


STEPS: dict[str, Callable[[], None]] = {
    "mark: in the database and not on the storage": before(deletion_mark, "_write"),
    "mark: on the storage and not noted": before(deletion_mark, "_note"),
    "claim: not committed": before(deletion_claim._Claiming, "_taken"),
    "claim: committed": before(deletion_leases.DeletionLeases, "add"),
    "storage: not asked": _around_a_request(sent=False),
    "storage: has answered": _around_a_request(sent=True),
    "settle: not begun": before(deletion_site, "settle_deletions"),
    "settle: not committed": after(deletion_effects, "finish"),
    "settle: committed": after(deletion_site, "settle_deletions"),
    "run: ended": after(deletion_run, "_figures"),
}
"""Where a worker can be made to die."""


def _stop_between_transactions(leases: deletion_leases.DeletionLeases) -> None:
    """Stop when no other thread holds anything in the database, which nobody else could take then."""
    pool: Any = leases._database.engine.pool
    while pool.checkedout():
        time.sleep(0.005)
    stop()


def _fall_asleep(*, before: bool) -> Callable[[], None]:
    """Be stopped, all of the process, before or after it is asked whether the third deletion is held still."""

    def arm() -> None:
        asked, of_next = deletion_leases.DeletionLeases.is_held, iter(range(10**6))

        def is_held(self: Any, one: Any) -> bool:
            third = next(of_next) == 2
            if third and before:
                _stop_between_transactions(self)
            answer = asked(self, one)
            if third and not before:
                _stop_between_transactions(self)
            return answer

        deletion_leases.DeletionLeases.is_held = is_held  # type: ignore[method-assign]

    return arm


SLEEPS: dict[str, Callable[[], None]] = {
    "asleep: before it asks whether it may": _fall_asleep(before=True),
    "asleep: between that and the request": _fall_asleep(before=False),
}
"""Where a worker can be made to stop until it is woken."""


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
    return start(_reap, url, dict(settings), step, seconds)
