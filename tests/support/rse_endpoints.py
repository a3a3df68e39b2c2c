"""Endpoints of the test servers."""

from __future__ import annotations

from urllib.parse import urlsplit

from arriero.rse.types import Endpoint
from servicelib.server import WebDavServer


def endpoint_of(server: WebDavServer, *, folder: str = "", token_file: str | None = None) -> Endpoint:
    """The plain endpoint of a server, or of a folder below its prefix."""
    return _endpoint(server, server.url, "dav", folder, None, token_file)


def https_endpoint_of(server: WebDavServer, *, folder: str = "", token_file: str | None = None) -> Endpoint:
    """The endpoint of a server over TLS."""
    assert server.https_url
    return _endpoint(server, server.https_url, "davs", folder, str(server.ca_bundle), token_file)


def _endpoint(
    server: WebDavServer, url: str, scheme: str, folder: str, ca_bundle: str | None, token_file: str | None
) -> Endpoint:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    prefix = f"{parts.path.rstrip('/')}/{folder}".rstrip("/")
    return Endpoint(
        f"{server.name.upper()}_DISK", scheme, parts.hostname, parts.port, prefix, ca_bundle, token_file
    )
