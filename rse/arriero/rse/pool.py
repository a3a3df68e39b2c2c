"""One protocol object per endpoint and process, shared by all threads.

Connections are worth keeping (a TLS handshake costs more than a small file) and must never cross a fork, where
two children would read each other's answers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points

from arriero.rse.abilities import Abilities
from arriero.rse.errors import Unsupported
from arriero.rse.guard import Guard
from arriero.rse.links import LinkMemory
from arriero.rse.protocol import StorageProtocol
from arriero.rse.types import Endpoint

ENTRY_POINT_GROUP = "arriero.rse.protocols"

Storage = tuple[str, str]
"""RSE and origin: one storage, whatever the credentials."""

ProtocolFactory = Callable[[Endpoint], StorageProtocol]


@cache
def protocol_for(scheme: str) -> ProtocolFactory:
    """Find what implements a scheme: an entry point `arriero.rse.protocols` of that name.

    Raises
    ------
    Unsupported
        If nothing does.
    """
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=scheme):
        factory: ProtocolFactory = entry.load()
        return factory
    known = ", ".join(sorted(entry_points(group=ENTRY_POINT_GROUP).names))
    raise Unsupported(
        f"There is no protocol for {scheme[:40]!r}; register the RSE with one of {known}, "
        f"or install a package that offers it as entry point {ENTRY_POINT_GROUP}."
    )


class ProtocolPool:
    """Hands out protocols; make one per process and keep it.

    Parameters
    ----------
    guard
        Says which endpoints may be talked to.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        self.links = LinkMemory()
        """What copies of this process have learnt of links."""
        self._guard = guard or Guard()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._protocols: dict[Endpoint, StorageProtocol] = {}
        self._told: Mapping[Storage, Abilities] = {}

    def learnt(self) -> dict[Storage, Abilities]:
        """Give what is known by trial of the storages of this pool; asks none of them."""
        found: dict[Storage, Abilities] = {}
        for endpoint, protocol in list(self._protocols.items()):
            proved = protocol.proved
            if proved is not None:
                found[endpoint.rse, endpoint.origin] = proved
        return found

    def believe(self, told: Mapping[Storage, Abilities]) -> None:
        """Take what others have found out of storages, so that those that are new to this pool need no trial."""
        self._told = told

    def get(self, endpoint: Endpoint) -> StorageProtocol:
        """Give the protocol of an endpoint, the same each time within a process.

        Raises
        ------
        Unsupported
            If nothing implements its scheme.
        RefusedByGuard
            If it may not be talked to.
        """
        if self._pid != os.getpid():
            self._after_fork()
        found = self._protocols.get(endpoint)
        if found is None:
            self._guard.check(endpoint)
            made = protocol_for(endpoint.scheme)(endpoint)
            told = self._told.get((endpoint.rse, endpoint.origin))
            if told is not None:
                made.remember(told)
            with self._lock:
                found = self._protocols.setdefault(endpoint, made)
        return found

    def close(self) -> None:
        """Give up all connections."""
        with self._lock:
            protocols = list(self._protocols.values())
            self._protocols.clear()
        for protocol in protocols:
            protocol.close()

    def _after_fork(self) -> None:
        """Forget the parent's protocols without closing the sockets that the parent goes on using."""
        self._lock = threading.Lock()
        self._protocols = {}
        self.links = LinkMemory()
        self._pid = os.getpid()
