"""What the official client's tests begin with: a scope, an RSE, files, and names that are hard to send."""

from __future__ import annotations

import pytest

DAVS = {
    "scheme": "davs",
    "hostname": "dav.example.org",
    "port": 1094,
    "prefix": "/data",
    "impl": "rucio.rse.protocols.webdav.Default",
    "domains": {
        "lan": {"read": 1, "write": 1, "delete": 1},
        "wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1},
    },
    "extended_attributes": None,
}
NAMES = (
    "plain.fits",
    "LSSTComCam/raw/2024 11 08/a+b%c.fits",
    "été/☃.fits",
    "a?b#c&d=e;f.fits",
    "files",
    "dids/search",
)


@pytest.fixture
def scope(official, client) -> str:
    name = official.unique("scope")
    client.add_scope("root", name)
    return name


@pytest.fixture
def rse(official, client) -> str:
    name = official.unique("SITE") + "_DISK"
    client.add_rse(name)
    client.add_rse_attribute(name, "lfn2pfn_algorithm", "identity")
    client.add_protocol(name, dict(DAVS))
    return name


def files(scope: str, *names: str) -> list[dict]:
    return [{"scope": scope, "name": name, "bytes": 2880, "adler32": "0000002a"} for name in names]


def keys(scope: str, *names: str) -> list[dict]:
    return [{"scope": scope, "name": name} for name in names]


def names_in(rows) -> list[str]:
    return sorted(row["name"] for row in rows)
