"""Which RSEs a group of files goes to.

An RSE with more bytes of the group already there comes first, then the ``weight`` attribute, then free space, then a
hash seeded with the rule, so that a re-run decides the same (DESIGN section 5, "Choice"). What drops out keeps its
reason.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from arriero.scheduler.core.seeds import fraction


@dataclass(frozen=True, slots=True)
class Candidate:
    """An RSE that the rule's expression names."""

    rse_id: int
    name: str
    writable: bool = True
    free: int | None = None
    """Bytes that may still be written there; None when nobody has said."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    barred: str | None = None
    """Why the rule's account may not fill it further; None when it may."""

    def taken(self, wanted: int) -> "Candidate":
        """Give the RSE with so many bytes less of free space."""
        return self if self.free is None else replace(self, free=self.free - wanted)


@dataclass(frozen=True, slots=True)
class Group:
    """Files that have to lie together."""

    key: str
    """What tells the group from others of the rule; part of the seed."""
    bytes: int
    present: Mapping[int, int] = field(default_factory=dict)
    """For each RSE, the bytes of the group that are AVAILABLE or COPYING there."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """An RSE that was not chosen from, and why."""

    rse_id: int
    name: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The RSEs of a group, best first, or none and why."""

    rse_ids: tuple[int, ...]
    code: str
    reason: str
    dropped: tuple[Dropped, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why each of the RSEs, in their order."""

    @property
    def placed(self) -> bool:
        """Whether the group has a place."""
        return bool(self.rse_ids)


def usable(
    candidates: Sequence[Candidate], *, weight: str | None, ignore_availability: bool
) -> tuple[dict[int, float], tuple[Dropped, ...]]:
    """Drop the RSEs that no group of the rule can go to.

    Parameters
    ----------
    candidates
        Those that the expression names.
    weight
        Name of the attribute that weighs them; None weighs all the same.
    ignore_availability
        Also take RSEs that are blocked for writing.

    Returns
    -------
    tuple
        Weight of each RSE that remains, by id; and those that dropped out.
    """
    weights: dict[int, float] = {}
    dropped: list[Dropped] = []
    for candidate in sorted(candidates, key=lambda one: one.name):
        if not (candidate.writable or ignore_availability):
            dropped.append(_dropped(candidate, "blocked", "is blocked for writing"))
            continue
        if candidate.barred is not None:
            dropped.append(_dropped(candidate, "over_quota", candidate.barred))
            continue
        value = _weight(candidate, weight)
        if isinstance(value, Dropped):
            dropped.append(value)
        else:
            weights[candidate.rse_id] = value
    return weights, tuple(dropped)


def choose(
    group: Group,
    candidates: Sequence[Candidate],
    copies: int,
    *,
    seed: str,
    weight: str | None = None,
    ignore_availability: bool = False,
) -> Choice:
    """Choose ``copies`` distinct RSEs for a group.

    Parameters
    ----------
    group
        What is to be placed.
    candidates
        The RSEs that the rule's expression names; their order does not matter.
    copies
        How many.
    seed
        The rule's uuid.
    weight, ignore_availability
        As for `usable`.

    Returns
    -------
    Choice
        Exactly ``copies`` RSEs, or none: a group is placed as a whole or not at all.
    """
    weights, out = usable(candidates, weight=weight, ignore_availability=ignore_availability)
    dropped = list(out)
    fit: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: one.name):
        if candidate.rse_id not in weights:
            continue
        missing = group.bytes - group.present.get(candidate.rse_id, 0)
        if candidate.free is not None and missing > candidate.free:
            reason = f"is full: {missing} bytes are needed and {candidate.free} may still be written"
            dropped.append(_dropped(candidate, "full", reason))
        else:
            fit.append(candidate)
    if len(fit) < copies:
        return Choice((), "not_enough_rses", refusal(copies, len(fit), dropped), tuple(dropped))

    def rank(candidate: Candidate) -> tuple[float, float, float, float, str]:
        free = -math.inf if candidate.free is None else float(candidate.free)
        return (
            -group.present.get(candidate.rse_id, 0),
            -weights[candidate.rse_id],
            -free,
            fraction(seed, group.key, candidate.name),
            candidate.name,
        )

    chosen = sorted(fit, key=rank)[:copies]
    reasons = tuple(_why(candidate, group, weights[candidate.rse_id], weight) for candidate in chosen)
    said = ", ".join(reasons)
    return Choice(tuple(one.rse_id for one in chosen), "placed", said, tuple(dropped), reasons)


def refusal(copies: int, left: int, dropped: Sequence[Dropped]) -> str:
    """Say in a sentence why too few RSEs are left."""
    shown = "; ".join(f"{one.name} {one.reason}" for one in dropped[:5])
    more = f"; and {len(dropped) - 5} more" if len(dropped) > 5 else ""
    because = f": {shown}{more}" if dropped else ""
    return f"{copies} copies are wanted and {left} RSEs can take them{because}"


def _weight(candidate: Candidate, weight: str | None) -> float | Dropped:
    if weight is None:
        return 1.0
    text = candidate.attributes.get(weight)
    if text is None:
        return _dropped(candidate, "no_weight", f"has no attribute {weight!r}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        return _dropped(candidate, "bad_weight", f"has {weight}={text!r}, which is not a number")
    if value <= 0:
        return _dropped(candidate, "zero_weight", f"has {weight}={text!r}, which is not above zero")
    return value


def _why(candidate: Candidate, group: Group, value: float, weight: str | None) -> str:
    there = group.present.get(candidate.rse_id, 0)
    if there:
        return f"{candidate.name} ({there} of {group.bytes} bytes are there)"
    if weight is not None:
        return f"{candidate.name} ({weight}={value:g})"
    if candidate.free is not None:
        return f"{candidate.name} ({candidate.free} bytes free)"
    return f"{candidate.name} (as good as any)"


def _dropped(candidate: Candidate, code: str, reason: str) -> Dropped:
    return Dropped(candidate.rse_id, candidate.name, code, reason)
