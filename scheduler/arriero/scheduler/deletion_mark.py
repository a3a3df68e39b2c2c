"""Reads, judges and writes the mark that deletion leaves on each storage (`arriero.scheduler.core.marks`)."""

import time
from contextlib import closing

import structlog
from sqlalchemy import Connection, false, select, update

from arriero.registry.database import Database
from arriero.registry.schema.base import after, now
from arriero.registry.schema.tables import installation, rse_deletions
from arriero.registry.store.deletion_terms import hold_rse
from arriero.rse.errors import AccessDenied, NotFound, RSEError, TimedOut, Unavailable, Unsupported
from arriero.rse.protocol import StorageProtocol
from arriero.scheduler.core.marks import MAX_BYTES, UNREADABLE, Mark, Refusal, Unreadable, judge, read_mark

log = structlog.get_logger(__name__)

PATH = ".arriero-deletions"
NEW = ".arriero-deletions.part"
"""Its name, below the RSE's prefix, and that of the next one until it is whole."""

EVERY_S = 60.0
"""How often it is looked at and written, seconds."""

_PAUSES = (0.2, 0.5)
"""Before another look at what cannot be read: another worker may be writing it. Seconds."""


def refused_by_mark(database: Database, rse_id: int, rse: str, protocol: StorageProtocol) -> Refusal | None:
    """Say why nothing may be deleted at a storage, None when it may; then the mark has been written anew.

    Raises
    ------
    Unavailable, TimedOut
        The storage does not answer.
    """
    if _is_fresh(database, rse_id):
        return None
    found = _read(protocol)
    refusal, mark = database.run(lambda tx: _judge(tx, rse_id, rse, found))
    # until it is known to be there, nobody misses it
    if mark is not None and _write(protocol, mark, replaces=found is not None):
        database.run(lambda tx: _note(tx, rse_id))
    return refusal


def _is_fresh(database: Database, rse_id: int) -> bool:
    recent = rse_deletions.c.marked_at > after(-EVERY_S)
    with database.snapshot() as connection:
        query = select(rse_deletions.c.rse_id).where(rse_deletions.c.rse_id == rse_id, recent)
        return connection.scalar(query.where(rse_deletions.c.take_over == false())) is not None


def _read(protocol: StorageProtocol) -> Mark | Refusal | None:
    for pause in (*_PAUSES, None):
        try:
            return read_mark(_content(protocol))
        except NotFound:
            return None
        except Unreadable:
            if pause is not None:
                time.sleep(pause)
        except (AccessDenied, Unsupported) as error:
            return Refusal(UNREADABLE, f"{PATH} cannot be read: {error}")
    return Refusal(UNREADABLE, f"{protocol.endpoint.rse}: {PATH} is not what Arriero wrote")


def _content(protocol: StorageProtocol) -> bytes:
    content = b""
    with closing(protocol.read(PATH)) as pieces:
        for piece in pieces:
            content += piece
            if len(content) > MAX_BYTES:
                break
    return content


def _judge(
    connection: Connection, rse_id: int, rse: str, found: Mark | Refusal | None
) -> tuple[Refusal | None, Mark | None]:
    """Judge with the RSE's row held; the epoch that a mark was written with is in the database before it is on the storage."""
    hold_rse(connection, rse_id)
    row = connection.execute(select(rse_deletions).where(rse_deletions.c.rse_id == rse_id)).one()
    ours = str(connection.execute(select(installation.c.id)).scalar_one())
    seen = found.epoch if isinstance(found, Mark) else 0
    if not row.take_over:
        known = {"installation": ours, "rse": rse, "epoch": row.epoch, "has_mark": row.marked_at is not None}
        refusal = judge(found, **known)
        if refusal is not None:
            return refusal, None
    epoch = max(row.epoch, seen) + 1
    values = {"epoch": epoch, "take_over": False, "marked_at": None if found is None else now()}
    connection.execute(update(rse_deletions).where(rse_deletions.c.rse_id == rse_id).values(**values))
    return None, Mark(ours, rse, epoch)


def _note(connection: Connection, rse_id: int) -> None:
    connection.execute(update(rse_deletions).where(rse_deletions.c.rse_id == rse_id).values(marked_at=now()))


def _write(protocol: StorageProtocol, mark: Mark, *, replaces: bool) -> bool:
    """Write the mark; one that is there stays until the new one is whole.

    A storage that is full, or lets nobody write, is deleted from all the same.
    """
    content = mark.written()
    path = NEW if replaces else PATH
    try:
        protocol.write(path, [content], len(content))
        if replaces:
            protocol.move(NEW, PATH, replace=True)
    except (Unavailable, TimedOut):
        raise
    except RSEError as error:
        log.warning("mark of deletion not written", rse=mark.rse, code=error.code)
        return False
    return True
