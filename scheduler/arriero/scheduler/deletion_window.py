"""Passes through the replicas of an RSE that may go: each batch looks on from where the last one ended.

Most of what has a tombstone may have to stay, for it is the last copy; so a pass looks at everything once, and rests the longer
the more it has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, case, literal, or_, select, tuple_

from arriero.registry.dialect import insert_into
from arriero.registry.schema.base import AT_THIS_MOMENT, UtcDateTime, after, now
from arriero.registry.schema.tables import bad_replicas, deletion_passes, dids, replicas
from arriero.registry.states import DeletionPass
from arriero.registry.store import deletion_guards as guards
from arriero.registry.store.deletion_guards import AT_ONCE, DECLARED_BAD, Place

SEEN_PER_SECOND = 2000.0
"""A pass rests a second for each so many replicas that it has looked at."""

LONGEST_REST_S = 600.0

_WINDOWS = 8
"""Windows that one claim looks through at most: others wait for the RSE's row."""

_NOT_YET = "not_yet"


@dataclass(frozen=True, slots=True)
class Pass:
    """How far a pass has come."""

    kind: DeletionPass
    after_at: datetime | None = None
    after_file_id: int | None = None
    seen: int = 0
    has_ended: bool = False


def begin_pass(connection: Connection, rse_id: int, kind: DeletionPass) -> Pass | None:
    """Give the pass of an RSE, where it has come to; None while it rests. The RSE's row is held."""
    resting = and_(deletion_passes.c.not_before.is_not(None), deletion_passes.c.not_before > AT_THIS_MOMENT)
    row = connection.execute(
        select(deletion_passes, case((resting, 1), else_=0).label("rests")).where(
            deletion_passes.c.rse_id == rse_id, deletion_passes.c.kind == kind
        )
    ).one_or_none()
    if row is None:
        return Pass(kind)
    return None if row.rests else Pass(kind, row.after_at, row.after_file_id, row.seen)


def look_on(connection: Connection, place: Place, begun: Pass, limit: int) -> tuple[list[int], Pass]:
    """Find the next replicas of a pass against which nothing stands, as far as nobody else's changes are looked at.

    Returns
    -------
    tuple
        Ids of their files, in the order in which they go, and the pass as it is now.
    """
    found: list[int] = []
    at = begun
    for _ in range(_WINDOWS):
        size = limit - len(found)
        rows = connection.execute(_window(place, at, size)).all()
        # one may have been declared bad twice
        known = frozenset(found)
        found += dict.fromkeys(row.file_id for row in rows if row.code is None and row.file_id not in known)
        if rows:
            last = rows[-1]
            seen = at.seen + len(rows)
            at = replace(at, after_at=last.tombstone, after_file_id=last.file_id, seen=seen)
        if len(rows) < size:
            return found, replace(at, has_ended=True)
        if len(found) >= limit:
            break
    return found, at


def _window(place: Place, at: Pass, size: int) -> Select[Any]:
    verdict = case((~or_(guards.buried(), guards.is_bad()), _NOT_YET), else_=guards.fault(place))
    query = (
        select(replicas.c.file_id, replicas.c.tombstone, verdict.label("code"))
        .join(dids, dids.c.id == replicas.c.file_id)
        .where(replicas.c.rse_id == place.rse_id)
        .limit(size)
    )
    if at.kind is DeletionPass.AT_ONCE:
        query = query.where(AT_ONCE).order_by(replicas.c.file_id)
        return query.where(replicas.c.file_id > (at.after_file_id or 0))
    if at.kind is DeletionPass.BAD:
        beyond = bad_replicas.c.file_id > (at.after_file_id or 0)
        return (
            query.join(bad_replicas, bad_replicas.c.file_id == replicas.c.file_id)
            .where(bad_replicas.c.rse_id == place.rse_id, DECLARED_BAD, beyond)
            .order_by(bad_replicas.c.file_id)
        )
    query = query.where(replicas.c.tombstone.is_not(None), replicas.c.tombstone <= AT_THIS_MOMENT)
    if at.after_at is not None and at.after_file_id is not None:
        last = tuple_(literal(at.after_at, UtcDateTime()), literal(at.after_file_id))
        query = query.where(tuple_(replicas.c.tombstone, replicas.c.file_id) > last)
    return query.order_by(replicas.c.tombstone, replicas.c.file_id)


def come_back_to(connection: Connection, place: Place, at: Pass, file_ids: Sequence[int]) -> Pass:
    """Give a pass that has looked further than was taken, as it was after the last of some files."""
    if not file_ids:
        return at
    last = file_ids[-1]
    tombstone = connection.scalar(
        select(replicas.c.tombstone).where(replicas.c.file_id == last, replicas.c.rse_id == place.rse_id)
    )
    return replace(at, after_at=tombstone, after_file_id=last, has_ended=False)


def note_pass(connection: Connection, rse_id: int, at: Pass) -> None:
    """Write down how far a pass has come; one that has ended rests, and begins anew."""
    rest_s = min(LONGEST_REST_S, at.seen / SEEN_PER_SECOND) if at.has_ended else 0.0
    values: dict[str, Any] = {
        "after_at": None if at.has_ended else at.after_at,
        "after_file_id": None if at.has_ended else at.after_file_id,
        "seen": 0 if at.has_ended else at.seen,
        "not_before": after(literal(rest_s)) if rest_s else now(),
    }
    statement = insert_into(connection, deletion_passes).values(rse_id=rse_id, kind=at.kind, **values)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["rse_id", "kind"], set_={name: statement.excluded[name] for name in values}
        )
    )
