"""Writes arrivals into one Butler repository, many exposures per transaction.

Why it exists: batches are what makes the Butler fast, and what lets one bad file take its neighbours down. The
writer reads the headers first, in parallel and outside of any transaction; sorts out what the repository has
already, lacks, or contradicts; writes the rest in one transaction; and halves a batch that is refused until the
culprit stands alone. It gives one outcome per file and keeps no state that a restart would miss.
"""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import structlog
from lsst.daf.butler import DatasetRef

from arriero.agent.ingest.batch import Batch, record_name
from arriero.agent.ingest.butler_candidates import Candidate, Placed, Prepared, RecordsDiffer
from arriero.agent.ingest.butler_drafts import DraftReader
from arriero.agent.ingest.butler_errors import BUTLER_ERRORS, Failure, classify, sentence
from arriero.agent.ingest.butler_private import PATH_LENGTH, StoredFile
from arriero.agent.ingest.butler_records import RecordKey
from arriero.agent.ingest.butler_repository import repository_config
from arriero.agent.ingest.butler_session import Session
from arriero.agent.ingest.completion import Completion
from arriero.agent.ingest.drafts import Draft
from arriero.agent.ingest.errors import ButlerRefusesAll, ButlerUnavailable, IngestError
from arriero.agent.ingest.instrument import InstrumentMap, load_instrument
from arriero.agent.ingest.models import ArrivalFile, Outcome
from arriero.registry.arrival_words import CompleteExposure
from arriero.registry.models import MOVE

log = structlog.get_logger(__name__)

IN_PLACE = "direct"
TRANSFERS = {
    **{mode: mode for mode in (IN_PLACE, "copy", "link", "hardlink", "symlink", "relsymlink")},
    MOVE: "copy",
}
"""Modes, and what the Butler is told: none takes a replica from its owner. Of `move`, the catalogue deletes it later."""

CONFLICT_TRIES = 3
"""Tries of a batch that another writer may have got in the way of."""


