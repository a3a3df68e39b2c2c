"""The outcomes of one call of the writer, by the file: each has exactly one in the end.

Why it exists: outcomes are decided in many places, and what became of the neighbours says whether a refusal is
the file's fault. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from arriero.agent.ingest.butler_candidates import Candidate
from arriero.agent.ingest.butler_records import RecordKey
from arriero.agent.ingest.drafts import Columns, Order
from arriero.agent.ingest.errors import ButlerRefusesAll, IngestError, MissingDimension
from arriero.agent.ingest.models import MOST_PROVIDED, ArrivalFile, Outcome, OutcomeState

SYSTEMIC = 8
"""Exposures of which a file is refused alone, with none accepted, after which the cause is not in the files."""


class Batch:
    """The outcomes of one call, by the place of the file in it."""

    def __init__(self, files: Sequence[ArrivalFile], named: Callable[[RecordKey], str]) -> None:
        self.files = files
        self._named = named
        self._outcomes: dict[tuple[int, int], Outcome] = {}
        self.in_repository: list[Candidate] = []
        self._brought: set[RecordKey] = set()
        self._provided: dict[str, None] = {}
        self._written = 0
        self._refused: set[tuple[object, ...]] = set()

    def add(self, outcome: Outcome) -> None:
        self._outcomes[outcome.id, outcome.fence] = outcome

    def fail(self, file: ArrivalFile, error: IngestError) -> None:
        self.add(Outcome.failed(file, error.code, str(error), retryable=error.retryable))

    def fail_rest(self, error: IngestError) -> None:
        for file in self.files:
            if (file.id, file.fence) not in self._outcomes:
                self.fail(file, error)

    def error(self, file: ArrivalFile, error: IngestError) -> None:
        """Fail a file, or park it when the reason names what it waits for."""
        waits_for = getattr(error, "waits_for", None)
        if waits_for is None:
            self.fail(file, error)
        else:
            self.add(Outcome.parked(file, error.code, str(error), waits_for=waits_for))

    def park(self, file: ArrivalFile, waits_for: str) -> None:
        reason = f"The repository has no {waits_for}. Register it; the file is then ingested."
        self.add(Outcome.parked(file, MissingDimension.code, reason, waits_for=waits_for))

    def ingested(self, candidate: Candidate) -> None:
        new = [key for key in candidate.records if key not in self._brought][:MOST_PROVIDED]
        self._brought.update(new)
        outcome = Outcome.ingested(candidate.file, candidate.dataset_id, candidate.datasets)
        self.add(outcome.model_copy(update={"provides": tuple(map(self._named, new))}) if new else outcome)
        self.in_repository.append(candidate)

    def written(self, part: Sequence[Candidate]) -> None:
        self._written += len(part)
        for candidate in part:
            self.ingested(candidate)

    def refused(self, candidate: Candidate, reason: str) -> None:
        self.add(Outcome.failed(candidate.file, "butler_refused", reason))
        self._refused.add(tuple(candidate.records) or (candidate.file.name,))
        if not self._written and len(self._refused) >= SYSTEMIC:
            raise ButlerRefusesAll(reason)

    def agreeing(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Keep the candidates whose records agree; of an exposure told in two ways, most files win."""
        told: dict[RecordKey, list[tuple[Columns, list[Candidate]]]] = {}
        for candidate in candidates:
            if not candidate.draft.strict:
                continue
            for key, record in candidate.records.items():
                versions = told.setdefault(key, [])
                for version, tellers in versions:
                    if version is record or version == record:
                        tellers.append(candidate)
                        break
                else:
                    versions.append((record, [candidate]))
        outvoted: dict[int, str] = {}
        for key, versions in told.items():
            if len(versions) > 1:
                winner, _ = max(versions, key=lambda version: len(version[1]))
                for version, tellers in versions:
                    columns = "; ".join(
                        f"{c} {version.get(c)!r}, not {winner[c]!r}"
                        for c in winner
                        if version.get(c) != winner[c]
                    )
                    if version is not winner:
                        outvoted.update(
                            {teller.file.id: f"{record_name(key)}: {columns}" for teller in tellers}
                        )
        for candidate in candidates:
            if candidate.file.id in outvoted:
                reason = f"What it says differs from its neighbours' in {outvoted[candidate.file.id]}."
                self.add(Outcome.failed(candidate.file, "conflicting_record", reason))
        return [candidate for candidate in candidates if candidate.file.id not in outvoted]

    def hand_back_raws(self, error: IngestError) -> None:
        """Have raws come again that are in the repository, since what follows from them could not be done."""
        for candidate in self.in_repository:
            if candidate.draft.order is Order.RAW:
                self.fail(candidate.file, error)

    def provide(self, prerequisites: Iterable[str]) -> None:
        """Say what parked files may have waited for, and is there now."""
        self._provided.update(dict.fromkeys(prerequisites))

    def detectors_of_exposures(self) -> dict[str, dict[int, set[int]]]:
        """Return, of the raws that are in the repository now, instrument -> exposure -> detectors."""
        found: dict[str, dict[int, set[int]]] = {}
        for candidate in self.in_repository:
            if candidate.draft.order is not Order.RAW:
                continue
            for artifact in candidate.draft.artifacts:
                for dataset in artifact.datasets:
                    data_id = dataset.data_id
                    if "exposure" in data_id and "detector" in data_id:
                        of_instrument = found.setdefault(str(data_id["instrument"]), {})
                        of_instrument.setdefault(int(data_id["exposure"]), set()).add(
                            int(data_id["detector"])
                        )
        return found

    def outcomes(self) -> list[Outcome]:
        """Return one outcome per file; the first that went in tells which visits there are now."""
        outcomes = [self._outcomes[file.id, file.fence] for file in self.files]
        first = next((n for n, o in enumerate(outcomes) if o.state is OutcomeState.INGESTED), None)
        if self._provided and first is not None:
            outcomes[first] = outcomes[first].model_copy(
                update={"provides": (*self._provided, *outcomes[first].provides)[:MOST_PROVIDED]}
            )
        return outcomes


def record_name(key: RecordKey) -> str:
    """Return a record's name for people: its element and the last of its key."""
    return " ".join((key[0], *map(str, key[1][-1:])))
