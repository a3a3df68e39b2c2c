"""What Rucio's REST protocol has and Arriero has not, each with its reason.

One place for both who need it: the 501 answer (`arriero.registry.api.failures`) says the reason, and the reference of
the official client (`docs/reference/rucio-client.md`) lists it. A call that gets served loses its line here.
"""

import re
from dataclasses import dataclass

SETTINGS = (
    "settings are files and environment, not rows of the catalogue: change them where the service runs "
    "(`arriero config show --origin`) and restart it"
)
IMPORT_ACCOUNTS = "an import brings RSEs and distances: add accounts and identities by their own calls"
META_CONVENTIONS = "conventions for metadata are not kept: any key may be set on a DID, with any JSON value"
OPEN_DATA = "open data (DOIs, public pages) is not kept: publish from a portal, with the DID's list of files"
DIRAC = "the call for DIRAC's file catalogue is not served: add replicas, then attach them to their dataset"
SIGNED_URLS = (
    "URLs are not signed: storage is reached by WebDAV with the client's own credentials, or as files"
)
LIFETIME_EXCEPTIONS = (
    "there is no lifetime model that would need exceptions: a rule lives as long as its own lifetime, "
    "which `rucio rule update --lifetime` extends"
)
ARCHIVES = "no file holds other files: attach files to a dataset, and datasets to a container"
TRACES = "of the traces of worker nodes nothing is kept: send those of reading to /traces"
VIRTUAL_PLACEMENT = "there is no virtual placement of datasets: list the dataset's replicas"
HEARTBEATS = "work is leased in the database, so no process has to send heartbeats"
OTHER_LOGINS = "log in with a password, an X.509 subject that a trusted proxy passes, or a bearer token of the configured issuer"
VIRTUAL_ORGANISATIONS = "one catalogue serves one organisation: run a service for each"
REDIRECTS = "PFNs are not redirected to: list the replicas and choose one"
NOT_YET = "this call of Rucio is not in Arriero yet"
"""For what has no reason of its own."""


@dataclass(frozen=True, slots=True)
class _Missing:
    path: re.Pattern[str]
    reason: str
    methods: frozenset[str] = frozenset()
    """Empty: all of them."""


_MISSING = tuple(
    _Missing(re.compile(path), reason, frozenset(methods))
    for path, reason, methods in (
        (r"/config(/.*)?", SETTINGS, ("POST", "PUT", "DELETE")),
        (r"/meta(_conventions)?(/.*)?", META_CONVENTIONS, ()),
        (r"/opendata(/.*)?", OPEN_DATA, ()),
        (r"/dirac(/.*)?", DIRAC, ()),
        (r"/credentials(/.*)?", SIGNED_URLS, ()),
        (r"/lifetime_exceptions(/.*)?", LIFETIME_EXCEPTIONS, ()),
        (r"/archives(/.*)?", ARCHIVES, ()),
        (r"/nongrid_traces(/.*)?", TRACES, ()),
        (r"/replicas/[^/]+/.+/datasets_vp", VIRTUAL_PLACEMENT, ()),
        (r"/heartbeats(/.*)?", HEARTBEATS, ()),
        (
            r"/auth/(gss|oidc|oidc_code|oidc_token|oidc_redirect|oidc_refresh|saml|ssh|ssh_challenge_token)(/.*)?",
            OTHER_LOGINS,
            (),
        ),
        (r"/vos(/.*)?", VIRTUAL_ORGANISATIONS, ()),
        (r"/redirect(/.*)?", REDIRECTS, ()),
    )
)


def reason_for(method: str, path: str) -> str:
    """Give the reason why a call is not served.

    Parameters
    ----------
    method
        Such as ``GET``.
    path
        As it was sent, from the root.
    """
    for missing in _MISSING:
        if missing.path.fullmatch(path) and (not missing.methods or method in missing.methods):
            return missing.reason
    return NOT_YET