class ButlerWriter:
    """One warm Butler and what is needed to fill it. Not for several threads, and not across a fork.

    Parameters
    ----------
    repo_uri
        The repository's directory or its ``butler.yaml``.
    instruments
        Maps, or names or paths of maps, of the instruments whose files may come.
    transfer
        Transfer mode: ``direct`` (in place), or one of `TRANSFERS` that copies or links.
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
        self._reader = DraftReader(self._instruments, threads=threads)
        self._session: Session | None = None
        self._completion = Completion(self._repository, self._instruments)
        self._looks_up = False
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
        with _collector_paused():
            return self._ingest(files)

    def _ingest(self, files: Sequence[ArrivalFile]) -> list[Outcome]:
        batch = Batch(files, self._named)
        try:
            session = self._open()
            candidates, later = self._ready(session, batch, self._drafts(session, batch))
            for round_ in (candidates, later):
                for part in self._lacking(session, batch, round_):
                    self._write(session, batch, part, CONFLICT_TRIES)
            self._completion.look(session, batch)
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

    def _named(self, key: RecordKey) -> str:
        return self._open().keys.named(key)

    def _open(self) -> Session:
        if self._session is None:
            self._session = Session(self._repository, TRANSFERS[self._transfer])
        return self._session

    def _drop_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def take_whole(self) -> list[CompleteExposure]:
        """Return the exposures that have become whole since this was called last; one may be told twice."""
        return self._completion.take()

    def _drafts(self, session: Session, batch: Batch) -> list[Draft]:
        """Read what the files say; what cannot be used gets its outcome here."""
        drafts = []
        for file, draft in zip(batch.files, self._reader.read(session, batch.files), strict=True):
            if isinstance(draft, IngestError):
                batch.error(file, draft)
            else:
                drafts.append(draft)
        return drafts

    def _ready(
        self, session: Session, batch: Batch, drafts: Sequence[Draft]
    ) -> tuple[list[Candidate], list[Candidate]]:
        """Make candidates; park what lacks a prerequisite, refuse what contradicts its neighbours.

        The second list is what goes after the first: an export that tells of files which are here themselves.
        """
        usable: list[Prepared] = []
        for draft, prepared in zip(drafts, session.prepare(drafts), strict=True):
            if isinstance(prepared, Prepared):
                usable.append(prepared)
            else:
                batch.fail(draft.file, prepared)
        candidates: list[Candidate] = []
        later: list[Candidate] = []
        taken: dict[UUID, Candidate] = {}
        for prepared, waits_for in zip(usable, session.missing(usable), strict=True):
            file = prepared.draft.file
            if waits_for is not None:
                batch.park(file, waits_for)
                continue
            try:
                candidate = session.candidate(prepared)
            except BUTLER_ERRORS as error:
                if classify(error) is Failure.UNAVAILABLE:
                    raise
                batch.add(Outcome.failed(file, "bad_data_id", sentence(error)))
                continue
            if refusal := self._refusal(candidate, taken):
                batch.add(Outcome.failed(file, *refusal))
                continue
            if any(id_ in taken for id_ in candidate.ids):
                later.append(candidate)
                continue
            taken.update(dict.fromkeys(candidate.ids, candidate))
            candidates.append(candidate)
        return batch.agreeing(candidates), later

    def _refusal(self, candidate: Candidate, taken: Mapping[UUID, Candidate]) -> tuple[str, str] | None:
        """Return code and reason if a file cannot be in the batch, None if it can."""
        for placed in candidate.placed:
            if len(placed.uri) > PATH_LENGTH:
                return (
                    "uri_too_long",
                    f"Its URI has {len(placed.uri)} characters, a Butler holds {PATH_LENGTH}.",
                )
            for ref, id_ in zip(placed.refs, placed.ids, strict=True):
                other = taken.get(id_)
                if other and not any(p.uri == placed.uri for p in other.placed if ref in p.refs):
                    return "duplicate_dataset", f"{other.file.uri} of this batch is the same {_data_id(ref)}."
        return None

    def _lacking(self, session: Session, batch: Batch, candidates: list[Candidate]) -> list[list[Candidate]]:
        """Return as at most one part what the repository may lack.

        What comes for the first time it seldom has: the transaction finds out, and the next batch is looked up before.
        """
        if not candidates:
            return []
        if self._looks_up or any(c.file.attempt > 1 or not c.placed for c in candidates):
            return self._without_known(session, batch, candidates)
        return [sorted(candidates, key=_place_in_transaction)]

    def _without_known(
        self, session: Session, batch: Batch, candidates: list[Candidate]
    ) -> list[list[Candidate]]:
        """Settle what the datastore has already; return the rest as at most one part."""
        stored = session.stored(candidates)
        self._looks_up = bool(stored)
        rest = []
        for candidate in candidates:
            lacking, difference = self._compared(candidate, stored)
            if difference is not None:
                batch.add(Outcome.failed(candidate.file, "replaced_file", difference))
            elif lacking or not candidate.placed or candidate.draft.collections is not None:
                rest.append(replace(candidate, placed=lacking))
            else:
                batch.ingested(candidate)
        rest.sort(key=_place_in_transaction)
        return [rest] if rest else []

    def _compared(
        self, candidate: Candidate, stored: Mapping[UUID, StoredFile]
    ) -> tuple[tuple[Placed, ...], str | None]:
        """Return the files that the repository lacks, and how one that it has is another."""
        lacking = []
        for placed in candidate.placed:
            if any(id_ not in stored for id_ in placed.ids):
                lacking.append(placed)
            for ref, id_ in zip(placed.refs, placed.ids, strict=True):
                known = stored.get(id_)
                if known and (difference := self._replaced(placed, ref, known, candidate.draft.is_zip)):
                    return (), difference
        return tuple(lacking), None

    def _replaced(self, placed: Placed, ref: DatasetRef, known: StoredFile, is_zip: bool) -> str | None:
        """Return how a known dataset's file is another than the candidate's, None if it is the same."""
        name, path = _data_id(ref), placed.uri
        has = known.path.partition("#")[0] if is_zip else known.path
        if self._transfer == IN_PLACE and has != path:
            return f"The repository has {name} at {has}, not at {path}. Decide which one counts."
        if placed.bytes is not None and known.bytes not in (-1, placed.bytes):
            return f"The repository has {name} with {known.bytes} bytes, the file has {placed.bytes}."
        return None

    def _write(self, session: Session, batch: Batch, part: list[Candidate], tries: int) -> None:
        """Write a part in one transaction; if it is refused, its halves, down to the file that is to blame."""
        self.transactions += 1
        try:
            session.write(part, new=tries == CONFLICT_TRIES)
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
                # Who was to bring what it needs may have been refused itself.
                (waits_for,) = session.missing([part[0].prepared])
                if waits_for is None:
                    batch.refused(part[0], sentence(error))
                else:
                    batch.park(part[0].file, waits_for)
            else:
                middle = len(part) // 2
                # Halves are not retried before they are split: a lasting conflict costs log2(N), not 3 log2(N).
                for half in (part[:middle], part[middle:]):
                    self._write(session, batch, half, 2 if len(half) == 1 else 1)
            return
        batch.written(part)

    def _without_differing(
        self, batch: Batch, part: Sequence[Candidate], differ: RecordsDiffer
    ) -> list[Candidate]:
        rest = []
        for candidate in part:
            said = [
                f"{record_name(k)}: {differ.differences[k]}"
                for k in candidate.records
                if k in differ.differences
            ]
            if said:
                reason = f"The repository has other records. {'. '.join(said)}."
                batch.add(Outcome.failed(candidate.file, "conflicting_record", reason))
            else:
                rest.append(candidate)
        return rest


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Leave garbage cycles alone: a batch makes many objects that all live to its end, and each pass looks at all of them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _place_in_transaction(candidate: Candidate) -> tuple[int, str]:
    first = next(iter(candidate.refs), None)
    return candidate.draft.order, "" if first is None else str(first.dataId.required_values)


def _data_id(ref: DatasetRef) -> str:
    return ",".join(f"{k}={v}" for k, v in ref.dataId.required.items())
