"""The plain values that storage code is handed: no I/O, no credentials, no database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from arriero.rse.errors import InvalidName
from arriero.rse.hosts import is_host
from arriero.rse.paths import quoted_path, safe_path

WIRE_SCHEMES: Mapping[str, str] = {"dav": "http", "davs": "https", "http": "http", "https": "https"}
"""Scheme that goes over the wire for each registered one: a TPC to `davs://` is refused by XRootD 5.5.3."""

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,20}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One protocol of one RSE: where its files are, and where its credentials are read from."""

    rse: str
    scheme: str
    hostname: str
    port: int
    """0 for the default of the scheme, and for `file`."""
    prefix: str
    """Absolute path on the server (or of the local folder), unquoted."""
    ca_bundle: str | None = None
    """File or hashed folder of the certificate authorities to trust; the system's when None."""
    token_file: str | None = None
    """File that holds the bearer token; read again when it changes, never stored."""
    finds_token: bool = False
    """Take the bearer token from where the WLCG has it: `BEARER_TOKEN`, `BEARER_TOKEN_FILE`, `bt_u<uid>`."""
    password_file: str | None = None
    """File that holds `user:password`."""
    certificate_file: str | None = None
    """X.509 proxy or certificate with its chain (PEM), read again when it changes."""
    key_file: str | None = None
    """Its key; in the same file when None, as for a proxy."""
    gives_macaroons: bool = False
    """Ask it for a macaroon for whoever copies one file to or from it (dCache, XRootD, StoRM)."""

    def __post_init__(self) -> None:
        """Refuse what could turn a URL into another one: an endpoint is composed, never parsed.

        Raises
        ------
        InvalidName
            If the host name, port or prefix could not come out of a URL as they went in.
        """
        if self.scheme == "file":
            well_formed = not self.hostname or self.hostname == "localhost"
        else:
            well_formed = is_host(self.hostname) and 0 <= self.port <= 65535
        if not well_formed or _SCHEME.fullmatch(self.scheme) is None:
            raise InvalidName(
                f"RSE {self.rse}: {self.scheme}://{self.hostname}:{self.port} is not a protocol; "
                "register scheme, host name and port as they are, without path or user.",
                rse=self.rse,
            )
        if self.prefix.strip("/"):
            safe_path(self.prefix.strip("/"))

    @property
    def origin(self) -> str:
        """`scheme://host:port` as on the wire, with no path; `file://` for local folders."""
        return _origin(WIRE_SCHEMES.get(self.scheme, self.scheme), self.hostname, self.port)

    @property
    def root(self) -> str:
        """Prefix with one leading slash and none at the end (empty for the server's root)."""
        stripped = self.prefix.strip("/")
        return f"/{stripped}" if stripped else ""

    def url(self, path: str) -> str:
        """URL of a path as sent over the wire.

        Parameters
        ----------
        path
            Path below the prefix, unquoted.

        Returns
        -------
        str
            URL in which each segment is percent-encoded exactly once, with `http` or `https` for DAV.

        Raises
        ------
        InvalidName
            If the path would leave the prefix or is not fit to be a name.
        """
        return f"{self.origin}{quote(self.root)}/{quoted_path(path)}"

    def pfn(self, path: str) -> str:
        """PFN of a path: as `url`, with the scheme that was registered."""
        origin = _origin(self.scheme, self.hostname, self.port)
        return f"{origin}{quote(self.root)}/{quoted_path(path)}"

    @property
    def plain_folder(self) -> str:
        """What PFNs begin with where nothing is percent-encoded: so Rucio's clients write them."""
        return f"{_origin(self.scheme, self.hostname, self.port)}{self.root}/"


def _origin(scheme: str, hostname: str, port: int) -> str:
    if scheme == "file":
        return "file://"
    host = f"[{hostname}]" if ":" in hostname else hostname
    return f"{scheme}://{host}:{port}" if port else f"{scheme}://{host}"


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a storage says about one path."""

    bytes: int
    adler32: str | None
    """Canonical adler32 (8 lower-case hexadecimal digits) where the server gave it in the same answer."""
    is_directory: bool


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """One member of a folder."""

    name: str
    bytes: int
    is_directory: bool


@dataclass(frozen=True, slots=True)
class RseInfo:
    """An RSE as an expression sees it."""

    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)
