"""Which exposures are whole in a Butler, and what of the others is missing and why.

Why it exists: "8/9, missing S21" is what an operator has to know, and no count of lines says it. What is there is asked of
the Butler; why something is not, of the ledger; what should be there, of the instrument's declaration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from arriero.agent.ingest.instrument import InstrumentMap
from arriero.registry.arrival_words import ButlerFile
from arriero.registry.states import ArrivalState

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Exposure:
    """One exposure and its detectors."""

    obs_id: str
    exposure: str | None
    """Its id in the Butler; None: the Butler does not know it."""
    expected: int
    there: int = 0
    missing: list[str] = field(default_factory=list)
    """Names of detectors, with the reason where the ledger has one."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    @property
    def sentence(self) -> str:
        """Say it in words, as ``8/9, missing S21``."""
        counted = f"{self.there}/{self.expected}"
        return counted if self.complete else f"{counted}, missing {', '.join(self.missing)}"


def completeness(
    instrument: InstrumentMap, present: Mapping[str, tuple[str, set[int]]], files: Iterable[ButlerFile]
) -> Iterator[Exposure]:
    """Compare what a Butler has of a day with what its ledger knows and what should be there.

    Parameters
    ----------
    present
        As `ButlerContents.detectors` gives it.
    files
        Files of that day in the Butler's ledger.
    """
    names = _short_names(instrument)
    waiting: dict[str, dict[int, str]] = {}
    for file in files:
        found = _parts(instrument, file.name)
        if found is None:
            continue
        obs_id, detector = found
        reasons = waiting.setdefault(obs_id, {})
        if file.state is not ArrivalState.INGESTED:
            reasons[detector] = f"{file.state}{': ' + file.code if file.code else ''}"
    known = {obs_id: (exposure, detectors) for exposure, (obs_id, detectors) in present.items()}
    for obs_id in sorted(known.keys() | waiting.keys()):
        exposure, detectors = known.get(obs_id, (None, set[int]()))
        expected = instrument.complete_detectors
        one = Exposure(obs_id, exposure, len(expected), len(expected & detectors))
        for detector in sorted(expected - detectors):
            why = waiting.get(obs_id, {}).get(detector, "not here")
            one.missing.append(f"{names[detector]} ({why})")
        yield one


def _short_names(instrument: InstrumentMap) -> dict[int, str]:
    """What people call the detectors: by the name in the raft where there is but one raft."""
    one_raft = len({detector.raft for detector in instrument.detectors}) == 1
    return {
        detector.id: detector.name_in_raft if one_raft and detector.name_in_raft else detector.full_name
        for detector in instrument.detectors
    }


def _parts(instrument: InstrumentMap, name: str) -> tuple[str, int] | None:
    """Observation and detector that a raw's name tells of; None when it does not end in a detector's name."""
    if not instrument.recognises(name):
        return None
    stem = name.rpartition("/")[2].partition(".fits")[0]
    for full_name, detector in instrument.detector_ids.items():
        if stem.endswith("_" + full_name):
            return stem.removesuffix("_" + full_name), detector
    return None


def as_record(one: Exposure) -> dict[str, Any]:
    """Write an exposure as plain values."""
    return {
        "obs_id": one.obs_id,
        "exposure": one.exposure,
        "expected": one.expected,
        "there": one.there,
        "complete": one.complete,
        "missing": one.missing,
        "said": one.sentence,
    }
