"""Real storage elements for the official client: an RSE of the registry, and what the client needs to reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from servicelib.server import WebDavServer

WEBDAV = "rucio.rse.protocols.webdav.Default"
EVERYTHING = {
    "read": 1,
    "write": 1,
    "delete": 1,
    "third_party_copy_read": 1,
    "third_party_copy_write": 1,
}


def protocol_of(server: WebDavServer, folder: str, **changes: Any) -> dict[str, Any]:
    """Give a protocol as an operator registers it: https, with the one implementation that needs no gfal2."""
    assert server.https_url is not None
    parts = urlsplit(server.https_url)
    return {
        "scheme": "https",
        "hostname": parts.hostname,
        "port": parts.port,
        "prefix": f"{parts.path}/{folder}",
        "impl": WEBDAV,
        "domains": {"lan": dict(EVERYTHING), "wan": dict(EVERYTHING)},
        **changes,
    }


def add_storage(
    client: Any,
    rse: str,
    server: WebDavServer,
    folder: str,
    *,
    algorithm: str | None = "identity",
    impl: str = WEBDAV,
) -> str:
    """Add an RSE below a folder of a server, which is made; give the URL of the folder.

    Parameters
    ----------
    algorithm
        How names become paths; None for an RSE that is not deterministic.
    """
    make_folder(server, folder)
    client.add_rse(rse, deterministic=algorithm is not None)
    if algorithm is not None:
        client.add_rse_attribute(rse, "lfn2pfn_algorithm", algorithm)
    client.add_protocol(rse, protocol_of(server, folder, impl=impl))
    return f"{server.https_url}/{folder}"


def make_folder(server: WebDavServer, folder: str) -> Path:
    """Make a folder: the official client refuses a storage element whose prefix is not there."""
    return server.write_file(f"{folder}/.here", b"").parent


def proxy_certificate(server: WebDavServer, directory: Path) -> Path:
    """Write certificate and key in one file, as `X509_USER_PROXY` names it."""
    authority = server.authority.directory  # type: ignore[attr-defined]
    path = directory / "x509up"
    path.write_bytes((authority / "host.pem").read_bytes() + (authority / "host.key").read_bytes())
    path.chmod(0o600)
    return path
