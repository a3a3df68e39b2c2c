"""Writes arrivals into one Butler repository, many exposures per transaction.

Why it exists: batches are what makes the Butler fast, and what lets one bad file take its neighbours down. The
writer reads the headers first, in parallel and outside of any transaction; sorts out what the repository has
already, lacks, or contradicts; writes the rest in one transaction; and halves a batch that is refused until the
culprit stands alone. It gives one outcome per file and keeps no state that a restart would miss.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import UUID

import structlog

from arriero.agent.ingest.butler_errors import BUTLER_ERRORS, Failure, classify, sentence
from arriero.agent.ingest.butler_private import PATH_LENGTH, StoredFile
from arriero.agent.ingest.butler_repository import repository_config
from arriero.agent.ingest.butler_session import Candidate, RecordKey, RecordsDiffer, Session
from arriero.agent.ingest.errors import (
    ButlerRefusesAll,
    ButlerUnavailable,
    HeaderError,
    IngestError,
    MissingDimension,
)
from arriero.agent.ingest.instrument import Description, InstrumentMap, Record, load_instrument
from arriero.agent.ingest.metadata import HeaderRequest, MetadataReader
from arriero.agent.ingest.models import ArrivalFile, Outcome

log = structlog.get_logger(__name__)

IN_PLACE = "direct"
TRANSFERS = frozenset({IN_PLACE, "copy", "link", "hardlink", "symlink", "relsymlink"})
"""Modes that leave the replica to its owner. What the others store is the Butler's own, and a purge deletes it."""

CONFLICT_TRIES = 3
"""Tries of a batch that another writer may have got in the way of."""

SYSTEMIC = 8
"""Exposures of which a file is refused alone, with none accepted, after which the cause is not in the files."""

Described = tuple[ArrivalFile, Description]


class _Batch:
    """The outcomes of one call, by the place of the file in it."""

    def __init__(self, files: Sequence[ArrivalFile]) -> None:
        self.files = files
        self._outcomes: dict[tuple[int, int], Outcome] = {}
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

    def written(self, part: Sequence[Candidate]) -> None:
        self._written += len(part)
        for candidate in part:
            self.add(Outcome.ingested(candidate.file, candidate.ref.id))

    def refused(self, candidate: Candidate, reason: str) -> None:
        self.add(Outcome.failed(candidate.file, "butler_refused", reason))
        self._refused.add(tuple(candidate.records))
        if not self._written and len(self._refused) >= SYSTEMIC:
            raise ButlerRefusesAll(reason)

    def outcomes(self) -> list[Outcome]:
        return [self._outcomes[file.id, file.fence] for file in self.files]


