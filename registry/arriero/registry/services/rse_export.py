"""The configuration of all RSEs as one document, in Rucio's shape: what `rse_import` reads."""

from typing import Any

from arriero.registry.services.context import Context
from arriero.registry.services.rse_attributes import attribute_value
from arriero.registry.services.rse_settings import DETAILS, FLAGS
from arriero.registry.services.rses import wire_protocol
from arriero.registry.store import rse_usage as usage_store
from arriero.registry.store import rses as store

MIN_FREE_SPACE = "MinFreeSpace"
"""The limit that Rucio writes beside the settings."""


def export_rses(context: Context, *, distances: bool) -> dict[str, Any]:
    """Give settings, attributes, protocols, limits and distances of all RSEs, in six statements.

    No ids and no times: what is imported elsewhere and exported there is the same.

    Parameters
    ----------
    distances
        Whether those are wanted.
    """
    with context.database.snapshot() as connection:
        rows = store.rse_rows(connection)
        names = {row["id"]: row["name"] for row in rows}
        known = store.load_rses(connection)
        protocols = store.protocols_of(connection, names)
        limits = usage_store.limits_of(connection, names)
        links = store.all_distances(connection) if distances else []
    exported: dict[str, Any] = {}
    for row in rows:
        attributes = known[row["name"]].attributes
        details = row["details"] or {}
        exported[row["name"]] = {
            "rse_type": row["type"],
            **{flag: row[flag] for flag in FLAGS},
            **{detail: details.get(detail) for detail in DETAILS},
            "attributes": {key: attribute_value(attributes[key]) for key in sorted(attributes)},
            "protocols": [wire_protocol(protocol) for protocol in protocols[row["id"]]],
            "limits": limits[row["id"]],
            MIN_FREE_SPACE: limits[row["id"]].get(MIN_FREE_SPACE),
        }
    document: dict[str, Any] = {"rses": exported}
    if distances:
        document["distances"] = {}
        for start, end, value in sorted(
            (names[a], names[b], value) for a, b, value in links if {a, b} <= set(names)
        ):
            document["distances"].setdefault(start, {})[end] = {"distance": value, "ranking": value}
    return document
