"""Takes what has arrived out of a Butler again, so that its replica may be deleted.

Why it exists: a replica that a Butler refers to is never deleted (DESIGN 4.7). The order is what makes a crash harmless:
the datasets leave the Butler, then the ledger says `released`, then the deletion passes. Whoever dies in between leaves
a file that no Butler has and that is kept: doing it again finishes it. It runs at the site and holds a URL and a token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

import structlog

from arriero.agent.butler_contents import ButlerContents, Stored, plain_uri
from arriero.registry.arrival_words import ButlerFile
from arriero.registry.pages import pages_of
from arriero.registry.states import ArrivalState

log = structlog.get_logger(__name__)

PAGE = 500
"""Arrivals of one removal from the Butler, and of one call."""


class Ledger(Protocol):
    """The catalogue as a release sees it."""

    def release_arrivals(
        self, ids_and_fences: Sequence[tuple[int, int]], reason: str | None = None
    ) -> list[int]:
        """Mark arrivals as released; return the ids that have changed since they were seen."""
        ...


class Verdict(StrEnum):
    """What becomes of one arrival."""

    RELEASED = "released"
    KEPT = "kept"
    """It stays in the Butler, for a reason."""
    PASSED_OVER = "passed_over"
    """It is not in the Butler, as far as the ledger knows."""
    CHANGED = "changed"
    """Somebody else has touched it meanwhile; it will be in the Butler again, or is released already."""


@dataclass(frozen=True, slots=True)
class Release:
    """One arrival and what became of it, or would."""

    file: ButlerFile
    verdict: Verdict
    datasets: int
    reason: str | None = None


def release(
    ledger: Ledger,
    contents: ButlerContents,
    files: Iterable[ButlerFile],
    *,
    force: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
) -> Iterator[Release]:
    """Release arrivals, a page at a time.

    Parameters
    ----------
    files
        As the ledger tells of them; they may be many.
    force
        Take out, too, what is in TAGGED and CALIBRATION collections, or recorded at another place.
    dry_run
        Only tell.
    reason
        Why, for the ledger.

    Raises
    ------
    ButlerUnavailable, UnsuitableRepository
        The Butler does not do it; what came before is released, the rest is as it was.
    """
    counts: Counter[str] = Counter()
    for page in pages_of(files, PAGE):
        for one in _release_page(ledger, contents, page, force=force, dry_run=dry_run, reason=reason):
            counts[one.verdict] += 1
            yield one
    log.info("arrivals released", dry_run=dry_run, **counts)


def _release_page(
    ledger: Ledger,
    contents: ButlerContents,
    page: Sequence[ButlerFile],
    *,
    force: bool,
    dry_run: bool,
    reason: str | None,
) -> list[Release]:
    datasets = _datasets(contents, [file for file in page if file.state is ArrivalState.INGESTED])
    protected = contents.protected(one for found in datasets.values() for one in found)
    verdicts: list[Release] = []
    going: dict[int, ButlerFile] = {}
    for file in page:
        found = datasets.get(file.id, [])
        why = _stays(file, found, protected, force=force)
        if file.state is not ArrivalState.INGESTED:
            verdicts.append(Release(file, Verdict.PASSED_OVER, 0, why))
        elif why is not None:
            verdicts.append(Release(file, Verdict.KEPT, len(found), why))
        else:
            going[file.id] = file
    rejected: set[int] = set()
    if going and not dry_run:
        contents.remove(one.dataset_id for id_ in going for one in datasets[id_])
        rejected = set(ledger.release_arrivals([(file.id, file.fence) for file in going.values()], reason))
    for id_, file in going.items():
        verdict = Verdict.CHANGED if id_ in rejected else Verdict.RELEASED
        verdicts.append(Release(file, verdict, len(datasets[id_])))
    return verdicts


def _datasets(contents: ButlerContents, files: Sequence[ButlerFile]) -> dict[int, list[Stored]]:
    """What the Butler has of each file: what the ledger names, or, where it does not name all of a zip, what is in the file."""
    named = {
        file.id: file.datasets or ([] if file.dataset_id is None else [file.dataset_id]) for file in files
    }
    known = contents.stored(id_ for ids in named.values() for id_ in ids)
    found: dict[int, list[Stored]] = {}
    unknown: dict[str, int] = {}
    for file in files:
        found[file.id] = [known[id_] for id_ in named[file.id] if id_ in known]
        only_first = not file.datasets and any(one.part for one in found[file.id])
        if file.uri is not None and (not named[file.id] or only_first):
            unknown[plain_uri(file.uri)] = file.id
    for uri, members in contents.in_files(unknown).items():
        found[unknown[uri]] = members
    return found


def _stays(
    file: ButlerFile, found: Sequence[Stored], protected: Mapping[UUID, list[str]], *, force: bool
) -> str | None:
    """Why an arrival is not released; None: nothing stands against it."""
    if file.state is not ArrivalState.INGESTED:
        hint = {
            ArrivalState.LEASED: "an agent is ingesting it at the moment: try again when it has reported",
            ArrivalState.RELEASED: "it is released already",
        }.get(
            file.state,
            f"it is {file.state}, not in the Butler: 'arriero arrival drop' leaves it out for good",
        )
        if file.may_hold:
            hint = "it is not known whether the Butler has it: 'arriero arrival retry' finds out, then release it"
        return hint
    uri = None if file.uri is None else plain_uri(file.uri)
    for one in found:
        if one.own and one.uri == uri:
            return (
                "the Butler takes the replica for its own file and would delete it: "
                "it was not ingested in place (transfer direct)"
            )
        if force:
            continue
        if one.dataset_id in protected:
            names = ", ".join(protected[one.dataset_id][:3])
            return f"it is a member of {names}: take it out of there first, or say --force"
        if not one.own and one.uri is not None and one.uri != uri:
            return f"the Butler has it at {one.uri}, not at {uri}: 'arriero reconcile' tells more, or say --force"
    return None
