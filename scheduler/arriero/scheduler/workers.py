"""What every kind of worker has: a name, a time after which others have a turn, a way to be stopped."""

import os
import socket
import time
import uuid
from collections.abc import Callable

from arriero.registry.ports import Bell
from arriero.registry.services.context import Context

TIME_BUDGET_S = 60.0
"""How long one call works before it lets others have a turn, seconds."""


def worker_name(kind: str) -> str:
    """Name a lease owner: host, process, and a part that no other worker ever has."""
    return f"{kind}@{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def never() -> bool:
    """Say that nobody has asked a worker to stop."""
    return False


def take_turns(
    context: Context,
    bell: Bell,
    turn: Callable[[], int | None],
    *,
    budget_s: float,
    stopping: Callable[[], bool],
) -> int:
    """Do one turn after the other, until nothing is due or the time is up; then the bell is rung for the rest.

    Parameters
    ----------
    turn
        Gives how much has ended, None when nothing was due.
    stopping
        Asked between turns; True ends them.

    Returns
    -------
    int
        How much has ended.
    """
    ended = 0
    until = time.monotonic() + budget_s
    while not stopping():
        if time.monotonic() >= until:
            context.doorbell.ring(bell)
            break
        more = turn()
        if more is None:
            break
        ended += more
    return ended
