"""From which RSE a copy is taken: distance decides, and one that has just failed waits for the others."""

from collections.abc import Sequence
from dataclasses import dataclass

from arriero.scheduler.core.seeds import fraction

POOR = 0.5
"""Share of successful copies below which a link counts as poor: any other source comes first."""

BUSY = "link_busy"
"""Code of requests that wait until one of their sources may be read from."""

SITE_MOVER = "site_mover"
"""Code of requests that wait for the mover of a site, which alone can read their source."""

SITE_WAIT_S = 600.0
"""When a request that waits for the mover of a site is looked at again, seconds; the mover takes it at once."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing may begin from an RSE now."""

    reason: str
    wait_s: float
    """How long that may last, seconds."""


@dataclass(frozen=True, slots=True)
class Source:
    """An RSE that holds an AVAILABLE replica of the file."""

    rse_id: int
    name: str
    readable: bool = True
    wanted: bool = True
    """Whether the rule's source expression takes it."""
    reachable: bool = True
    """Whether it has a protocol that can be read from."""
    distance: int | None = None
    """To the destination; None when nobody has said, which counts as farthest."""
    suspicious: bool = False
    """Whether somebody has said of late that its copy may be bad."""
    success: float | None = None
    """Share of the last copies on its link that succeeded."""
    refusal: Refusal | None = None
    """It passes by itself."""
    carried: bool = True
    """Whether the worker that asks may read from it: some are read by the mover of their site only."""

    @property
    def serves(self) -> bool:
        """Whether somebody can read from it, now or in a while."""
        return self.readable and self.wanted and self.reachable

    @property
    def is_fit(self) -> bool:
        """Whether the worker that asks can read from it, now or in a while."""
        return self.serves and self.carried


@dataclass(frozen=True, slots=True)
class Picked:
    """The source of the next attempt, or why there is none."""

    source: Source | None
    alternatives: int
    """How many other sources could be tried."""
    code: str
    reason: str
    wait_s: float = 0.0
    """How long to wait before anybody looks again, seconds."""
    waits_for_id: int | None = None
    """The source whose site's mover is waited for."""


def pick_source(
    sources: Sequence[Source], *, destination_id: int, failed_id: int | None, seed: str
) -> Picked:
    """Pick the source of an attempt.

    Parameters
    ----------
    sources
        RSEs with an AVAILABLE replica.
    destination_id
        Where the file goes; never its own source.
    failed_id
        The source of the attempt before, if that failed.
    seed
        Tells requests apart, so that sources of one distance share the load.
    """
    others = [source for source in sources if source.rse_id != destination_id]

    def rank(source: Source) -> tuple[bool, bool, bool, bool, int, float, str]:
        return (
            source.rse_id == failed_id,
            source.suspicious,
            source.success is not None and source.success < POOR,
            source.distance is None,
            source.distance or 0,
            fraction(seed, source.name),
            source.name,
        )

    fit = [source for source in others if source.is_fit]
    if not fit:
        return _left_to_a_site(sorted((one for one in others if one.serves), key=rank), others)
    free = [source for source in fit if source.refusal is None]
    if not free:
        return _busy(fit)
    best = min(free, key=rank)
    away = "distance unknown" if best.distance is None else f"distance {best.distance}"
    return Picked(best, len(fit) - 1, "picked", f"{best.name} ({away}, {len(fit) - 1} other sources)")


def _left_to_a_site(serving: Sequence[Source], others: Sequence[Source]) -> Picked:
    if not serving:
        return Picked(None, 0, "no_source", _no_source(others))
    first = serving[0]
    said = f"{first.name} is read by the mover of its site only, which takes this copy when it runs there"
    return Picked(None, 0, SITE_MOVER, said, SITE_WAIT_S, first.rse_id)


def _busy(fit: Sequence[Source]) -> Picked:
    refusals = {source.name: source.refusal for source in sorted(fit, key=_by_name) if source.refusal}
    said = "; ".join(f"{name} {refusal.reason}" for name, refusal in list(refusals.items())[:5])
    return Picked(None, 0, BUSY, said, min(refusal.wait_s for refusal in refusals.values()))


def _no_source(others: Sequence[Source]) -> str:
    if not others:
        return "no RSE holds an AVAILABLE replica; register one, or wait for another copy"
    said = "; ".join(f"{source.name} {_fault(source)}" for source in sorted(others, key=_by_name)[:5])
    return f"no replica can be read: {said}"


def _by_name(source: Source) -> str:
    return source.name


def _fault(source: Source) -> str:
    if not source.readable:
        return "is blocked for reading"
    if not source.wanted:
        return "is not in the rule's source expression"
    return "has no protocol to read from; add one with `arriero rse protocol add`"
