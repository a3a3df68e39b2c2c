"""Which exposures of an instrument are whole in a repository.

Why it exists: an exposure that is whole becomes a visit, and people are told of it. A batch that brings all its detectors
says so by itself; only for the others is the repository asked.
"""

from __future__ import annotations

from collections.abc import Mapping

from lsst.daf.butler import Butler

from arriero.agent.ingest.instrument import InstrumentMap
from arriero.registry.pages import pages_of

EXPOSURES_ASKED = 1000
"""Exposures in one query."""


def whole_exposures(
    butler: Butler, instrument: InstrumentMap, detectors: Mapping[int, set[int]]
) -> dict[int, int]:
    """Return the exposures of which the repository has all detectors that an instrument asks for.

    Parameters
    ----------
    detectors
        Exposure -> detectors that are known to be there; for those that do not suffice, the repository is asked.

    Returns
    -------
    dict
        Exposure -> how many detectors of it are known to be there, more than are asked for included.
    """
    needed = instrument.complete_detectors
    if not needed:
        return {}
    whole = {exposure: len(has) for exposure, has in detectors.items() if has >= needed}
    dataset_type = instrument.dataset_type
    found: dict[int, set[int]] = {}
    for page in pages_of(sorted(set(detectors) - set(whole)), EXPOSURES_ASKED):
        refs = butler.query_datasets(
            dataset_type.name,
            collections=dataset_type.run,
            where="exposure IN (:exposures)",
            bind={"exposures": page},
            instrument=instrument.name,
            explain=False,
            limit=None,
        )
        for ref in refs:
            found.setdefault(int(ref.dataId["exposure"]), set()).add(int(ref.dataId["detector"]))
    return whole | {exposure: len(has) for exposure, has in found.items() if has >= needed}
