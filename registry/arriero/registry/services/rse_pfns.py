"""Where files would lie at an RSE, whether or not they do: asked by clients that write there."""

from collections.abc import Mapping, Sequence

from arriero.registry.errors import InvalidInput, TooLarge
from arriero.registry.services.context import Context
from arriero.registry.services.names import check_did_name
from arriero.registry.services.rse_protocols import offering
from arriero.registry.services.rses import get_rse, require_rse
from arriero.registry.store.replica_paths import stored_paths
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
        An LFN cannot be one, or paths of this RSE do not follow from names and a file has no replica there.
    """
    if len(lfns) > context.settings.max_bulk_items:
        raise TooLarge(f"at most {context.settings.max_bulk_items} LFNs at once: ask in parts")
    described = get_rse(context, name)
    candidates = [one for one in described["protocols"] if scheme in {None, one["scheme"]}]
    protocol = offering(name, candidates, domain=domain, operation=operation)[0]
    keys = {lfn: _key(lfn) for lfn in lfns}
    if described["deterministic"]:
        paths = {lfn: path_for(described["lfn2pfn_algorithm"], *key) for lfn, key in keys.items()}
    else:
        paths = _registered(context, name, keys)
    endpoint = Endpoint(name, *(protocol[key] for key in ("scheme", "hostname", "port", "prefix")))
    return {lfn: endpoint.pfn(path) for lfn, path in paths.items()}


def _key(lfn: str) -> tuple[str, str]:
    scope, colon, name = lfn.partition(":")
    if not colon or not scope:
        raise InvalidInput(f"{lfn[:80]!a} is no LFN: write scope:name", rucio_class="InvalidPath")
    return scope, check_did_name(name)


def _registered(context: Context, rse: str, keys: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Give the paths under which replicas were registered, as a client asks that has just registered one."""
    with context.database.snapshot() as connection:
        stored = stored_paths(connection, require_rse(connection, rse)["id"], list(keys.values()))
    for lfn, key in keys.items():
        if key not in stored:
            raise InvalidInput(
                f"at RSE {rse} paths do not follow from names, and {lfn[:200]} has no replica there: "
                "register it with its PFN",
                rucio_class="RSEOperationNotSupported",
            )
    return {lfn: stored[key] for lfn, key in keys.items()}
