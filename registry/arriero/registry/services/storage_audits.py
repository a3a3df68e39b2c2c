"""Audits of storages: what a dump or a walk says is there comes in chunks, each line as soon as it comes as what it is.

What becomes of it when all are there is `arriero.registry.services.audit_comparison`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, RowMapping, select

from arriero.registry.errors import Conflict, InvalidInput, NotFound
from arriero.registry.schema.base import now
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.pfn_lookup import Place, candidates
from arriero.registry.services.rses import require_rse
from arriero.registry.states import AuditSource, AuditState
from arriero.registry.store import audit_lines
from arriero.registry.store import storage_audits as store
from arriero.registry.store.rses import load_rses
from arriero.registry.store.streaming import streamed
from arriero.rse.checksum import canonical_adler32
from arriero.rse.errors import RSEError
from arriero.rse.paths import is_own, safe_path

log = structlog.get_logger(__name__)

MAX_CURSOR_CHARACTERS = 4000

_CLOCK_S = 300.0
"""How far ahead the clock of a site may be, seconds."""

_ABANDONED_S = 7 * 86400.0
"""An audit of which no line has come for so long has been given up, seconds."""

Found = tuple[str, int | None, str | None]
"""Path below the RSE's prefix, bytes and adler32 of a file that is at the storage."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An audit whose lines may come."""

    id: int
    rse: str
    observed_at: datetime
    chunks: int
    lines: int
    cursor: str | None


def begin(
    context: Context, actor: Actor, rse: str, source: AuditSource, observed_at: datetime | None = None
) -> Begun:
    """Begin an audit of an RSE; one whose lines are still to come ends.

    Parameters
    ----------
    observed_at
        When the storage looked like this; None: now, for a walk that begins.

    Raises
    ------
    NotFound
        There is no such RSE.
    InvalidInput
        That moment is still to come.
    Conflict
        There is an audit of that moment, or of a later one.
    """
    authorize(actor, Action.AUDIT_RUN, Target(rse, rse=rse))

    def work(connection: Connection) -> int:
        row = require_rse(connection, rse, lock=True)
        moment = connection.execute(select(now())).scalar_one()
        if observed_at is not None and observed_at > moment + timedelta(seconds=_CLOCK_S):
            raise InvalidInput(
                f"{observed_at:%Y-%m-%d %H:%M:%S} UTC is still to come: give the date of the dump"
            )
        last = store.newest(connection, row["id"])
        if last is not None and observed_at is not None and observed_at <= last["observed_at"]:
            raise Conflict(
                f"audit {last['id']} of {rse} is of {last['observed_at']:%Y-%m-%d %H:%M:%S} UTC: this dump is no newer; "
                "make a new one, or give its date",
                code="audit_not_newer",
            )
        store.abandon(connection, row["id"], reason="another audit of this RSE was begun")
        audit_id = store.begin(connection, row["id"], source, observed_at, actor.account_id)
        audit.record(connection, actor, Action.AUDIT_RUN, rse, audit=audit_id, source=source)
        return audit_id

    audit_id = context.database.run(work)
    with context.database.snapshot() as connection:
        return _begun(require_audit(connection, audit_id))


def _begun(row: RowMapping | Mapping[str, Any]) -> Begun:
    return Begun(row["id"], row["rse"], row["observed_at"], row["chunks"], row["lines"], row["cursor"])


def require_audit(connection: Connection, audit_id: int, *, hold: bool = False) -> RowMapping:
    """Give an audit's row, held against other changes if asked for.

    Raises
    ------
    NotFound
        There is none.
    """
    row = store.audit_row(connection, audit_id, hold=hold)
    if row is None:
        raise NotFound(f"there is no audit {audit_id}: see `arriero audit list`")
    return row


def hold_receiving(connection: Connection, actor: Actor, audit_id: int) -> RowMapping:
    """Hold an audit whose lines are still to come.

    Raises
    ------
    Conflict
        It has ended.
    """
    row = require_audit(connection, audit_id, hold=True)
    authorize(actor, Action.AUDIT_RUN, Target(row["rse"], rse=row["rse"]))
    if row["state"] is not AuditState.RECEIVING:
        raise Conflict(
            f"audit {audit_id} of {row['rse']} is {row['state']}: begin a new one", code="audit_ended"
        )
    return row


