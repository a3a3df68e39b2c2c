"""What of the official client does not work, with the reason, and a call that shows it.

Each method and verb is either named by a marker of a test (`client_method`, `rucio_command`) or stands here, never both.
Reasons are those of the 501 answer: `arriero.registry.unsupported`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from arriero.registry import unsupported

DID = {"scope": "s", "name": "n"}
LATER = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class NotYet:
    """A method that does not work."""

    reason: str
    call: Callable[[Any], object] | None
    """Makes the call with a client of everything; None where nothing is sent."""


METHODS: dict[str, NotYet] = {
    "ConfigClient.set_config_option": NotYet(
        unsupported.SETTINGS, lambda c: c.set_config_option("transfers", "k", "v")
    ),
    "ConfigClient.delete_config_option": NotYet(
        unsupported.SETTINGS, lambda c: c.delete_config_option("transfers", "k")
    ),
    "ConfigClient.delete_config_section": NotYet(
        unsupported.SETTINGS, lambda c: c.delete_config_section("transfers")
    ),
    "CredentialClient.get_signed_url": NotYet(
        unsupported.SIGNED_URLS, lambda c: c.get_signed_url("RSE", "s3", "read", "https://s3.example.org/k")
    ),
    "DIDClient.add_files_to_archive": NotYet(unsupported.ARCHIVES, None),
    "DIDClient.list_archive_content": NotYet(
        unsupported.ARCHIVES, lambda c: list(c.list_archive_content(**DID))
    ),
    "DiracClient.add_files": NotYet(unsupported.DIRAC, lambda c: c.add_files([{"lfn": "/n", "rse": "RSE"}])),
    "LifetimeClient.list_exceptions": NotYet(
        unsupported.LIFETIME_EXCEPTIONS, lambda c: list(c.list_exceptions())
    ),
    "LifetimeClient.add_exception": NotYet(
        unsupported.LIFETIME_EXCEPTIONS, lambda c: c.add_exception([DID], "root", "*", "why", LATER)
    ),
    "MetaConventionClient.add_key": NotYet(unsupported.META_CONVENTIONS, lambda c: c.add_key("k", "ALL")),
    "MetaConventionClient.list_keys": NotYet(unsupported.META_CONVENTIONS, lambda c: c.list_keys()),
    "MetaConventionClient.list_values": NotYet(unsupported.META_CONVENTIONS, lambda c: c.list_values("k")),
    "MetaConventionClient.add_value": NotYet(unsupported.META_CONVENTIONS, lambda c: c.add_value("k", "v")),
    "OpenDataClient.list_opendata_dids": NotYet(unsupported.OPEN_DATA, lambda c: c.list_opendata_dids()),
    "OpenDataClient.add_opendata_did": NotYet(unsupported.OPEN_DATA, lambda c: c.add_opendata_did(**DID)),
    "OpenDataClient.remove_opendata_did": NotYet(
        unsupported.OPEN_DATA, lambda c: c.remove_opendata_did(**DID)
    ),
    "OpenDataClient.update_opendata_did": NotYet(
        unsupported.OPEN_DATA, lambda c: c.update_opendata_did(**DID, state="draft")
    ),
    "OpenDataClient.get_opendata_did": NotYet(unsupported.OPEN_DATA, lambda c: c.get_opendata_did(**DID)),
    "OpenDataClient.get_opendata_host": NotYet(unsupported.OPEN_DATA, None),
    "MetaConventionClient.del_key": NotYet("the official client does nothing here", None),
    "MetaConventionClient.del_value": NotYet("the official client does nothing here", None),
    "MetaConventionClient.update_key": NotYet("the official client does nothing here", None),
    "DownloadClient.download_aria2c": NotYet(
        "it needs the program aria2c beside the client, which no test has", None
    ),
}

VERBS: dict[str, str] = {
    "config set": "ConfigClient.set_config_option",
    "config unset": "ConfigClient.delete_config_option",
    "lifetime-exception add": "LifetimeClient.add_exception",
    "opendata did add": "OpenDataClient.add_opendata_did",
    "opendata did list": "OpenDataClient.list_opendata_dids",
    "opendata did remove": "OpenDataClient.remove_opendata_did",
    "opendata did show": "OpenDataClient.get_opendata_did",
    "opendata did update": "OpenDataClient.update_opendata_did",
}
"""Verbs of the command line that do not work, by the method that they call."""

LEFT_OUT_THERE = {
    "replica state update quarantine": "the official client has it in Python only: `ReplicaClient.quarantine_replicas`",
}
"""Verbs of which the command line itself says that it cannot do them."""

EXCEPT: dict[str, NotYet] = {}
"""What is refused of a method that works otherwise, such as an option."""

REASONS = {
    **{name: missing.reason for name, missing in METHODS.items()},
    **{verb: {**EXCEPT, **METHODS}[name].reason for verb, name in VERBS.items()},
    **LEFT_OUT_THERE,
}
EXCEPTIONS = {name: missing.reason for name, missing in EXCEPT.items()}
