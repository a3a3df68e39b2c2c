"""Where each file goes when every file is placed by itself (grouping NONE).

The core gives a policy, SQL applies it: a file's slot is ``dids.spread % SLOTS``, and each slot has its RSEs. The share
of an RSE follows its weight exactly, to one slot: systematic sampling with probability proportional to size
(Madow 1949), with RSEs that would be drawn more than once taken for certain.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from arriero.scheduler.core.seeds import fraction

SLOTS = 1024
"""Slots of a policy: shares are exact to 0.1 %."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One row of the policy: the ``rank``-th choice (from 0) of a slot."""

    slot: int
    rank: int
    rse_id: int


def spread(weights: Mapping[int, float], copies: int, *, seed: str, slots: int = SLOTS) -> tuple[Slot, ...]:
    """Make the table of slots.

    Parameters
    ----------
    weights
        Weight above zero of each RSE, by id.
    copies
        RSEs for each slot.
    seed
        The rule's uuid: the order in which RSEs stand on the circle.
    slots
        How many.

    Returns
    -------
    tuple of Slot
        ``slots * copies`` rows, each slot with ``copies`` distinct RSEs; empty when there are too few RSEs.
    """
    if len(weights) < copies or copies < 1:
        return ()
    certain, drawn = _certain(weights, copies)
    draws = copies - len(certain)
    circle: list[tuple[float, int]] = []
    total = sum(weights[rse_id] for rse_id in drawn)
    end = 0.0
    for rse_id in sorted(drawn, key=lambda one: (fraction(seed, "circle", one), one)):
        end += weights[rse_id] / total
        circle.append((end, rse_id))
    rows: list[Slot] = []
    for slot in range(slots):
        chosen = [*certain, *_drawn(circle, (slot + 0.5) / slots, draws)]
        chosen.sort(key=lambda one: (fraction(seed, slot, one), one))
        rows.extend(Slot(slot, rank, rse_id) for rank, rse_id in enumerate(chosen))
    return tuple(rows)


def _certain(weights: Mapping[int, float], copies: int) -> tuple[list[int], list[int]]:
    """Split off the RSEs whose share is a whole copy of every file."""
    certain: list[int] = []
    rest = sorted(weights, key=lambda one: (-weights[one], one))
    total = sum(weights.values())
    while rest and (
        len(rest) <= copies - len(certain) or _is_certain(weights[rest[0]], total, copies - len(certain))
    ):
        if len(certain) == copies:
            break
        total -= weights[rest[0]]
        certain.append(rest.pop(0))
    return certain, rest if len(certain) < copies else []


def _is_certain(weight: float, total: float, draws: int) -> bool:
    return draws > 0 and weight * draws >= total * (1 - 1e-12)


def _drawn(circle: list[tuple[float, int]], start: float, draws: int) -> list[int]:
    """Take the RSEs at ``draws`` points of equal distance on the circle."""
    chosen: list[int] = []
    points = sorted((start / draws + step / draws) % 1.0 for step in range(draws))
    at = 0
    for point in points:
        while at < len(circle) - 1 and (circle[at][0] <= point or circle[at][1] in chosen):
            at += 1
        chosen.append(circle[at][1])
    return chosen
