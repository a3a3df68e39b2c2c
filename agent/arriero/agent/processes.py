"""Assembles the central processes: the one place that knows registry, scheduler and web server together.

The registry's ports are filled here with what the scheduler offers (DESIGN section 3).
"""

import gc
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from typing_extensions import override

from arriero.agent.errors import AddressInUse
from arriero.registry.app import create_app
from arriero.registry.services.context import Context

log = structlog.get_logger(__name__)

SHUTDOWN_GRACE_S = 5
"""How long calls under way may still take when the service ends, seconds."""


class _AnnouncingServer(uvicorn.Server):
    """Tells when calls are answered, which is later than when the process has started."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # what is there now stays: to look at it again and again takes every call of that moment 0.1 s
            gc.collect()
            gc.freeze()
            self._ready()


def listen(host: str, port: int) -> socket.socket:
    """Bind the service's socket.

    Parameters
    ----------
    host, port
        Port 0 takes a free one.

    Raises
    ------
    AddressInUse
        Another process listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol is named, or asyncio leaves Nagle's algorithm on and every small answer waits 40 ms
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise AddressInUse(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what listens there or choose another --port"
        ) from error
    return bound


def url_of(bound: socket.socket) -> str:
    """Where the service bound to this socket is reached, as a URL."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(context: Context, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Answer calls until SIGINT or SIGTERM; returns when the last call under way has ended.

    Parameters
    ----------
    context
        What the services work with.
    bound
        From `listen`; closed at the end.
    ready
        Called once, when calls are answered.
    """
    config = uvicorn.Config(
        create_app(context),
        log_config=None,
        access_log=False,
        server_header=False,
        # who a proxy says it speaks for is no peer: only the real one may be in x509_proxies
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
    )
    with bound, _signals_left_alone():
        _AnnouncingServer(config, ready).run(sockets=[bound])


@contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Swallow the KeyboardInterrupt that uvicorn raises again after a clean end."""
    try:
        yield
    except KeyboardInterrupt:
        if threading.current_thread() is not threading.main_thread():
            raise
