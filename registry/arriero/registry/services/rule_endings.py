"""When the copies of a rule will have ended, by how fast copies went lately. Pure: no database, no clock."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from arriero.registry.explanations import Ending, Link

HOUR_S, DAY_S = 3600, 86400


@dataclass(frozen=True, slots=True)
class Pace:
    """Copies that succeeded, over a link or to a destination."""

    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """Of all copies one after the other."""

    def __add__(self, other: "Pace") -> "Pace":
        return Pace(self.files + other.files, self.bytes + other.bytes, self.seconds + other.seconds)

    @property
    def rate(self) -> float:
        """Bytes a second of one copy."""
        return self.bytes / self.seconds if self.seconds > 0 else 0.0

    def duration(self, files: int, size: int) -> float:
        """Seconds that as many files of that size take, one after the other."""
        if self.rate > 0:
            return size / self.rate
        return files * self.seconds / self.files if self.files else 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What was copied lately over one link."""

    source_id: int | None
    destination_id: int
    hour: Pace
    day: Pace


@dataclass(slots=True)
class ToCopy:
    """What of a rule is left to copy to one RSE."""

    rse_id: int
    files: int = 0
    bytes: int = 0
    running: int = 0
    sources: set[int] = field(default_factory=set)
    """From where copies run."""
    not_before: datetime | None = None
    """When the last of them that has failed is tried next."""


def estimate(
    wanted: Iterable[ToCopy], measured: Iterable[Measured], names: Mapping[int, str], now: datetime
) -> Ending:
    """Say when everything that is copied will be there: RSEs are filled side by side.

    Parameters
    ----------
    wanted
        What is left for each RSE.
    measured
        Links, each once.
    names
        Of the RSEs.
    now
        From when.
    """
    paces = _Paces(measured)
    links = [_link(one, paces, names, now) for one in sorted(wanted, key=lambda one: -one.bytes)]
    if not links:
        return Ending(reason="nothing is being copied or waits to be", links=[])
    blind = [link.destination for link in links if link.eta_s is None]
    if blind:
        shown = ", ".join(blind[:3]) + (f" and {len(blind) - 3} more" if len(blind) > 3 else "")
        reason = f"nothing has been copied to {shown} for a day, so nobody knows how long it takes"
        return Ending(reason=reason, links=links)
    eta_s = max(link.eta_s or 0.0 for link in links)
    last = max(links, key=lambda link: link.eta_s or 0.0)
    reason = f"{last.destination} takes longest: {_basis(last)}"
    return Ending(eta_s=eta_s, at=now + timedelta(seconds=eta_s), reason=reason, links=links)


def _basis(link: Link) -> str:
    at_once = f"{link.running} copies at once, as now" if link.running else "one copy at a time"
    over = f"from {link.source}" if link.basis == "link" else "from wherever"
    when = "hour" if link.window_s == HOUR_S else "day"
    return f"{at_once}, each as fast as {link.copies_measured} copies {over} in the last {when}"


class _Paces:
    """Paces by link, and by destination; of the last hour where there are any."""

    def __init__(self, measured: Iterable[Measured]) -> None:
        self._links: dict[tuple[int | None, int], tuple[Pace, Pace]] = {}
        self._to: dict[int, tuple[Pace, Pace]] = defaultdict(lambda: (Pace(), Pace()))
        for one in measured:
            self._links[one.source_id, one.destination_id] = (one.hour, one.day)
            hour, day = self._to[one.destination_id]
            self._to[one.destination_id] = (hour + one.hour, day + one.day)

    def of(self, one: ToCopy) -> Iterator[tuple[Literal["link", "destination"], int, Pace]]:
        """Give those that say something about what is left to copy, the best first."""
        found: list[tuple[Literal["link", "destination"], tuple[Pace, Pace]]] = []
        if len(one.sources) == 1:
            [source_id] = one.sources
            found.append(("link", self._links.get((source_id, one.rse_id), (Pace(), Pace()))))
        if one.rse_id in self._to:
            found.append(("destination", self._to[one.rse_id]))
        for basis, (hour, day) in found:
            for window_s, pace in ((HOUR_S, hour), (DAY_S, day)):
                if pace.files:
                    yield basis, window_s, pace


def _link(one: ToCopy, paces: _Paces, names: Mapping[int, str], now: datetime) -> Link:
    source = names.get(next(iter(one.sources))) if len(one.sources) == 1 else None
    fixed = {
        "source": source,
        "destination": names.get(one.rse_id, "?"),
        "files": one.files,
        "bytes": one.bytes,
        "running": one.running,
    }
    best = next(paces.of(one), None)
    if best is None:
        return Link(**fixed, basis="unknown")
    basis, window_s, pace = best
    eta_s = pace.duration(one.files, one.bytes) / max(one.running, 1)
    if one.not_before is not None:
        # what has failed begins again only then
        eta_s = max(eta_s, (one.not_before - now).total_seconds() + pace.seconds / pace.files)
    return Link(
        **fixed,
        rate=pace.rate,
        basis=basis,
        window_s=window_s,
        copies_measured=pace.files,
        eta_s=eta_s,
    )
