"""Copying workers in processes of their own, which die or stop at a named step of their third copy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from arriero.rse import copy, copy_check, copy_ways, thirdparty
from arriero.scheduler import copy_ends, settle_effects, transfer
from arriero.scheduler.held_leases import HeldLeases
from arriero.scheduler.transfer import TransferRunner
from support.dying import Arm, after, around, before, context, die, preload, start, stop

preload(__name__)

THIRD = 3


def _of_third(module: Any, name: str, act: Callable[[], Any], *, done: bool) -> Arm:
    return around(module, name, act, call=THIRD, done=done)


def _die_amid_bytes(folder: Path) -> None:
    """Die while part of a file is at the destination, whoever writes it there."""

    def partly_there() -> bool:
        return any(part.stat().st_size > 0 for part in folder.rglob("*.part"))

    def die_when_partly_there() -> None:
        until = time.monotonic() + 30
        while not partly_there():
            if time.monotonic() > until:
                return
            time.sleep(0.01)
        die()

    _of_third(thirdparty, "follow_report", die_when_partly_there, done=False)()
    watched, calls = copy_ways._watched, iter(range(1, 10**6))

    def cut(pieces: Any, *rest: Any) -> Iterator[bytes]:
        is_third = next(calls) == THIRD
        for number, piece in enumerate(watched(pieces, *rest)):
            if is_third and number:
                die_when_partly_there()
            yield piece

    copy_ways._watched = cut  # type: ignore[assignment]


AMID_BYTES = "copy: bytes partly there"

SOURCE_SEEN = "copy: source looked at"
"""Comes before the bytes where the file is not small."""

STEPS: dict[str, Arm] = {
    "claim: not committed": after(transfer, "take"),
    "claim: committed": before(HeldLeases, "add"),
    SOURCE_SEEN: _of_third(copy_check.Checks, "confirm_source", die, done=True),
    "copy: not begun": _of_third(copy_ways.Ways, "go", die, done=False),
    "copy: bytes there and not verified": _of_third(copy_check.Checks, "arrived", die, done=False),
    "copy: verified and not moved": _of_third(copy._Copy, "_publish", die, done=False),
    "copy: moved and not told": _of_third(copy._Copy, "_publish", die, done=True),
    "settle: not begun": before(copy_ends, "settle"),
    "settle: not committed": after(settle_effects, "settle_requests"),
    "settle: committed and bell not rung": after(copy_ends, "settle"),
}
"""Where a worker can be made to die; besides `AMID_BYTES`."""

LEFT_WHOLE = ("copy: bytes there and not verified", "copy: verified and not moved")
"""Where it leaves a file that is complete and not under its final name."""

SLEEPS: dict[str, Arm] = {
    "asleep: before the bytes": _of_third(copy_ways.Ways, "go", stop, done=False),
    "asleep: before the move": _of_third(copy._Copy, "_publish", stop, done=False),
    "asleep: after the move": _of_third(copy._Copy, "_publish", stop, done=True),
}
"""Where a worker can be made to stop until it is woken."""


def _copy(url: str, settings: Mapping[str, Any], step: str, folder: Path) -> None:
    if step == AMID_BYTES:
        _die_amid_bytes(folder)
    else:
        (STEPS | SLEEPS)[step]()
    TransferRunner(context(url, settings)).run()


def start_copier(url: str, settings: Mapping[str, Any], step: str, folder: Path) -> BaseProcess:
    """Start a worker.

    Parameters
    ----------
    settings
        Its own.
    step
        Where it dies, or stops until it is woken.
    folder
        What the destination shows, as a folder of this machine.
    """
    return start(_copy, url, dict(settings), step, folder)
