"""Where files would lie at an RSE, whether or not they do: asked by clients that write there."""

from collections.abc import Sequence

from arriero.registry.errors import InvalidInput, TooLarge
from arriero.registry.services.context import Context
from arriero.registry.services.names import check_did_name
from arriero.registry.services.rse_protocols import offering
from arriero.registry.services.rses import get_rse
from arriero.rse.lfn2pfn import path_for
from arriero.rse.types import Endpoint


def lfns_to_pfns(
    context: Context,
    name: str,
    lfns: Sequence[str],
    *,
    scheme: str | None = None,
    domain: str = "wan",
    operation: str = "write",
) -> dict[str, str]:
    """Give the PFN of each LFN through the first protocol that does an operation.

    Parameters
    ----------
    lfns
        Each ``scope:name``.

    Raises
    ------
    NotFound
        No protocol does that.
    InvalidInput
        An LFN cannot be one, or paths of this RSE do not follow from names.
    """
    if len(lfns) > context.settings.max_bulk_items:
        raise TooLarge(f"at most {context.settings.max_bulk_items} LFNs at once: ask in parts")
    described = get_rse(context, name)
    candidates = [one for one in described["protocols"] if scheme in {None, one["scheme"]}]
    protocol = offering(name, candidates, domain=domain, operation=operation)[0]
    if not described["deterministic"]:
        raise InvalidInput(
            f"at RSE {name} paths do not follow from names: register each replica with its PFN",
            rucio_class="RSEOperationNotSupported",
        )
    endpoint = Endpoint(name, *(protocol[key] for key in ("scheme", "hostname", "port", "prefix")))
    return {lfn: endpoint.pfn(_path(described["lfn2pfn_algorithm"], lfn)) for lfn in lfns}


def _path(algorithm: str, lfn: str) -> str:
    scope, colon, name = lfn.partition(":")
    if not colon or not scope:
        raise InvalidInput(f"{lfn[:80]!a} is no LFN: write scope:name", rucio_class="InvalidPath")
    return path_for(algorithm, scope, check_did_name(name))