def resume(context: Context, actor: Actor, audit_id: int) -> Begun:
    """Tell how far the lines of an audit have come, for whoever goes on with it.

    Raises
    ------
    NotFound
        There is none.
    Conflict
        It has ended.
    """
    return context.database.run(lambda connection: _begun(hold_receiving(connection, actor, audit_id)))


def add_lines(
    context: Context,
    actor: Actor,
    audit_id: int,
    chunk: int,
    lines: Sequence[Found],
    *,
    cursor: str | None = None,
) -> Begun:
    """Add a chunk of lines to an audit; one that is sent again is passed over.

    Parameters
    ----------
    chunk
        Its number, from 0, without gaps.
    lines
        What is there. What Arriero itself keeps there is passed over.
    cursor
        Where a walk goes on after it.

    Raises
    ------
    Conflict
        Chunks before it are missing, or the audit has ended.
    InvalidInput
        A checksum or size cannot be one, or there are too many lines.
    """
    if len(lines) > context.settings.max_bulk_items:
        raise InvalidInput(f"at most {context.settings.max_bulk_items} lines in one call")
    usable, unusable = _read(lines)

    def work(connection: Connection) -> Begun:
        row = hold_receiving(connection, actor, audit_id)
        if chunk > row["chunks"]:
            raise Conflict(f"chunk {row['chunks']} of audit {audit_id} is missing", code="audit_gap")
        if chunk < row["chunks"]:
            return _begun(row)
        rse = load_rses(connection, [row["rse"]])[row["rse"]]
        first = row["lines"]
        places = [[Place(rse, path)] for path, _, _ in usable]
        known = [(first + one[0], *one[1:]) for one in candidates(connection, places)]
        numbered = [(first + number, *line) for number, line in enumerate(usable)]
        audit_lines.add(connection, audit_id, numbered, known)
        values = {
            "chunks": chunk + 1,
            "cursor": cursor if cursor is not None else row["cursor"],
            "lines": first + len(usable),
            "unusable": row["unusable"] + unusable,
            "has_bytes": row["has_bytes"] or any(size is not None for _, size, _ in usable),
            "has_adler32": row["has_adler32"] or any(adler32 is not None for _, _, adler32 in usable),
        }
        store.change(connection, audit_id, values)
        detail = {"audit": audit_id, "chunk": chunk, "lines": len(usable), "unusable": unusable}
        audit.record(connection, actor, Action.AUDIT_RUN, row["rse"], **detail)
        return _begun({**row, **values})

    return context.database.run(work)


def _read(lines: Sequence[Found]) -> tuple[list[Found], int]:
    """Give the lines that can be replicas or dark files, and how many cannot."""
    usable: list[Found] = []
    unusable = 0
    for path, size, adler32 in lines:
        try:
            safe_path(path)
        except RSEError:
            unusable += 1
            continue
        if is_own(path):
            continue
        try:
            usable.append((path, size, canonical_adler32(adler32) if adler32 else None))
        except ValueError as error:
            raise InvalidInput(f"{path[:200]}: {error}") from error
    return usable, unusable


def list_audits(
    context: Context, *, rse: str | None = None, audit_id: int | None = None
) -> Iterator[dict[str, Any]]:
    """Audits, the latest first.

    Raises
    ------
    NotFound
        There is no such RSE, or audit.
    """
    with context.database.snapshot() as connection:
        rse_id = None if rse is None else require_rse(connection, rse)["id"]
        if audit_id is not None:
            require_audit(connection, audit_id)
        with streamed(connection, store.audits_query(rse_id, audit_id)) as rows:
            for row in rows:
                yield dict(row)


def clean_audits(context: Context) -> int:
    """End audits whose lines stopped coming, and remove the lines of one that has ended; for a sweep.

    Returns
    -------
    int
        How many audits were ended or cleaned.
    """

    def work(connection: Connection) -> int:
        ended = store.abandon_old(connection, older_s=_ABANDONED_S)
        audit_id = store.ended_with_lines(connection)
        if audit_id is not None:
            audit_lines.remove(connection, audit_id)
        return ended + (audit_id is not None)

    return context.database.run(work)
