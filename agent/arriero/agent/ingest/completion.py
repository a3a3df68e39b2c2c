"""What follows when an exposure is whole: its visits are defined, and it is told of.

Why it exists: whoever brings the last of an exposure's detectors knows it first. What a crash or an outage leaves out is
made good when the same arrivals are claimed again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence

import structlog

from arriero.agent.ingest.batch import Batch
from arriero.agent.ingest.butler_errors import BUTLER_ERRORS, Failure, classify, sentence
from arriero.agent.ingest.butler_session import Session
from arriero.agent.ingest.butler_visits import Defined
from arriero.agent.ingest.errors import ButlerUnavailable
from arriero.agent.ingest.instrument import InstrumentMap
from arriero.registry.arrival_words import CompleteExposure

log = structlog.get_logger(__name__)

CONFLICT_TRIES = 3
"""Tries at visits that another writer may have got in the way of."""


class Completion:
    """Looks after each batch, and remembers what is whole until it is taken.

    Parameters
    ----------
    repository
        URI, for what is said.
    instruments
        Whose exposures are looked at.
    """

    def __init__(self, repository: str, instruments: Sequence[InstrumentMap]) -> None:
        self._repository = repository
        self._instruments = instruments
        self._whole: list[CompleteExposure] = []

    def take(self) -> list[CompleteExposure]:
        """Return the exposures that have become whole since this was called last; one may be told twice."""
        whole, self._whole = self._whole, []
        return whole

    def look(self, session: Session, batch: Batch) -> None:
        """See which exposures are whole after a batch, those of files that were there before it included.

        Two agents may each bring half of an exposure; both look after they have written, so one sees all of it.

        Raises
        ------
        ButlerUnavailable
            If the Butler is away; the batch's raws are handed back, and come again.
        """
        present = batch.detectors_of_exposures()
        for instrument in self._instruments:
            if not (found := present.get(instrument.name)):
                continue
            visits = Defined([], {})
            try:
                whole = session.whole(instrument, found)
                if instrument.visits is not None:
                    ready: Iterable[int] = found if instrument.visits.at == "first" else whole
                    visits = self._visits(session, instrument, ready)
                    batch.provide(f"instrument={instrument.name},visit={visit}" for visit in visits.new)
            except BUTLER_ERRORS as error:
                if classify(error) is Failure.REFUSED:
                    # The files are in the repository, whatever becomes of what follows.
                    log.exception(
                        "whole exposures not looked for", instrument=instrument.name, reason=sentence(error)
                    )
                    continue
                away = ButlerUnavailable(self._repository, sentence(error))
                batch.hand_back_raws(away)
                raise away from error
            self._whole += [
                _told(instrument, exposure, detectors, visits.of_exposure.get(exposure, ()))
                for exposure, detectors in sorted(whole.items())
            ]

    def _visits(self, session: Session, instrument: InstrumentMap, whole: Iterable[int]) -> Defined:
        for tries in range(CONFLICT_TRIES, 0, -1):
            try:
                return session.visits(instrument).define(whole)
            except BUTLER_ERRORS as error:
                failure = classify(error)
                if failure is Failure.CONFLICT and tries > 1:
                    time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter
                elif failure is Failure.REFUSED:
                    # The files are in the repository, whatever becomes of the visits.
                    log.exception("visits not defined", instrument=instrument.name, reason=sentence(error))
                    break
                else:
                    raise
        return Defined([], {})


def _told(
    instrument: InstrumentMap, exposure: int, detectors: int, visits: Sequence[int]
) -> CompleteExposure:
    return CompleteExposure(
        instrument=instrument.name,
        exposure=str(exposure),
        dataset_type=instrument.dataset_type.name,
        detectors=detectors,
        visits=tuple(map(str, visits)),
    )
