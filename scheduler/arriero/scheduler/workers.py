"""What every kind of worker has: a name, a time after which others have a turn, a way to be stopped."""

import os
import socket
import uuid

TIME_BUDGET_S = 60.0
"""How long one call works before it lets others have a turn, seconds."""


def worker_name(kind: str) -> str:
    """Name a lease owner: host, process, and a part that no other worker ever has."""
    return f"{kind}@{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def never() -> bool:
    """Say that nobody has asked a worker to stop."""
    return False
