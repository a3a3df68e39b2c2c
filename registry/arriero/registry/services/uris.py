"""Where a site's Butler reads a file: the RSE's PFN, or the prefix that the site's readers use in its place. Pure."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from arriero.registry.errors import Conflict
from arriero.registry.store.butlers import Feed
from arriero.rse.lfn2pfn import path_for
from arriero.rse.types import Endpoint

DEFAULT_ALGORITHM = "hash"
"""LFN-to-PFN algorithm of an RSE that names none, as in Rucio."""


class UriMaker:
    """Makes the URIs of the files of one RSE for one butler.

    Parameters
    ----------
    feed
        The RSE.

    Raises
    ------
    Conflict
        The RSE has no protocol that can be read from, and no prefix was given to do without one.
    """

    def __init__(self, feed: Feed) -> None:
        self._algorithm = feed.algorithm or DEFAULT_ALGORITHM
        self._prefix = feed.uri_prefix
        self._endpoint: Endpoint | None = None
        if self._prefix is None:
            protocol = _best(feed.protocols)
            if protocol is None:
                raise Conflict(
                    f"RSE {feed.rse} has no protocol to read from: add one with 'arriero rse protocol add'",
                    rucio_class="RSEProtocolNotSupported",
                    code="no_protocol",
                )
            self._endpoint = Endpoint(
                feed.rse, protocol["scheme"], protocol["hostname"], protocol["port"], protocol["prefix"]
            )

    def uri(self, scope: str, name: str, path: str | None) -> str:
        """URI of a file.

        Parameters
        ----------
        scope, name
            Its DID.
        path
            Its path below the RSE's prefix where that does not follow from the name.

        Raises
        ------
        InvalidName
            The name makes no path.
        """
        below = path if path is not None else path_for(self._algorithm, scope, name)
        if self._endpoint is not None:
            return self._endpoint.pfn(below)
        prefix = (self._prefix or "").rstrip("/")
        # without a scheme it is a path of the site's file system, which quotes nothing
        return f"{prefix}/{quote(below) if '://' in prefix else below}"


def _best(protocols: tuple[Mapping[str, Any], ...]) -> Mapping[str, Any] | None:
    """Protocol with the best priority for reading, in any domain (1 is best, 0 is off)."""
    offered = []
    for index, protocol in enumerate(protocols):
        priorities = [int(domain.get("read") or 0) for domain in (protocol["domains"] or {}).values()]
        usable = [priority for priority in priorities if priority > 0]
        if usable:
            offered.append((min(usable), index))
    return protocols[min(offered)[1]] if offered else None
