"""Where a file goes instead when its copy to an RSE has failed for good, and every file is placed by itself.

The core gives a policy, SQL applies it, as with `arriero.scheduler.core.spread`: for each RSE that fails, what would have
gone there is spread over the others by their weights. No RSE takes over everything that another one drops.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from arriero.scheduler.core.spread import spread

SLOTS = 64
"""Slots of a policy: shares are exact to 2 %."""

ALTERNATIVES = 3
"""RSEs that are looked at for each file, at one time."""

OF_NO_RSE = frozenset(
    {
        "bad_replica",
        "being_deleted",
        "cancelled",
        "gone",
        "lost",
        "no_source",
        "not_found",
        "retry_now",
        "source_mismatch",
    }
)
"""Codes of locks that another RSE would not help: they wait for something, or their source is at fault."""


@dataclass(frozen=True, slots=True)
class Detour:
    """One row of the policy: the ``rank``-th RSE (from 0) for the files of a slot that fail at another."""

    failing_id: int
    slot: int
    rank: int
    rse_id: int


def detours(weights: Mapping[int, float], failing: Collection[int], *, seed: str) -> tuple[Detour, ...]:
    """Make the table of detours.

    Parameters
    ----------
    weights
        Weight above zero of each RSE that can be chosen, by id.
    failing
        RSEs at which copies have failed; each need not be one of the others.
    seed
        The rule's uuid.

    Returns
    -------
    tuple of Detour
        Of each failing RSE, for each slot, up to `ALTERNATIVES` distinct other RSEs; none where there is no other.
    """
    rows: list[Detour] = []
    for failing_id in sorted(set(failing)):
        others = {rse_id: weight for rse_id, weight in weights.items() if rse_id != failing_id}
        count = min(ALTERNATIVES, len(others))
        slots = spread(others, count, seed=f"{seed} instead of {failing_id}", slots=SLOTS)
        rows.extend(Detour(failing_id, one.slot, one.rank, one.rse_id) for one in slots)
    return tuple(rows)
