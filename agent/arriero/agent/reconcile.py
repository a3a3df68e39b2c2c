"""Holds a Butler, the ledger of its arrivals and its files against each other, in all three directions, and mends it.

Why it exists: files get lost between systems that each believe to be right (DESIGN section 11, I6). Both sides are read
once, page by page, into a scratch database beside the work, and compared there as sets: memory does not grow with the
repository. What is at the storages against the catalogue is the business of audits (docs/adr/0024-audits-and-scrubbing.md);
their findings are taken over here. It runs at the site and holds a URL and a token.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Protocol, Self
from urllib.parse import quote
from uuid import UUID

import structlog

from arriero.agent.butler_contents import ButlerContents, Stored, plain_uri, sizes
from arriero.agent.errors import AgentError
from arriero.agent.reconcile_findings import ADOPT, FORGET, MENDED, Finding, Kind
from arriero.agent.reconcile_sql import INDEXES, LATE, SCHEMA, VIEWS
from arriero.registry.arrival_words import ButlerFile, ChangeArrivals
from arriero.registry.models import ButlerInfo
from arriero.registry.pages import pages_of
from arriero.registry.states import ReplicaState

log = structlog.get_logger(__name__)

PAGE = 1000
"""Files of one page, and of one call."""


BRAKE_FILES = 10
BRAKE_SHARE = 0.05
"""More files than this that are not at the storage, and more than this part of all, are a disk that is not mounted."""


class NotBelieved(AgentError):
    """So much is missing from a storage that it cannot be true."""

    code: ClassVar[str] = "not_believed"
    exit_code: ClassVar[int] = 7


class Ledger(Protocol):
    """The catalogue as reconciling sees it."""

    def butler_files(self, butler: str, **chosen: Any) -> Iterator[ButlerFile]: ...
    def ingest_again(
        self, ids_and_fences: Sequence[tuple[int, int]], reason: str | None = None
    ) -> list[int]: ...
    def adopt_arrivals(
        self, found: Sequence[tuple[int, int, UUID]], several: Mapping[int, Sequence[UUID]]
    ) -> list[int]: ...
    def change_arrivals(self, order: ChangeArrivals) -> int: ...
    def list_findings(self, rse: str | None = None) -> Iterator[dict[str, Any]]: ...


_GONE = frozenset({None, ReplicaState.UNAVAILABLE, ReplicaState.BAD, ReplicaState.BEING_DELETED})
"""States of replicas of which nobody can read; None: there is none."""

_QUERIES: Mapping[Kind, str] = {
    Kind.NOT_IN_PLACE: "SELECT *, '' AS detail FROM both WHERE own",
    # what describes others (dimension records, exports) is no dataset itself
    Kind.MISSING: """
        SELECT *, NULL AS stored_id, 'replica ' || replica AS detail FROM nowhere
        WHERE dataset_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM stored WHERE stored.dataset_id = nowhere.dataset_id)
        UNION ALL
        SELECT ledger.*, NULL, count(*) || ' of the datasets in it' FROM ledger JOIN expected ON expected.id = ledger.id
        WHERE state = 'ingested' AND EXISTS (SELECT 1 FROM stored WHERE stored.uri = ledger.uri AND NOT own)
        AND NOT EXISTS (SELECT 1 FROM stored WHERE stored.dataset_id = expected.dataset_id) GROUP BY ledger.id
    """,
    Kind.DANGLING: "SELECT *, 'replica ' || replica AS detail FROM both WHERE NOT own AND gone",
    Kind.WRONG_SIZE: """
        SELECT *, 'the Butler says ' || stored_bytes || ' bytes, the catalogue ' || bytes AS detail
        FROM both WHERE NOT own AND NOT gone AND NOT same_size
    """,
    Kind.OTHER_PLACE: """
        SELECT nowhere.*, stored.dataset_id AS stored_id, 'it has it at ' || stored.uri AS detail
        FROM nowhere JOIN stored ON stored.dataset_id = nowhere.dataset_id WHERE NOT own
    """,
    Kind.UNREPORTED: """
        SELECT *, min(stored_id) AS least, 'it is ' || state || ' there' AS detail FROM both
        WHERE state NOT IN ('ingested', 'leased') AND NOT own AND NOT gone AND same_size GROUP BY id
    """,
    Kind.OTHER_ID: """
        SELECT *, min(stored_id) AS least, 'the ledger says ' || coalesce(dataset_id, 'nothing') AS detail
        FROM both WHERE state = 'ingested' AND NOT own AND NOT gone AND same_size AND NOT part
        AND NOT EXISTS (
            SELECT 1 FROM stored WHERE stored.uri = both.uri AND stored.dataset_id = both.dataset_id
        ) GROUP BY id
    """,
}
"""What is wrong, of ledger and Butler; a file is told of once for each kind."""


def _nothing(count: int) -> None:
    del count


class Reconciler:
    """One comparison; a context, since it has a scratch file.

    Parameters
    ----------
    ledger
        The registry.
    contents
        The Butler, writeable if something is to be mended.
    butler
        As the catalogue knows it.
    """

    def __init__(self, ledger: Ledger, contents: ButlerContents, butler: ButlerInfo) -> None:
        self._ledger = ledger
        self._contents = contents
        self._butler = butler
        self._directory = TemporaryDirectory(prefix="arriero-reconcile-")
        self._scratch = sqlite3.connect(Path(self._directory.name) / "scratch.db")
        self._scratch.row_factory = sqlite3.Row
        self._scratch.executescript(SCHEMA)
        self._prefixes: dict[str, str] = {}
        self.files = 0
        self.datasets = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._scratch.close()
        self._directory.cleanup()

    def read(self, advance: Callable[[int], None] = _nothing) -> None:
        """Read both sides; the ledger last, so that what was ingested meanwhile is not missing from the Butler.

        What an agent writes between the two is seen in the ledger only: `findings` looks at the Butler once more for it.
        """
        for page in self._contents.pages(PAGE):
            self.datasets += len(page)
            self._insert_stored(page)
            advance(len(page))
        for files in pages_of(self._ledger.butler_files(self._butler.name), PAGE):
            self.files += len(files)
            self._scratch.executemany(
                "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [self._row(file) for file in files],
            )
            self._scratch.executemany(
                "INSERT INTO expected VALUES (?, ?)",
                [(file.id, one.hex) for file in files for one in file.datasets or ()],
            )
            advance(len(files))
        self._scratch.executescript(INDEXES)
        self._look_again()
        self._scratch.executescript(VIEWS)

    def _insert_stored(self, page: Iterable[Stored]) -> None:
        self._scratch.executemany(
            "INSERT INTO stored VALUES (?, ?, ?, ?, ?)",
            [(one.dataset_id.hex, one.uri, one.own, one.bytes, one.part) for one in page if one.uri],
        )

    def _row(self, file: ButlerFile) -> tuple[Any, ...]:
        uri = None if file.uri is None else plain_uri(file.uri)
        if uri is not None and file.rse not in self._prefixes:
            for name in (quote(file.name), file.name):
                if uri.endswith(name):
                    self._prefixes[file.rse] = uri.removesuffix(name)
        return (
            file.id,
            file.fence,
            file.state.value,
            file.scope,
            file.name,
            file.rse,
            uri,
            file.bytes,
            "none" if file.replica_state is None else file.replica_state.value,
            file.replica_state in _GONE,
            None if file.dataset_id is None else file.dataset_id.hex,
        )

    def _look_again(self) -> None:
        """Ask the Butler once more for what came into it after it was read."""
        late = self._scratch.execute(LATE).fetchall()
        for page in pages_of(late, PAGE):
            found = self._contents.stored(UUID(hex=row["dataset_id"]) for row in page)
            self._insert_stored(found.values())

    def findings(self, *, look_at_files: bool = False) -> Iterator[Finding]:
        """Tell what is wrong, kind by kind, page by page.

        Parameters
        ----------
        look_at_files
            Ask the storages, too, for every file that the Butler has.
        """
        for kind, query in _QUERIES.items():
            with closing(self._scratch.cursor()) as cursor:
                cursor.execute(query)
                while rows := cursor.fetchmany(PAGE):
                    yield from (_finding(kind, row) for row in rows)
        yield from self._strays()
        if look_at_files:
            yield from self._at_storages()
        yield from self._of_audits()

    def _strays(self) -> Iterator[Finding]:
        for rse, prefix in sorted(self._prefixes.items()):
            with closing(self._scratch.cursor()) as cursor:
                cursor.execute(
                    "SELECT dataset_id, uri FROM stored WHERE NOT own AND uri >= ? AND uri < ? "
                    "AND NOT EXISTS (SELECT 1 FROM ledger WHERE ledger.uri = stored.uri)",
                    (prefix, prefix + "\U0010ffff"),
                )
                while rows := cursor.fetchmany(PAGE):
                    for row in rows:
                        id_ = UUID(hex=row["dataset_id"])
                        yield Finding(
                            Kind.STRAY, None, None, rse, row["uri"], f"dataset {id_}", dataset_id=id_
                        )

    def _at_storages(self) -> Iterator[Finding]:
        with closing(self._scratch.cursor()) as cursor:
            cursor.execute(
                "SELECT *, '' AS detail FROM both WHERE NOT own AND NOT gone AND same_size ORDER BY uri"
            )
            while rows := cursor.fetchmany(PAGE):
                found = self._sizes([row["uri"] for row in rows])
                for row in rows:
                    size = found.get(row["uri"], row["bytes"])
                    if size is None:
                        yield _finding(Kind.FILE_MISSING, row, "it is not there")
                    elif size != row["bytes"]:
                        detail = f"it has {size} bytes, the catalogue says {row['bytes']}"
                        yield _finding(Kind.FILE_WRONG, row, detail)

    def _sizes(self, uris: Sequence[str]) -> dict[str, int | None]:
        """Ask the storages for sizes, for each file once however often it is told of; the URIs are in their order."""
        known: dict[str, int | None] = dict(
            self._scratch.execute(
                "SELECT uri, bytes FROM looked_at WHERE uri BETWEEN ? AND ?", (uris[0], uris[-1])
            )
        )
        fresh = sizes(uri for uri in uris if uri not in known)
        self._scratch.executemany("INSERT INTO looked_at VALUES (?, ?)", fresh.items())
        return known | fresh

    def _of_audits(self) -> Iterator[Finding]:
        kinds = {"MISSING": Kind.FILE_MISSING, "DARK": Kind.DARK}
        for feed in self._butler.rses:
            for one in self._ledger.list_findings(feed.rse):
                kind = kinds.get(one["kind"], Kind.FILE_WRONG)
                detail = f"{one['kind']}, {one['state']}, seen {one['times']} times"
                yield Finding(kind, one.get("scope"), one.get("name"), feed.rse, one.get("path"), detail)

    def mend(self, findings: Iterable[Finding]) -> Counter[str]:
        """Mend what can be mended, page by page; give how many of each kind were.

        The order of a release and of an ingest holds here too: the Butler forgets first, the ledger is told then.

        Raises
        ------
        NotBelieved
            Too much is missing from the storages; what came before is mended.
        """
        gone = 0
        done: Counter[str] = Counter()
        for page in pages_of((one for one in findings if one.kind in MENDED and one.arrival), PAGE):
            gone += sum(one.kind is Kind.FILE_MISSING for one in page)
            if gone > max(BRAKE_FILES, BRAKE_SHARE * self.files):
                raise NotBelieved(
                    f"At least {gone} of {self.files} files are not at the storage: is it mounted? Nothing more is mended."
                )
            once: dict[int, Finding] = {}
            for one in page:
                if one.arrival is not None:
                    once.setdefault(one.arrival, one)
            forget = [one.dataset_id for one in page if one.kind in FORGET and one.dataset_id is not None]
            # a Butler takes all of a zip, or nothing
            forget += [id_ for one in page if one.kind is Kind.MISSING for id_ in self._in_file(one)]
            if forget:
                self._contents.unstore(forget)
            adopt = [one for one in once.values() if one.kind in ADOPT]
            again = [one for one in once.values() if one.kind not in ADOPT and one.state == "ingested"]
            retry = [one for one in once.values() if one.kind not in ADOPT and one.state == "failed"]
            rejected = self._told(adopt, again, retry)
            done.update(one.kind.value for one in once.values() if one.arrival not in rejected)
        log.info("reconciled", butler=self._butler.name, **done)
        return done

    def _told(self, adopt: Sequence[Finding], again: Sequence[Finding], retry: Sequence[Finding]) -> set[int]:
        rejected: set[int] = set()
        if adopt:
            known = [(one.arrival or 0, one.fence or 0, one.dataset_id) for one in adopt]
            several = {one.arrival or 0: found for one in adopt if len(found := self._in_file(one)) > 1}
            rejected.update(
                self._ledger.adopt_arrivals([one for one in known if one[2] is not None], several)  # type: ignore[misc]
            )
        if again:
            held = [(one.arrival or 0, one.fence or 0) for one in again]
            rejected.update(self._ledger.ingest_again(held, "reconcile: the Butler did not have it as it is"))
        if retry:
            ids = tuple(one.arrival or 0 for one in retry)
            self._ledger.change_arrivals(ChangeArrivals(action="retry", butler=self._butler.name, ids=ids))
        return rejected

    def _in_file(self, one: Finding) -> list[UUID]:
        """Datasets that the Butler has in a file."""
        rows = self._scratch.execute("SELECT dataset_id FROM stored WHERE uri = ?", (one.uri,))
        return [UUID(hex=row["dataset_id"]) for row in rows]


def _finding(kind: Kind, row: sqlite3.Row, detail: str | None = None) -> Finding:
    return Finding(
        kind,
        row["scope"],
        row["name"],
        row["rse"],
        row["uri"],
        row["detail"] if detail is None else detail,
        row["state"],
        row["id"],
        row["fence"],
        None if row["dataset_id"] is None else UUID(hex=row["dataset_id"]),
        None if row["stored_id"] is None else UUID(hex=row["stored_id"]),
    )
