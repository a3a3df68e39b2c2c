"""Which endpoints may be talked to: nothing is sent to anything else, and no storage is told to.

A URL is never taken from anybody: it is composed of a registered endpoint and a path that cannot leave its prefix,
no redirect is followed, and whoever connects looks where a name has led. What is left is who may be registered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from arriero.rse.errors import RefusedByGuard
from arriero.rse.hosts import address_fault
from arriero.rse.types import WIRE_SCHEMES, Endpoint

PORTS: tuple[range, ...] = (range(80, 81), range(443, 444), range(1024, 65536))
"""Ports of storages unless somebody says otherwise: those of HTTP, and those that need no privilege."""

Address = tuple[str, str, int, str]
"""Scheme, host name, port and prefix."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Says which endpoints may be talked to."""

    schemes: frozenset[str] | None = None
    """Those that may be; None for each that has a protocol."""
    ports: tuple[range, ...] = PORTS
    registered: frozenset[Address] | None = None
    """The only endpoints there are; None where whoever asks has just read them from the catalogue."""

    @classmethod
    def only(cls, endpoints: Iterable[Endpoint]) -> Guard:
        """Let these pass and no others."""
        return cls(registered=frozenset(_address(endpoint) for endpoint in endpoints))

    def check(self, endpoint: Endpoint) -> None:
        """Let an endpoint pass.

        Raises
        ------
        RefusedByGuard
            If it may not be talked to, with the reason.
        """
        fault = self._fault(endpoint)
        if fault:
            raise RefusedByGuard(
                f"RSE {endpoint.rse}: {endpoint.scheme}://{endpoint.hostname}:{endpoint.port} {fault}; nothing was "
                "sent: correct its protocol.",
                rse=endpoint.rse,
            )

    def _fault(self, endpoint: Endpoint) -> str:
        if self.schemes is not None and endpoint.scheme not in self.schemes:
            return f"has a scheme that is not allowed ({', '.join(sorted(self.schemes))} are)"
        if self.registered is not None and _address(endpoint) not in self.registered:
            return "is not registered"
        if endpoint.scheme not in WIRE_SCHEMES:
            return ""
        if endpoint.port and not any(endpoint.port in ports for ports in self.ports):
            return "has a port that is not allowed"
        fault = address_fault(endpoint.hostname)
        return f"is at an address that {fault}" if fault else ""


def _address(endpoint: Endpoint) -> Address:
    return endpoint.scheme, endpoint.hostname.lower(), endpoint.port, endpoint.root
