"""Free TCP ports for private servers.

They are taken below the kernel's range for outgoing connections, so that a server that is killed and started
again finds its port free although thousands of client connections came and went meanwhile.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from servicelib.errors import ServiceError

LOWEST = 15_000
_handed_out: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on, never the same one twice in one process.

    Raises
    ------
    ServiceError
        If 200 random ports were all taken.
    """
    highest = _first_ephemeral_port() - 1
    for _ in range(200):
        port = random.SystemRandom().randint(LOWEST, highest)
        if port not in _handed_out and is_free(port):
            _handed_out.add(port)
            return port
    raise ServiceError(f"No free TCP port between {LOWEST} and {highest}. End some servers and try again.")


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port on every address of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def _first_ephemeral_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        first = 32_768
    return first if first > LOWEST + 1_000 else 32_768