class ButlerWriter:
    """One warm Butler and what is needed to fill it. Not for several threads, and not across a fork.

    Parameters
    ----------
    repo_uri
        The repository's directory or its ``butler.yaml``.
    instruments
        Maps, or names or paths of maps, of the instruments whose files may come.
    transfer
        Butler transfer mode: ``direct`` (in place), or one that copies or links.
    threads
        Headers that are read at once.

    Attributes
    ----------
    transactions
        Butler transactions tried so far.

    Raises
    ------
    ValueError
        If the transfer mode would give the replica to the Butler.
    InstrumentMapError
        If a map cannot be used.
    """

    def __init__(
        self,
        repo_uri: str,
        instruments: Iterable[InstrumentMap | str | Path],
        *,
        transfer: str = IN_PLACE,
        threads: int = 16,
    ) -> None:
        if transfer not in TRANSFERS:
            raise ValueError(f"transfer {transfer!r} is none of {', '.join(sorted(TRANSFERS))}")
        self._repository = repository_config(repo_uri)
        self._instruments = tuple(
            item if isinstance(item, InstrumentMap) else load_instrument(item) for item in instruments
        )
        self._transfer = transfer
        self._reader = MetadataReader(threads=threads)
        self._session: Session | None = None
        self.transactions = 0

    def close(self) -> None:
        """Let go of database and threads."""
        self._drop_session()
        self._reader.close()

    def ingest(self, files: Sequence[ArrivalFile]) -> list[Outcome]:
        """Ingest files.

        Parameters
        ----------
        files
            Any number of arrivals, of one or many exposures.

        Returns
        -------
        list of Outcome
            One per file, in their order. If the Butler cannot be reached, what it has not confirmed is failed,
            retryable, with the code ``butler_unavailable``.

        Raises
        ------
        UnsuitableRepository
            If the repository needs somebody's hand before any file can go in.
        """
        if not files:
            return []
        batch = _Batch(files)
        try:
            session = self._open()
            described = self._describe(batch)
            candidates = self._ready(session, batch, described)
            for part in self._without_known(session, batch, candidates):
                self._write(session, batch, part, CONFLICT_TRIES)
        except (ButlerUnavailable, ButlerRefusesAll) as error:
            log.warning("batch given up", repository=self._repository, code=error.code, reason=str(error))
            self._drop_session()
            batch.fail_rest(error)
        except BUTLER_ERRORS as error:
            # Outside of a write no file can be blamed; the next call begins with a fresh Butler.
            self._drop_session()
            if classify(error) is not Failure.UNAVAILABLE:
                raise
            log.warning("butler unavailable", repository=self._repository, reason=sentence(error))
            batch.fail_rest(ButlerUnavailable(self._repository, sentence(error)))
        outcomes = batch.outcomes()
        counts = Counter(outcome.code or outcome.state.value for outcome in outcomes)
        log.info("batch ingested", repository=self._repository, files=len(files), outcomes=dict(counts))
        return outcomes

    def holds(self, outcomes: Sequence[Outcome]) -> set[UUID]:
        """Return which of the outcomes' datasets the repository has, to reconcile a report that was rejected.

        Raises
        ------
        ButlerUnavailable
            If the repository cannot be asked.
        """
        ids = [outcome.dataset_id for outcome in outcomes if outcome.dataset_id is not None]
        try:
            butler = self._open().butler
            return {ref.id for ref in map(butler.get_dataset, ids) if ref is not None}
        except BUTLER_ERRORS as error:
            self._drop_session()
            raise ButlerUnavailable(self._repository, sentence(error)) from error

    def _open(self) -> Session:
        if self._session is None:
            self._session = Session(self._repository, self._transfer)
        return self._session

    def _drop_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _describe(self, batch: _Batch) -> list[Described]:
        """Read the headers; whose header cannot be read or does not do gets its outcome here."""
        wanted: list[tuple[ArrivalFile, InstrumentMap]] = []
        for file in batch.files:
            instrument = next((i for i in self._instruments if i.recognises(file.name)), None)
            if instrument is None:
                known = ", ".join(i.name for i in self._instruments) or "any: this Butler has no instrument"
                reason = f"{file.name} is not named like a file of {known}. Narrow what this Butler takes."
                batch.add(Outcome.failed(file, "unrecognised_file", reason))
            else:
                wanted.append((file, instrument))
        requests = [HeaderRequest(file.uri, file.bytes, i.header_keys) for file, i in wanted]
        described: list[Described] = []
        for (file, instrument), header in zip(wanted, self._reader.read(requests), strict=True):
            if isinstance(header, IngestError):
                batch.fail(file, header)
                continue
            try:
                described.append((file, instrument.describe(header)))
            except MissingDimension as error:
                batch.add(Outcome.parked(file, error.code, str(error), waits_for=error.waits_for))
            except HeaderError as error:
                batch.fail(file, error)
        return described

    def _ready(self, session: Session, batch: _Batch, described: Sequence[Described]) -> list[Candidate]:
        """Make candidates; park what lacks a prerequisite, refuse what contradicts its neighbours."""
        candidates: dict[UUID, Candidate] = {}
        lacking = session.missing([description for _, description in described])
        for (file, description), waits_for in zip(described, lacking, strict=True):
            if waits_for is not None:
                reason = f"The repository has no {waits_for}. Register it; the file is then ingested."
                batch.add(Outcome.parked(file, MissingDimension.code, reason, waits_for=waits_for))
                continue
            try:
                candidate = session.candidate(file, description)
            except (ValueError, LookupError) as error:
                batch.add(Outcome.failed(file, "bad_data_id", sentence(error)))
                continue
            if len(str(candidate.path)) > PATH_LENGTH:
                reason = f"Its URI has {len(str(candidate.path))} characters, a Butler holds {PATH_LENGTH}."
                batch.add(Outcome.failed(file, "uri_too_long", reason))
            elif (other := candidates.setdefault(candidate.ref.id, candidate)) is not candidate:
                reason = f"{other.file.uri} of this batch is the same {_data_id(candidate)}."
                batch.add(Outcome.failed(file, "duplicate_dataset", reason))
        return self._agreeing(batch, list(candidates.values()))

    def _agreeing(self, batch: _Batch, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Keep the candidates whose records agree; of an exposure told in two ways, most files win."""
        told: dict[RecordKey, list[tuple[Record, list[Candidate]]]] = {}
        for candidate in candidates:
            for key, record in candidate.records.items():
                versions = told.setdefault(key, [])
                for version, tellers in versions:
                    if version is record or version == record:
                        tellers.append(candidate)
                        break
                else:
                    versions.append((record, [candidate]))
        outvoted: dict[UUID, str] = {}
        for key, versions in told.items():
            if len(versions) > 1:
                winner, _ = max(versions, key=lambda version: len(version[1]))
                for version, tellers in versions:
                    columns = ", ".join(c for c in winner if version[c] != winner[c])
                    if version is not winner:
                        outvoted.update({teller.ref.id: f"{_named(key)}: {columns}" for teller in tellers})
        for candidate in candidates:
            if candidate.ref.id in outvoted:
                reason = f"Its header differs from its neighbours' in {outvoted[candidate.ref.id]}."
                batch.add(Outcome.failed(candidate.file, "conflicting_record", reason))
        return [candidate for candidate in candidates if candidate.ref.id not in outvoted]

    def _without_known(
        self, session: Session, batch: _Batch, candidates: list[Candidate]
    ) -> list[list[Candidate]]:
        """Settle what the datastore has already; return the rest as at most one part."""
        stored = session.stored(candidates) if candidates else {}
        rest = []
        for candidate in candidates:
            known = stored.get(candidate.ref.id)
            if known is None:
                rest.append(candidate)
            elif difference := self._replaced(candidate, known):
                batch.add(Outcome.failed(candidate.file, "replaced_file", difference))
            else:
                batch.add(Outcome.ingested(candidate.file, candidate.ref.id))
        rest.sort(key=lambda candidate: str(candidate.ref.dataId.required_values))
        return [rest] if rest else []

    def _replaced(self, candidate: Candidate, known: StoredFile) -> str | None:
        """Return how a known dataset's file is another than the candidate, None if it is the same."""
        name = _data_id(candidate)
        if self._transfer == IN_PLACE and known.path != str(candidate.path):
            return f"The repository has {name} at {known.path}, not at {candidate.path}. Decide which one counts."
        if known.bytes not in (-1, candidate.file.bytes):
            return f"The repository has {name} with {known.bytes} bytes, the file has {candidate.file.bytes}."
        return None

    def _write(self, session: Session, batch: _Batch, part: list[Candidate], tries: int) -> None:
        """Write a part in one transaction; if it is refused, its halves, down to the file that is to blame."""
        self.transactions += 1
        try:
            session.write(part)
        except RecordsDiffer as differ:
            rest = self._without_differing(batch, part, differ)
            if rest:
                self._write(session, batch, rest, tries)
            return
        except BUTLER_ERRORS as error:
            failure = classify(error)
            if failure is Failure.UNAVAILABLE:
                raise ButlerUnavailable(self._repository, sentence(error)) from error
            log.info("transaction refused", files=len(part), tries=tries, reason=sentence(error))
            if failure is Failure.CONFLICT and tries > 1:
                time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter
                for rest in self._without_known(session, batch, part):
                    self._write(session, batch, rest, tries - 1)
            elif len(part) == 1:
                batch.refused(part[0], sentence(error))
            else:
                middle = len(part) // 2
                # Halves are not retried before they are split: a lasting conflict costs log2(N), not 3 log2(N).
                for half in (part[:middle], part[middle:]):
                    self._write(session, batch, half, 2 if len(half) == 1 else 1)
            return
        batch.written(part)

    def _without_differing(
        self, batch: _Batch, part: Sequence[Candidate], differ: RecordsDiffer
    ) -> list[Candidate]:
        rest = []
        for candidate in part:
            said = [
                f"{_named(k)}: {differ.differences[k]}" for k in candidate.records if k in differ.differences
            ]
            if said:
                reason = f"The repository has other records. {'. '.join(said)}."
                batch.add(Outcome.failed(candidate.file, "conflicting_record", reason))
            else:
                rest.append(candidate)
        return rest


def _data_id(candidate: Candidate) -> str:
    return ",".join(f"{k}={v}" for k, v in candidate.description.data_id.items())


def _named(key: RecordKey) -> str:
    return f"{key[0]} {key[2]}"
