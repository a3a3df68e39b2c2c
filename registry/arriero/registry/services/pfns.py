"""From replicas to PFNs and back, through the protocols of an RSE."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote, urlsplit

from sqlalchemy import RowMapping

from arriero.registry.errors import InvalidInput
from arriero.registry.store.rses import Rse
from arriero.rse.errors import RSEError
from arriero.rse.lfn2pfn import hash_path, identity_path, lsst_butler_path, path_for
from arriero.rse.paths import safe_path
from arriero.rse.types import Endpoint

DEFAULT_PORTS = {"http": 80, "https": 443, "dav": 80, "davs": 443}

MAX_PFN_CHARACTERS = 4000


_PLAIN = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*", re.ASCII).fullmatch
"""Paths that are safe and that nothing in a URL quotes: nearly all. Each of a long list costs a tenth."""

_PLAIN_CHARACTERS = 200
_BUILT_IN: Mapping[str, Callable[[str, str], str]] = {
    "hash": hash_path,
    "identity": identity_path,
    "lsst_butler": lsst_butler_path,
}


class Access:
    """One way to read the files of an RSE.

    Parameters
    ----------
    domain
        In which it reads.
    priority
        Of the protocol there.
    """

    __slots__ = ("_base", "_path_of", "domain", "endpoint", "priority", "rse")

    def __init__(self, rse: Rse, endpoint: Endpoint, domain: str, priority: int) -> None:
        self.rse = rse
        self.endpoint = endpoint
        self.domain = domain
        self.priority = priority
        self._base = endpoint.pfn("x").removesuffix("x")
        self._path_of: Callable[[str, str], str] = _BUILT_IN.get(
            rse.algorithm, partial(path_for, rse.algorithm)
        )

    def pfn(self, scope: str, name: str, path: str | None) -> str:
        """PFN of a replica.

        Parameters
        ----------
        path
            As stored; None where it follows from the name.
        """
        below = path or self._path_of(scope, name)
        if len(below) <= _PLAIN_CHARACTERS and _PLAIN(below):
            return self._base + below
        return self.endpoint.pfn(below)


def ways_to_read(
    rse: Rse,
    protocols: Sequence[RowMapping],
    *,
    schemes: frozenset[str] | None,
    domain: str,
) -> list[Access]:
    """Protocols of an RSE that read in a domain, the best first.

    Parameters
    ----------
    schemes
        Only these; None for all.
    domain
        ``wan``, ``lan`` or ``all``.
    """
    domains = ("wan", "lan") if domain == "all" else (domain,)
    found = []
    for protocol in protocols:
        if schemes is not None and protocol["scheme"] not in schemes:
            continue
        offered = [
            (priority, name)
            for name in domains
            if (priority := ((protocol["domains"] or {}).get(name) or {}).get("read") or 0) > 0
        ]
        if offered:
            priority, name = min(offered)
            found.append(Access(rse, endpoint_of(rse.name, protocol), name, priority))
    return sorted(found, key=lambda access: access.priority)


def endpoint_of(rse: str, protocol: RowMapping) -> Endpoint:
    """Endpoint that a protocol's row describes, without credentials."""
    return Endpoint(rse, protocol["scheme"], protocol["hostname"], protocol["port"], protocol["prefix"])


@dataclass(frozen=True, slots=True)
class UrlParts:
    """A PFN taken apart."""

    scheme: str
    hostname: str
    port: int | None
    paths: tuple[str, ...]
    """Unquoted; ``//`` after the host, as XRootD's clients write it, is also read as one slash."""


def url_parts(pfn: str) -> UrlParts | None:
    """Take a PFN apart; None when it is no URL of a file."""
    if len(pfn) > MAX_PFN_CHARACTERS or not pfn.isprintable():
        return None
    try:
        parts = urlsplit(pfn)
        port = parts.port
    except ValueError:
        return None
    if parts.query or parts.fragment or parts.username is not None:
        return None
    path = unquote(parts.path)
    paths = (path, path[1:]) if path.startswith("//") else (path,)
    return UrlParts(parts.scheme, parts.hostname or "", port, paths)


def path_from_pfn(rse: str, protocols: Sequence[RowMapping], pfn: str) -> str:
    """Path below the prefix of an RSE that a PFN points at, unquoted.

    Raises
    ------
    InvalidInput
        It points at no protocol of that RSE, or its path is not a safe one.
    """
    parts = url_parts(pfn)
    if parts is None:
        raise InvalidInput(
            f"a PFN is a URL of at most {MAX_PFN_CHARACTERS} characters without user, query or fragment",
            rucio_class="InvalidPath",
        )
    for protocol in protocols:
        endpoint = endpoint_of(rse, protocol)
        default = DEFAULT_PORTS.get(endpoint.scheme, 0)
        here = (
            parts.scheme == endpoint.scheme
            and parts.hostname == endpoint.hostname.lower()
            and (parts.port or default) == (endpoint.port or default)
        )
        folder = f"{endpoint.root}/"
        for candidate in parts.paths:
            if here and candidate.startswith(folder):
                try:
                    return safe_path(candidate[len(folder) :])
                except RSEError as error:
                    raise InvalidInput(error.message, rucio_class="InvalidPath", code=error.code) from error
    raise InvalidInput(f"the PFN is below no protocol of {rse}", rucio_class="InvalidPath")
